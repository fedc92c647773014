// The did:plc directory: the real server with its database in memory, the
// control port's own way of changing an entry, and the two shapes of a DID
// document that are found in the wild.
import * as plcLibModule from '@did-plc/lib'
import * as plcServer from '@did-plc/server'
import { Failure } from './failure.mjs'
import { Gate, passHeaders } from './gate.mjs'
import { freePort } from './loopback.mjs'

const plcLib = plcLibModule.default ?? plcLibModule

/**
 * The DID document of `data` {did, alsoKnownAs, verificationMethods, services}.
 * The directory package serves the older shape (an uncompressed key, relative
 * ids); today's public directory serves Multikey with full key ids.
 */
export function didDocument(data, multikey) {
  if (!multikey) return plcLib.formatDidDoc({ rotationKeys: [], ...data })
  return {
    '@context': [
      'https://www.w3.org/ns/did/v1',
      'https://w3id.org/security/multikey/v1',
      'https://w3id.org/security/suites/secp256k1-2019/v1',
    ],
    id: data.did,
    alsoKnownAs: data.alsoKnownAs,
    verificationMethod: Object.entries(data.verificationMethods).map(([id, key]) => ({
      id: `${data.did}#${id}`,
      type: 'Multikey',
      controller: data.did,
      publicKeyMultibase: key.replace(/^did:key:/, ''),
    })),
    service: Object.entries(data.services).map(([id, { type, endpoint }]) => ({
      id: `#${id}`,
      type,
      serviceEndpoint: endpoint,
    })),
  }
}

export class Directory {
  gate = new Gate()
  #db = plcServer.Database.mock()
  #multikey

  constructor({ multikey }) {
    this.#multikey = multikey
  }

  async start(port) {
    if (this.server) return
    this.port ??= port || (await freePort())
    this.url = `http://localhost:${this.port}`
    const server = plcServer.PlcServer.create({ db: this.#db, port: this.port })
    const http = await server.start()
    this.gate.attach(http, this.#multikey ? (req, res) => this.#serveMultikey(req, res) : undefined)
    this.server = server
  }

  async stop() {
    const server = this.server
    this.server = null
    this.gate.release()
    await server?.destroy()
  }

  // Unknown and tombstoned DIDs are left to the package, whose answers are real.
  async #serveMultikey(req, res) {
    const did = decodeURIComponent(req.url.slice(1))
    if (req.method !== 'GET' || !/^did:plc:[a-z2-7]+$/.test(did)) return false
    const log = await this.#db.opsForDid(did)
    const data = log.length ? await plcLib.validateOperationLog(did, log) : null
    if (!data) return false
    res.writeHead(200, { 'content-type': 'application/did+ld+json', 'access-control-allow-origin': '*' })
    res.end(JSON.stringify(didDocument(data, true)))
    return true
  }

  async #request(path, body) {
    const res = await fetch(`${this.url}/${path}`, {
      method: body ? 'POST' : 'GET',
      headers: { 'content-type': 'application/json', ...passHeaders() },
      body: body && JSON.stringify(body),
    })
    const text = await res.text()
    if (!res.ok) throw new Failure(res.status, `directory: ${res.status} ${text.slice(0, 400)}`)
    return res.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text
  }

  data(did) {
    return this.#request(`${did}/data`)
  }

  /** Sign and publish a change: `change` maps the last operation's data to the new. */
  async update(did, signer, change) {
    const last = await this.#request(`${did}/log/last`)
    await this.#request(did, await plcLib.createUpdateOp(last, signer, change))
  }

  async tombstone(did, signer) {
    const log = await this.#request(`${did}/log/audit`)
    await this.#request(did, await plcLib.tombstoneOp(log.at(-1).cid, signer))
  }

  operations() {
    return {
      'plc.stop': async () => (await this.stop(), {}),
      'plc.start': async () => (await this.start(), {}),
      'plc.requests': async (query) => this.gate.requests(query),
      'plc.fail': async (limit) => (this.gate.limit({ status: 500, ...limit }), {}),
      'plc.hang': async (how) => (this.gate.hang(how), {}),
    }
  }
}

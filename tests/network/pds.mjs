// A real PDS on a port of its own, with sqlite files below the data directory.
import crypto from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { Secp256k1Keypair } from '@atproto/crypto'
import { PDS, envToCfg, envToSecrets } from '@atproto/pds'
import { Failure } from './failure.mjs'
import { Gate } from './gate.mjs'
import { freePort } from './loopback.mjs'

export const ADMIN_PASSWORD = 'test-network-admin'
const POLL_MS = 20

export class Host {
  gate = new Gate()
  #settings
  #server = null

  static async create(index, { port, dataDir, plcUrl, crawlers = [], settings = {} }) {
    const host = new Host()
    host.index = index
    host.port = port || (await freePort())
    host.url = `http://localhost:${host.port}`
    host.ws = `ws://localhost:${host.port}/xrpc/com.atproto.sync.subscribeRepos`
    // Without a DID of its own every PDS on localhost is did:web:localhost, and
    // a service token for one is good for all.
    host.did = `did:web:localhost%3A${host.port}`
    // One domain for each: an account that moves keeps a name that is foreign
    // to its new PDS, which then really proves it by DNS.
    host.handleDomain = `.pds${index}.test`
    host.rotationKey = await Secp256k1Keypair.create({ exportable: true })
    const directory = path.join(dataDir, `pds${index}`)
    const blobs = path.join(directory, 'blobs')
    await fs.mkdir(blobs, { recursive: true })
    host.#settings = {
      devMode: true,
      hostname: 'localhost', // makes the public URL http://localhost:PORT
      serviceDid: host.did,
      port: host.port,
      dataDirectory: directory,
      blobstoreDiskLocation: blobs,
      didPlcUrl: plcUrl,
      // Milliseconds. The default hour would hide identity changes from the PDS.
      didCacheStaleTTL: 1000,
      didCacheMaxTTL: 2000,
      serviceHandleDomains: [host.handleDomain],
      inviteRequired: false,
      adminPassword: ADMIN_PASSWORD,
      jwtSecret: crypto.randomBytes(16).toString('hex'),
      plcRotationKeyK256PrivateKeyHex: Buffer.from(await host.rotationKey.export()).toString('hex'),
      disableSsrfProtection: true, // without it nothing on loopback is proxied to or resolved
      rateLimitsEnabled: false,
      // No app view: with one configured, the PDS asks it for foreign handles
      // and not the name server.
      crawlers,
      ...settings,
    }
    return host
  }

  get up() {
    return this.#server !== null
  }

  /** The package's own inside, for the few things that have no API. */
  get context() {
    if (!this.#server) throw new Failure(409, `PDS ${this.index} is stopped`)
    return this.#server.ctx
  }

  async start() {
    if (this.#server) return
    const server = await PDS.create(envToCfg(this.#settings), envToSecrets(this.#settings))
    // A quiet PDS looks for new events ever less often, down to once a second;
    // that second would be in nearly every test.
    server.ctx.sequencer.exponentialBackoff = () => new Promise((next) => setTimeout(next, POLL_MS))
    this.gate.attach(await server.start())
    this.#server = server
  }

  async stop() {
    const server = this.#server
    this.#server = null
    this.gate.release()
    await server?.destroy()
  }

  /** The last sequence number of its firehose so far; 0 for none yet. */
  async lastSeq() {
    return (await this.context.sequencer.curr()) ?? 0
  }

  async describe() {
    const { url, ws, did, handleDomain, up } = this
    return { url, ws, did, handleDomain, up, seq: up ? await this.lastSeq() : null }
  }
}

export function hostOperations(hosts) {
  const pick = (index) => {
    if (!hosts[index]) throw new Failure(404, `no such PDS: ${index}`)
    return hosts[index]
  }
  return {
    'pds.stop': async ({ pds }) => (await pick(pds).stop(), {}),
    'pds.start': async ({ pds }) => (await pick(pds).start(), {}),
    'pds.hang': async ({ pds, ...how }) => (pick(pds).gate.hang(how), {}),
    'pds.requests': async ({ pds, ...query }) => pick(pds).gate.requests(query),
    'pds.limit': async ({ pds, ...limit }) => (pick(pds).gate.limit(limit), {}),
  }
}

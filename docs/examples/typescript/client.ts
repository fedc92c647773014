// A client for encrypted messages between atproto accounts, in one file.
//
//   npx tsx client.ts enroll HANDLE MEDIATOR... [--replace]
//   npx tsx client.ts resolve HANDLE-OR-DID [--accept]
//   npx tsx client.ts send HANDLE-OR-DID TEXT [--anyway]
//   npx tsx client.ts receive [--live]
//
// A mediator is a did:web, a host or an origin. Environment: DIRECTORY and PDS (origins; the PDS is that of
// the own account), PLC (an origin, the public one unless told otherwise), PASSWORD (an app password, for
// `enroll` only), KEYS (the file that keeps keys and pins, made with mode 0600). Answers are JSON lines on
// standard output.
//
// ../../client-guide.md explains each step, and says what is left out here.
import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import { parseArgs } from 'node:util'
import {
  MST,
  MemoryBlockstore,
  def,
  getAndParseByDef,
  getAndParseRecord,
  readCar,
  verifyCommitSig,
} from '@atproto/repo'
import * as plc from '@did-plc/lib'
import { aeskw, cbc, gcm } from '@noble/ciphers/aes'
import { xchacha20poly1305 } from '@noble/ciphers/chacha'
import { equalBytes } from '@noble/ciphers/utils'
import { randomBytes } from '@noble/ciphers/webcrypto'
import { ed25519, x25519 } from '@noble/curves/ed25519'
import { hmac } from '@noble/hashes/hmac'
import { sha256, sha512 } from '@noble/hashes/sha2'
import { base58 } from '@scure/base'
import { WebSocket } from 'ws'

type Json = Record<string, any>

const { PASSWORD, KEYS = 'atcomm-keys.json' } = process.env
const origin = (name: string, otherwise = '') => (process.env[name] ?? otherwise).replace(/\/$/, '')
const [DIRECTORY, PDS, PLC] = [origin('DIRECTORY'), origin('PDS'), origin('PLC', 'https://plc.directory')]

const COLLECTION = 'at.didcomm.keyPackage'
const DM = 'https://didcomm.at/dm/1.0/message'
const FORWARD = 'https://didcomm.org/routing/2.0/forward'
const COORDINATION = 'https://didcomm.org/coordinate-mediation/3.0'
const PICKUP = 'https://didcomm.org/messagepickup/3.0'
const PROBLEM = 'https://didcomm.org/report-problem/2.0/problem-report'
const PING = 'https://didcomm.org/trust-ping/2.0/ping'
const ENCRYPTED = 'application/didcomm-encrypted+json'
const DAY = 24 * 3600 * 1000
const MAX_ANSWER = 8_000_000 // bytes; a delivery has 2 MiB of mail in two forms

/** Something cannot be had or must not be believed: a name for programs, a reason for people. */
class Refused extends Error {
  constructor(name: string, reason: string) {
    super(reason)
    this.name = name // which a text of the error begins with
  }
}

const utf8 = (text: string) => new TextEncoder().encode(text)
const text = (bytes: Uint8Array) => new TextDecoder('utf-8', { fatal: true }).decode(bytes)
const concat = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts))
const named = (value: unknown) => (typeof value === 'string' ? value : `${typeof value}`) // objects may fail as a text
const base64url = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')
const unbase64 = (string: string) => new Uint8Array(Buffer.from(string, 'base64')) // reads both alphabets

// ---- HTTP, XRPC and DID documents

async function http(url: string, init: RequestInit = {}): Promise<{ status: number; bytes: Uint8Array }> {
  try {
    const response = await fetch(url, { ...init, redirect: 'manual', signal: AbortSignal.timeout(30_000) })
    const parts: Uint8Array[] = []
    let length = 0
    for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      if ((length += part.length) > MAX_ANSWER) throw new Error('the answer is too long')
      parts.push(part)
    }
    return { status: response.status, bytes: concat(...parts) }
  } catch (error) {
    throw new Refused('Unreachable', `${url}: ${error}`)
  }
}

async function get(url: string, init: RequestInit = {}): Promise<Uint8Array> {
  const { status, bytes } = await http(url, init)
  if (status === 200) return bytes
  let error: Json = {}
  try {
    error = JSON.parse(text(bytes))
  } catch {}
  throw new Refused(String(error.error ?? 'UpstreamFailure'), String(error.message ?? `status ${status} of ${url}`))
}

/** A query, or a procedure where there is a body. */
async function xrpc(
  origin: string,
  method: string,
  query: Record<string, string>,
  body?: Json,
  token?: string,
): Promise<Json> {
  const headers: Record<string, string> = { ...(token && { authorization: `Bearer ${token}` }) }
  const init = body
    ? { method: 'POST', body: JSON.stringify(body), headers: { ...headers, 'content-type': 'application/json' } }
    : { headers }
  return JSON.parse(text(await get(`${origin}/xrpc/${method}?${new URLSearchParams(query)}`, init)))
}

/** Host and port of a did:web of atproto, which has no path. */
function webHost(did: string): string {
  const host = /^did:web:([^:/]+)$/.exec(did)?.[1]?.replace(/%3a/i, ':') ?? ''
  if (!/^[a-z0-9.-]+(:\d+)?$/i.test(host)) throw new Refused('UnsupportedDid', `${did} is no did:web of a host`)
  return host
}

/** A mediator as people name it: by did:web, host or origin. */
function mediatorDid(name: string): string {
  const host = name.trim().replace(/^https?:\/\/|\/$/g, '').toLowerCase().replace(':', '%3A')
  const did = name.trim().startsWith('did:') ? name.trim() : `did:web:${host}`
  webHost(did)
  return did
}

/** The document of a did:web. */
async function didWeb(did: string): Promise<Json> {
  const host = webHost(did)
  const scheme = host.split(':')[0] === 'localhost' ? 'http' : 'https'
  const document = JSON.parse(text(await get(`${scheme}://${host}/.well-known/did.json`)))
  if (document.id !== did) throw new Refused('BadDocument', `the document of ${did} is another's`)
  return document
}

// ---- Proofs

interface Identity {
  key: string // did:key
  pds: string
  handle: string // claimed
}

/** Signing key, PDS and claimed handle of an account, by the given log or the PLC directory's. */
async function identity(did: string, log?: Json[]): Promise<Identity> {
  const handleIn = (names: string[]) => names.find((name) => name.startsWith('at://'))?.slice(5) ?? 'handle.invalid'
  if (!did.startsWith('did:plc:')) {
    const document = await didWeb(did)
    const named = (list: Json[], name: string) => list.find((one) => one.id.endsWith(`#${name}`)) ?? {}
    const key = `did:key:${named(document.verificationMethod, 'atproto').publicKeyMultibase}`
    return { key, pds: named(document.service, 'atproto_pds').serviceEndpoint, handle: handleIn(document.alsoKnownAs) }
  }
  if (!/^did:plc:[a-z2-7]{24}$/.test(did)) throw new Refused('DidNotFound', did)
  log ??= JSON.parse(text(await get(`${PLC}/${did}/log/audit`))) as Json[]
  // It judges no forks: what a recovery has undone is left out on the word of whoever gave the log.
  const chain = log.filter((entry) => !entry.nullified).map((entry) => entry.operation as plc.CompatibleOpOrTombstone)
  const data = await plc.validateOperationLog(did, chain)
  if (!data) throw new Refused('AccountInactive', `${did} has ended`)
  return {
    key: data.verificationMethods.atproto,
    pds: data.services.atproto_pds.endpoint,
    handle: handleIn(data.alsoKnownAs),
  }
}

interface Proven {
  rev: string
  record: Json
}

/** Revision and key package that a proof shows. NotEnrolled only where it shows the absence. */
async function prove(car: Uint8Array, did: string, key: string): Promise<Proven> {
  try {
    return await provenBy(car, did, key)
  } catch (error) {
    throw error instanceof Refused ? error : new Refused('BadProof', `the proof is incomplete or broken: ${error}`)
  }
}

async function provenBy(car: Uint8Array, did: string, key: string): Promise<Proven> {
  const { roots, blocks } = await readCar(car) // checks each block against its hash
  const { obj: commit } = await getAndParseByDef(blocks, roots[0], def.commit) // others have no meaning
  if (commit.did !== did || commit.version !== 3) throw new Refused('BadProof', 'the proof is of another repository')
  if (!(await verifyCommitSig(commit, key)))
    throw new Refused('BadProof', "the proof is not signed by the account's key")
  // A tree with holes makes this throw: a missing block never looks like a missing record.
  const cid = await MST.load(new MemoryBlockstore(blocks), commit.data).get(`${COLLECTION}/self`)
  if (!cid) throw new Refused('NotEnrolled', 'proven: the account has no key package')
  return { rev: commit.rev, record: (await getAndParseRecord(blocks, cid)).record }
}

// ---- Envelopes: a JWE of DIDComm, here with one recipient

interface AgreementKey {
  kid: string
  key: Uint8Array // X25519, public
}

/** The X25519 keys of a did:peer:2, out of itself, or of a did:web, by fetching it. */
async function agreementKeys(did: string): Promise<AgreementKey[]> {
  let keys: { kid: string; multikey: string }[]
  if (did.startsWith('did:peer:2.')) {
    const elements = did
      .split('.')
      .slice(1)
      .filter((element) => element[0] !== 'S')
    keys = elements.map((element, index) => ({ kid: `${did}#key-${index + 1}`, multikey: element.slice(1) }))
    keys = keys.filter((_, index) => elements[index][0] === 'E')
  } else {
    const document = await didWeb(did)
    const absolute = (id: string) => (id.startsWith('#') ? did + id : id)
    const ids = document.keyAgreement.map(absolute)
    const methods: Json[] = document.verificationMethod.filter((method: Json) => ids.includes(absolute(method.id)))
    keys = methods.map((method) => ({ kid: absolute(method.id), multikey: method.publicKeyMultibase }))
  }
  const decoded = keys.map(({ kid, multikey }) => ({ kid, bytes: base58.decode(multikey.replace(/^z/, '')) }))
  const x25519s = decoded.filter(({ bytes }) => bytes.length === 34 && bytes[0] === 0xec && bytes[1] === 1)
  return x25519s.map(({ kid, bytes }) => ({ kid, key: bytes.slice(2) }))
}

const u32 = (number: number) => new Uint8Array([number >>> 24, number >>> 16, number >>> 8, number])
const lengthed = (bytes: Uint8Array) => concat(u32(bytes.length), bytes)

/** The key that wraps the content key: Concat KDF of RFC 7518, with the tag as ECDH-1PU wants it. */
function wrappingKey(z: Uint8Array, alg: string, apu: Uint8Array, apv: Uint8Array, tag?: Uint8Array): Uint8Array {
  const info = concat(lengthed(utf8(alg)), lengthed(apu), lengthed(apv), u32(256), ...(tag ? [lengthed(tag)] : []))
  return sha256(concat(u32(1), z, info))
}

/** The tag of A256CBC-HS512: the first half of the key signs, the second encrypts. */
function cbcTag(cek: Uint8Array, aad: Uint8Array, iv: Uint8Array, ciphertext: Uint8Array): Uint8Array {
  return hmac(sha512, cek.subarray(0, 32), concat(aad, iv, ciphertext, u32(0), u32(aad.length * 8))).slice(0, 32)
}

/** Authcrypt with a sender, anoncrypt without. */
function encrypt(plaintext: Uint8Array, to: AgreementKey, from?: { kid: string; secret: Uint8Array }): string {
  const alg = from ? 'ECDH-1PU+A256KW' : 'ECDH-ES+A256KW'
  const ephemeral = x25519.utils.randomPrivateKey()
  const apu = utf8(from?.kid ?? '')
  const apv = sha256(utf8(to.kid)) // of several recipients: of their sorted kids, joined by "."
  const header = {
    typ: ENCRYPTED,
    alg,
    enc: 'A256CBC-HS512',
    ...(from && { skid: from.kid, apu: base64url(apu) }),
    apv: base64url(apv),
    epk: { kty: 'OKP', crv: 'X25519', x: base64url(x25519.getPublicKey(ephemeral)) },
  }
  const aad = utf8(base64url(utf8(JSON.stringify(header))))
  const [cek, iv] = [randomBytes(64), randomBytes(16)]
  const ciphertext = cbc(cek.subarray(32), iv).encrypt(plaintext)
  const tag = cbcTag(cek, aad, iv, ciphertext)
  const secrets = from ? [ephemeral, from.secret] : [ephemeral]
  const z = concat(...secrets.map((secret) => x25519.getSharedSecret(secret, to.key)))
  const encrypted = aeskw(wrappingKey(z, alg, apu, apv, from && tag)).encrypt(cek)
  return JSON.stringify({
    protected: text(aad),
    recipients: [{ header: { kid: to.kid }, encrypted_key: base64url(encrypted) }],
    iv: base64url(iv),
    ciphertext: base64url(ciphertext),
    tag: base64url(tag),
  })
}

/** What is in an envelope, and the key that provably sealed it. */
async function decrypt(
  packed: string,
  me: { kid: string; secret: Uint8Array },
): Promise<{ plaintext: Uint8Array; skid?: string }> {
  const jwe = JSON.parse(packed)
  const header = JSON.parse(text(unbase64(jwe.protected)))
  const mine = jwe.recipients.find((one: Json) => one.header.kid === me.kid)
  if (!mine) throw new Refused('NotForUs', 'the envelope is for other keys')
  const apv = sha256(
    utf8(
      jwe.recipients
        .map((one: Json) => one.header.kid)
        .sort()
        .join('.'),
    ),
  )
  if (base64url(apv) !== header.apv) throw new Refused('BadEnvelope', 'apv is not of the recipients')
  const epk = unbase64((header.epk ?? mine.header.epk).x) // one library puts it beside the recipient
  const [iv, ciphertext, tag] = [jwe.iv, jwe.ciphertext, jwe.tag].map(unbase64)
  let [z, skid, apu] = [
    x25519.getSharedSecret(me.secret, epk),
    undefined as string | undefined,
    unbase64(header.apu ?? ''),
  ]
  if (header.alg === 'ECDH-1PU+A256KW') {
    skid = text(apu)
    if (header.skid !== undefined && header.skid !== skid) throw new Refused('BadEnvelope', 'skid is not apu')
    const sender = (await agreementKeys(skid.split('#')[0])).find(({ kid }) => kid === skid)
    if (!sender) throw new Refused('BadEnvelope', 'the sender has no such key')
    z = concat(z, x25519.getSharedSecret(me.secret, sender.key))
  } else if (header.alg !== 'ECDH-ES+A256KW') throw new Refused('BadEnvelope', `alg ${header.alg}`)
  const kek = wrappingKey(z, header.alg, apu, apv, skid === undefined ? undefined : tag)
  const cek = aeskw(kek).decrypt(unbase64(mine.encrypted_key))
  const aad = utf8(jwe.protected)
  if (header.enc === 'A256CBC-HS512') {
    if (cek.length !== 64 || !equalBytes(cbcTag(cek, aad, iv, ciphertext), tag)) throw new Refused('BadEnvelope', 'tag')
    return { plaintext: cbc(cek.subarray(32), iv).decrypt(ciphertext), skid }
  }
  const cipher = { XC20P: xchacha20poly1305, A256GCM: gcm }[header.enc as string]
  if (!cipher || skid !== undefined) throw new Refused('BadEnvelope', `enc ${header.enc}`)
  return { plaintext: cipher(cek, iv, aad).decrypt(concat(ciphertext, tag)), skid }
}

// ---- The client

interface Found {
  did: string
  handle: string // verified, or handle.invalid
  peer: string
  mediators: string[]
  changed: boolean // since it was pinned
  ambiguous: boolean
}

interface Pin {
  peer: string
  rev: string
  key: string
  changedAt?: number
  previous?: { peer: string; until: number }
}

interface State {
  account: string
  peer: string
  agreement: string // secret halves
  signing: string
  mediators: string[]
  pins: Record<string, Pin>
  seen: Record<string, number>
  sent: Record<string, { packed: string; peer: string; left: string[] }>
}

/** An account's keys, its pins, and what it does with them. */
class Client {
  state = { pins: {}, seen: {}, sent: {} } as unknown as State

  constructor() {
    if (fs.existsSync(KEYS)) this.state = JSON.parse(fs.readFileSync(KEYS, 'utf8'))
  }

  get keys() {
    return { kid: `${this.state.peer}#key-1`, secret: unbase64(this.state.agreement) }
  }

  /** Written down as a whole or not at all. */
  save() {
    this.state.sent = Object.fromEntries(Object.entries(this.state.sent).slice(-100))
    const file = fs.openSync(`${KEYS}.new`, 'w', 0o600)
    fs.writeFileSync(file, JSON.stringify(this.state, null, 1))
    fs.fsyncSync(file)
    fs.closeSync(file)
    fs.renameSync(`${KEYS}.new`, KEYS)
  }

  mint() {
    const [agreement, signing] = [x25519.utils.randomPrivateKey(), ed25519.utils.randomPrivateKey()]
    const multikey = (prefix: number[], key: Uint8Array) => `z${base58.encode(concat(new Uint8Array(prefix), key))}`
    const agreementKey = multikey([0xec, 0x01], x25519.getPublicKey(agreement))
    const signingKey = multikey([0xed, 0x01], ed25519.getPublicKey(signing))
    this.state.peer = `did:peer:2.E${agreementKey}.V${signingKey}`
    Object.assign(this.state, { agreement: base64url(agreement), signing: base64url(signing) })
  }

  message(type: string, to: string, body: Json, more: Json = {}): Json {
    const typ = 'application/didcomm-plain+json'
    const created_time = Math.floor(Date.now() / 1000)
    return { id: randomUUID(), typ, type, from: this.state.peer, to: [to], created_time, body, ...more }
  }

  /** Authcrypt where the message names its sender, else anoncrypt. */
  async pack(message: Json): Promise<string> {
    const [to] = await agreementKeys(message.to[0])
    if (!to) throw new Refused('NoKey', `${message.to[0]} has no X25519 key`)
    return encrypt(utf8(JSON.stringify(message)), to, message.from && this.keys)
  }

  /** The plaintext, and the did:peer or did:web that provably wrote it. */
  async open(packed: string): Promise<{ message: Json; sender?: string }> {
    let sender: string | undefined
    let message: Json = {}
    // authcrypt, anoncrypt, or an authcrypt in an anoncrypt
    for (let depth = 0; depth < 2 && sender === undefined; depth++) {
      const { plaintext, skid } = await decrypt(packed, this.keys)
      sender = skid?.split('#')[0]
      packed = text(plaintext)
      message = JSON.parse(packed)
      if (!('ciphertext' in message)) break
    }
    const { id, type, body = {} } = message
    const isObject = body !== null && typeof body === 'object'
    if (typeof type !== 'string' || typeof id !== 'string' || id.length > 256 || !isObject)
      throw new Refused('BadMessage', 'no plaintext message in the envelope')
    // No layer below has checked either of these.
    if (sender !== undefined && message.from !== sender)
      throw new Refused('Forged', 'the message names another sender than its envelope')
    if (sender !== undefined && ![message.to].flat().includes(this.state.peer))
      throw new Refused('Forged', 'the message was meant for another reader')
    return { message, sender }
  }

  // ---- Mediators

  /** Where a mediator takes messages, by http or by ws. */
  async endpoint(mediator: string, scheme: 'http' | 'ws'): Promise<string> {
    for (const { type, serviceEndpoint } of (await didWeb(mediator)).service)
      for (const one of type === 'DIDCommMessaging' ? [serviceEndpoint].flat() : []) {
        const { uri, routingKeys = [] } = typeof one === 'string' ? { uri: one } : one
        if (uri.startsWith(scheme) && routingKeys.length === 0) return uri
      }
    throw new Refused('Unsupported', `${mediator} has no endpoint that this program can use`)
  }

  async post(mediator: string, message: Json): Promise<string> {
    const [url, body] = [await this.endpoint(mediator, 'http'), await this.pack(message)]
    const { status, bytes } = await http(url, { method: 'POST', body, headers: { 'content-type': ENCRYPTED } })
    if (status !== 200 && status !== 202)
      throw new Refused('MediatorRefused', `${mediator}: status ${status}: ${text(bytes).slice(0, 200)}`)
    return text(bytes)
  }

  /** A question to an own mediator, and its answer. */
  async ask(mediator: string, type: string, body: Json): Promise<Json> {
    const question = this.message(type, mediator, body, { return_route: 'all' })
    const { message, sender } = await this.open(await this.post(mediator, question))
    if (sender !== mediator || (message.thid ?? question.id) !== question.id)
      throw new Refused('BadAnswer', `somebody else answers for ${mediator}`)
    if (message.type === PROBLEM) throw new Refused(message.body.code, message.body.comment ?? '')
    return message
  }

  /** Makes sure that a mediator takes messages, before others are told to send there. */
  async reach(mediator: string) {
    const ping = this.message(PING, mediator, { response_requested: true }, { return_route: 'all' })
    const answer = await this.post(mediator, ping)
    if (answer && (await this.open(answer)).sender !== mediator)
      throw new Refused('BadAnswer', `somebody else answers for ${mediator}`)
  }

  /** Has the mail kept. `account` lets an atcomm look at the key package at once. */
  async register(mediator: string) {
    const grant = await this.ask(mediator, `${COORDINATION}/mediate-request`, { account: this.state.account })
    if (!grant.type.endsWith('/mediate-grant'))
      throw new Refused('Denied', `${mediator} keeps no mail for this account`)
    const updates = [{ recipient_did: this.state.peer, action: 'add' }]
    const { body } = await this.ask(mediator, `${COORDINATION}/recipient-update`, { updates })
    if (!['success', 'no_change'].includes(body.updated[0].result))
      throw new Refused('Denied', `${mediator}: ${body.updated[0].result}`)
  }

  forward(to: string, next: string, packed: string): Json {
    const attachment = { id: '1', media_type: ENCRYPTED, data: { json: JSON.parse(packed) } }
    return this.message(FORWARD, to, { next }, { attachments: [attachment] })
  }

  /** Hands an envelope to the first of the recipient's mediators that takes it, by the own one. */
  async deliver(packed: string, peer: string, mediators: string[]): Promise<string> {
    for (const [number, theirs] of mediators.slice(0, 8).entries())
      for (const own of this.state.mediators.includes(theirs) ? [theirs] : this.state.mediators)
        try {
          await this.endpoint(theirs, 'http') // there is one, and it wants no further wraps
          let outer = this.forward(theirs, peer, packed)
          if (own !== theirs) {
            delete outer.from // the recipient's mediator does not learn who writes
            outer = this.forward(own, theirs, await this.pack(outer))
          }
          await this.post(own, outer)
          this.state.sent[outer.id] = { packed, peer, left: mediators.slice(number + 1) }
          return theirs
        } catch (error) {
          console.error(`${error}`)
        }
    throw new Refused('Undeliverable', 'no mediator takes the message')
  }

  // ---- Whom one writes to, and who wrote

  /** What an account has published, verified here; see the guide for what remains open. */
  async resolve(actor: string): Promise<Found> {
    const owner = async (handle: string): Promise<string> =>
      (await xrpc(PDS, 'com.atproto.identity.resolveHandle', { handle })).did
    const did = actor.startsWith('did:') ? actor : await owner(actor) // the own PDS says whose it is, not the directory
    const view = await xrpc(DIRECTORY, 'at.didcomm.directory.resolveRecipient', { actor: did, proof: 'true' }).catch(
      async (error) => {
        if (error.name !== 'NotEnrolled') throw error
        const url = `${DIRECTORY}/xrpc/at.didcomm.directory.getProof?${new URLSearchParams({ did })}` // it has to show that
        await prove(await get(url), did, (await identity(did)).key)
        throw new Refused('LyingDirectory', 'the account has a key package')
      },
    )
    const pin: Pin | undefined = this.state.pins[did]
    const known = pin?.peer === view.peer.did
    // The log in the answer may lack its end: with people who are new we ask the PLC directory.
    const { key, pds, handle } = await identity(did, known ? view.proof.plcLog : undefined)
    let { rev, record } = await prove(unbase64(view.proof.car.$bytes), did, key)
    if (!known) {
      // An old proof is a proof, too: only the PDS knows the newest.
      const query = new URLSearchParams({ did, collection: COLLECTION, rkey: 'self' })
      const ask = get(`${pds}/xrpc/com.atproto.sync.getRecord?${query}`).then((car) => prove(car, did, key))
      const newest = await ask.catch((error) => {
        if (['NotEnrolled', 'BadProof'].includes(error.name)) throw error
        console.error(`not confirmed by the account's PDS: ${error}`)
      })
      if (newest && newest.rev > rev) ({ rev, record } = newest)
    }
    if (pin?.key === key && rev < pin.rev) throw new Refused('RolledBack', 'the proof is older than one seen before')
    if (!record.did.startsWith('did:peer:2.') || !Array.isArray(record.mediators))
      throw new Refused('InvalidKeyPackage', 'no did:peer:2, or no mediators')
    const verified = (await owner(handle).catch(() => undefined)) === did
    const found: Found = {
      did,
      handle: verified ? handle : 'handle.invalid',
      peer: record.did,
      mediators: record.mediators,
      changed: pin !== undefined && pin.peer !== record.did,
      ambiguous: view.peer.ambiguous,
    }
    if (!found.changed) this.state.pins[did] = { ...pin, peer: record.did, rev, key }
    else pin.changedAt ??= Date.now()
    this.save()
    return found
  }

  /** A changed key is the account's from now on. */
  accept({ did, peer }: Found) {
    const { changedAt = Date.now(), ...pin } = this.state.pins[did]
    this.state.pins[did] = { ...pin, peer, previous: { peer: pin.peer, until: changedAt + 7 * DAY } }
    this.save()
  }

  /** Who wrote a message: the outcome, with the account only where it is shown to be so. */
  async attribute(body: Json, sender?: string): Promise<Json> {
    const { senderDid: claimed, recipientDid: meant = this.state.account } = body
    if (meant !== this.state.account) return { outcome: 'misdirected', meant: named(meant) }
    if (sender === undefined) return { outcome: 'anonymous' }
    if (claimed === undefined) return { outcome: 'unattributed' }
    if (typeof claimed !== 'string' || !/^did:(plc|web):/.test(claimed))
      return { outcome: 'unverified', claimed: named(claimed), reason: "no account's DID" }
    let result: Json = {}
    for (const again of [false, true])
      try {
        // A key that was just rotated must not look like a fraud.
        if (again) await xrpc(DIRECTORY, 'at.didcomm.directory.refresh', {}, { did: claimed })
        const { handle, peer, changed } = await this.resolve(claimed)
        if (peer === sender) return { outcome: 'verified', account: claimed, handle, unaccepted: changed }
        const pin = this.state.pins[claimed]
        const previous = pin.changedAt ? { peer: pin.peer, until: pin.changedAt + 7 * DAY } : pin.previous
        const isPrevious = previous?.peer === sender && Date.now() < previous.until
        result = isPrevious
          ? { outcome: 'verifiedPrevious', account: claimed, handle }
          : { outcome: 'mismatch', claimed }
      } catch (error) {
        const revoked = error instanceof Refused && error.name === 'NotEnrolled'
        result = { outcome: revoked ? 'revoked' : 'unverified', claimed, reason: String(error) }
      }
    return result
  }

  // ---- Commands

  async enroll(identifier: string, names: string[], replace: boolean) {
    const mediators = names.map(mediatorDid)
    const session = await xrpc(PDS, 'com.atproto.server.createSession', {}, { identifier, password: PASSWORD })
    const { did, accessJwt } = session
    if ((this.state.account ?? did) !== did)
      throw new Refused('OtherAccount', `${KEYS} belongs to ${this.state.account}`)
    if (!this.state.peer) this.mint()
    for (const mediator of mediators) await this.reach(mediator) // before anything is written
    Object.assign(this.state, { account: did, mediators })
    this.save() // before anybody can write to the key
    const at = { repo: did, collection: COLLECTION, rkey: 'self' }
    const old = await xrpc(PDS, 'com.atproto.repo.getRecord', at).catch((error) => {
      if (error.name !== 'RecordNotFound') throw error
    })
    if (old && old.value.did !== this.state.peer && !replace)
      throw new Refused('OtherKeys', 'another device is enrolled; --replace takes its place')
    // What we do not know stays as it is, but for another device's.
    const kept = old?.value.did === this.state.peer ? old.value : {}
    const record = { createdAt: new Date().toISOString(), ...kept, $type: COLLECTION, did: this.state.peer, mediators }
    await xrpc(PDS, 'com.atproto.repo.putRecord', {}, { ...at, record, swapRecord: old?.cid ?? null }, accessJwt)
    await xrpc(DIRECTORY, 'at.didcomm.directory.refresh', {}, { did })
    for (const mediator of mediators) await this.register(mediator)
    show({ did, peer: this.state.peer })
  }

  async send(actor: string, words: string, anyway: boolean) {
    const graphemes = [...new Intl.Segmenter().segment(words)].length
    if (utf8(words).length > 10_000 || graphemes > 1000)
      throw new Refused('TooLong', 'over 1000 graphemes or 10,000 bytes')
    const found = await this.resolve(actor)
    if (found.changed) throw new Refused('ChangedKey', `${actor} has a new key; ask them, then resolve --accept`)
    if (found.ambiguous && !anyway) throw new Refused('Ambiguous', 'several accounts publish this key; --anyway sends')
    const message = this.message(DM, found.peer, {
      text: words,
      senderDid: this.state.account,
      recipientDid: found.did,
    })
    const by = await this.deliver(await this.pack(message), found.peer, found.mediators)
    this.save()
    show({ id: message.id, to: found.did, handle: found.handle, by })
  }

  async receive() {
    const failures: string[] = []
    for (const mediator of this.state.mediators)
      // The others may have mail.
      await this.receiveFrom(mediator).catch((error) => failures.push(`${mediator}: ${error}`))
    if (failures.length > 0) throw new Refused('NotAllReceived', failures.join('; '))
  }

  async receiveFrom(mediator: string) {
    const handled = new Set<string>()
    for (;;) {
      const { type, attachments } = await this.ask(mediator, `${PICKUP}/delivery-request`, { limit: 20 })
      const list: Json[] = Array.isArray(attachments) ? attachments : []
      const waiting = list.filter((one) => typeof one?.id === 'string')
      if (!type.endsWith('/delivery') || waiting.length === 0) break
      const message_id_list: string[] = waiting.map(({ id }) => id)
      if (message_id_list.every((id) => handled.has(id)))
        throw new Refused('NotForgotten', 'it delivers what was acknowledged')
      for (const one of waiting) await this.take(one)
      // Only now that everything is shown and written down may the mediator forget it.
      await this.ask(mediator, `${PICKUP}/messages-received`, { message_id_list })
      message_id_list.forEach((id) => handled.add(id))
    }
  }

  /** One attachment of a delivery. Nothing in it may stop the others from being read. */
  async take(attachment: Json) {
    const answer = await this.read(attachment).catch((error) => {
      // Acknowledged like the others, or it would come first for ever; this line is its trace.
      return { outcome: 'rejected', delivery: attachment.id, reason: `${error}`.slice(0, 300) }
    })
    if (answer) show(answer)
    const fresh = Object.entries(this.state.seen).filter(([, at]) => at > Date.now() - 30 * DAY)
    this.state.seen = Object.fromEntries(fresh)
    this.save()
  }

  /** What there is to show of an envelope; nothing of one that was shown before. */
  async read({ data }: Json): Promise<Json | undefined> {
    const packed = data.base64 ? text(unbase64(data.base64)) : JSON.stringify(data.json)
    const { message, sender } = await this.open(packed)
    const body = message.body ?? {}
    const key = `${sender} ${message.id}`
    const about = typeof message.pthid === 'string' ? message.pthid : ''
    const sent = Object.hasOwn(this.state.sent, about) ? this.state.sent[about] : undefined
    if (message.type === PROBLEM && sent && this.state.mediators.includes(sender ?? '')) {
      // Our mediator gave up on theirs: only we can wrap the message for the next one.
      delete this.state.sent[about]
      const resent = this.deliver(sent.packed, sent.peer, sent.left).then((by) => ({ resent: by }))
      return resent.catch((error) => ({ undelivered: about, reason: String(error) }))
    }
    if (message.type !== DM || typeof body.text !== 'string')
      throw new Refused('Unsupported', `a message of type ${message.type}, without a text`)
    if (sender && Object.hasOwn(this.state.seen, key)) return undefined
    this.state.seen[key] = Date.now()
    return { ...(await this.attribute(body, sender)), text: body.text, from: sender, id: message.id }
  }

  /** Live mode: what a mediator pushes is only the bell, so that everything is acknowledged one way. */
  async live(mediator: string) {
    const tell = (error: unknown) => console.error(`${mediator}: ${error}`)
    const again = () => void setTimeout(() => this.live(mediator), 5000 + Math.random() * 5000)
    const url = await this.endpoint(mediator, 'ws').catch(tell)
    if (!url) return again()
    const socket = new WebSocket(url, { maxPayload: MAX_ANSWER })
    let work = Promise.resolve()
    socket.on('message', () => (work = work.then(() => this.receive()).catch((error) => console.error(`${error}`))))
    socket.on('error', tell)
    socket.on('open', async () => {
      const [type, more] = [`${PICKUP}/live-delivery-change`, { return_route: 'all' }]
      const change = await this.pack(this.message(type, mediator, { live_delivery: true }, more)).catch(tell)
      if (change) socket.send(change) // the answer, a status, rings for what waits already
    })
    socket.on('close', again)
  }
}

// Escaped by JSON: nothing that somebody wrote can steer a terminal. Half of a surrogate pair is no character,
// and other programs read no line that has one.
function show(answer: Json) {
  const whole = (_: string, value: unknown) =>
    typeof value === 'string' ? value.replace(/\p{Surrogate}/gu, '\ufffd') : value
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  console.log(JSON.stringify(answer, whole).replace(/[\u007f-\uffff]/g, escaped))
}

async function main() {
  const options = Object.fromEntries(
    ['replace', 'accept', 'anyway', 'live'].map((name) => [name, { type: 'boolean' as const }]),
  )
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  const [command, first, ...rest] = positionals
  for (const name of ['DIRECTORY', 'PDS', ...(command === 'enroll' ? ['PASSWORD'] : [])])
    if (!process.env[name]) throw new Refused('Usage', `${name} is not set; see the head of this file`)
  const client = new Client()
  if (['send', 'receive'].includes(command) && !client.state.mediators)
    throw new Refused('Usage', `${KEYS} holds no key; enroll first`)
  if (command === 'enroll' && rest.length > 0) return client.enroll(first, rest, values.replace === true)
  if (command === 'send' && rest.length === 1) return client.send(first, rest[0], values.anyway === true)
  if (command === 'receive' && !values.live) return client.receive()
  if (command === 'receive') return void (await Promise.all(client.state.mediators.map((one) => client.live(one))))
  if (command !== 'resolve' || !first)
    throw new Refused('Usage', 'enroll, resolve, send or receive; see the head of this file')
  const found = await client.resolve(first)
  if (values.accept && found.changed) client.accept(found)
  show(found)
}

main().catch((error) => {
  console.error(`${error}`)
  process.exitCode = 1
})

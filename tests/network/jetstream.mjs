// A Jetstream (v1 wire, or that of v2 with numbers) for tests: no server of it is on the package
// registries, so this is our own, fed by the real PDSes' firehoses.
//   GET /subscribe?wantedCollections=&wantedDids=&cursor=<unix microseconds>
// Text frames {did, time_us, kind: commit|identity|account, ...}. What v1 knows
// besides is left out: `compress` is ignored (frames stay text), there is no
// requireHello and no options_update. With `numbers` every event has the host's
// own number as `cursor`, a cursor below 1e15 is such a number, and a time leads
// to the oldest event that is kept, as to the beginning of v2's unsealed segment.
import http from 'node:http'
import { WebSocketServer } from 'ws'
import { carBlocks, recordJson, Subscription } from './frames.mjs'
import { freePort, listen } from './loopback.mjs'

const LOG_LIMIT = 20_000 // events kept for replay; the oldest go first
const COLLECTIONS_LIMIT = 100
const DIDS_LIMIT = 10_000
const CATCH_UP_MS = 10_000
const FIRST_TIME_US = 1e15 // below it a cursor is a number

export class Jetstream {
  #log = [] // {time_us, did, collection?, text}
  #subscribers = new Map() // socket -> filter
  #subscriptions = []
  #lastTime = 0
  #skip = 0
  #next = 1
  #up = true
  #deaf = false

  /** Follow `hosts`; `history`: their stored events first (else from now on). */
  static async start(hosts, { history = true, numbers = false } = {}) {
    const jetstream = new Jetstream()
    jetstream.numbers = numbers
    await jetstream.#listen()
    await Promise.all(hosts.map((host) => jetstream.#follow(host, history)))
    return jetstream
  }

  async #listen() {
    this.server = http.createServer((req, res) => {
      res.writeHead(req.url === '/' ? 200 : 404, { 'content-type': 'text/plain' })
      res.end('test jetstream\n')
    })
    this.wss = new WebSocketServer({ noServer: true })
    this.server.on('upgrade', (req, socket, head) => {
      socket.on('error', () => {})
      const url = new URL(req.url, 'http://localhost')
      const filter = url.pathname === '/subscribe' ? parseFilter(url.searchParams) : { refused: 404 }
      if (!this.#up) return socket.destroy()
      if (filter.refused)
        return socket.end(`HTTP/1.1 ${filter.refused} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`)
      this.wss.handleUpgrade(req, socket, head, (ws) => this.#subscribe(ws, filter))
    })
    const port = await listen(this.server, await freePort())
    this.url = `http://localhost:${port}`
    this.ws = `ws://localhost:${port}/subscribe`
  }

  // Returns when everything that the PDS has stored so far is in the log.
  async #follow(host, history) {
    const last = host.up ? await host.lastSeq() : 0
    const fromNow = host.up ? last : undefined
    const subscription = new Subscription(host.ws, {
      cursor: history ? 0 : fromNow,
      onFrame: (type, body) => this.#take(type, body),
    })
    this.#subscriptions.push(subscription)
    if (!host.up) return
    await subscription.opened
    for (const start = Date.now(); subscription.cursor < last && Date.now() - start < CATCH_UP_MS; )
      await new Promise((next) => setTimeout(next, 10))
  }

  async #take(type, body) {
    if (type === '#identity') {
      const { did, handle, seq, time } = body
      this.#append({ did, kind: 'identity', identity: { did, ...(handle && { handle }), seq, time } })
    } else if (type === '#account') {
      const { did, active, status, seq, time } = body
      this.#append({ did, kind: 'account', account: { active, did, seq, ...(status && { status }), time } })
    } else if (type === '#commit') {
      const blocks = await carBlocks(body.blocks)
      for (const op of body.ops) this.#append({ did: body.repo, kind: 'commit', commit: commitJson(body.rev, op, blocks) })
    }
    // #sync has no place on this wire: consumers of a Jetstream never see it.
  }

  #append({ did, kind, ...rest }) {
    if (this.#deaf) return
    if (this.#skip > 0) {
      this.#skip -= 1
      return
    }
    // The time of passing through here, as of a real one, and never twice the same.
    this.#lastTime = Math.max(Date.now() * 1000, this.#lastTime + 1)
    const event = { did, time_us: this.#lastTime, kind, ...rest }
    const number = this.#next++
    if (this.numbers) event.cursor = number
    const entry = { time_us: event.time_us, number, did, collection: rest.commit?.collection, text: JSON.stringify(event) }
    this.#log.push(entry)
    if (this.#log.length > LOG_LIMIT) this.#log.shift()
    for (const [ws, filter] of this.#subscribers) if (wants(filter, entry)) ws.send(entry.text)
  }

  // Replay and joining the live ones happen in one turn, so nothing falls between.
  #subscribe(ws, filter) {
    ws.on('error', () => {})
    ws.on('close', () => this.#subscribers.delete(ws))
    if (filter.cursor !== undefined)
      for (const entry of this.#log) if (this.#isAfter(entry, filter.cursor) && wants(filter, entry)) ws.send(entry.text)
    this.#subscribers.set(ws, filter)
  }

  #isAfter(entry, cursor) {
    if (!this.numbers) return entry.time_us >= cursor
    // A number in the future means: from now on.
    return cursor < FIRST_TIME_US ? cursor < this.#next && entry.number >= cursor : true
  }

  /** Whether it takes connections, and whether it takes events of its hosts. */
  set({ up = this.#up, deaf = this.#deaf }) {
    if (!up) this.drop()
    this.#up = up
    this.#deaf = deaf
  }

  /** Forget all events; the next one gets the number `next`. */
  wipe({ next = this.#next }) {
    this.drop()
    this.#log = []
    this.#next = next
  }

  /** A raw text frame to every subscriber, whatever it asked for; not kept for replay. */
  inject(text) {
    for (const ws of this.#subscribers.keys()) ws.send(text)
    return this.#subscribers.size
  }

  /** Close every subscriber's connection without a goodbye. */
  drop() {
    const dropped = this.#subscribers.size
    for (const ws of this.#subscribers.keys()) ws.terminate()
    return dropped
  }

  /** Lose the next `count` events for good: they are not replayed either. */
  skip(count) {
    this.#skip = count
  }

  stop() {
    for (const subscription of this.#subscriptions) subscription.close()
    this.drop()
    this.server.close()
    this.server.closeAllConnections()
  }

  describe() {
    return { url: this.url, ws: this.ws, subscribers: this.#subscribers.size, events: this.#log.length }
  }
}

function commitJson(rev, op, blocks) {
  const [collection, rkey] = op.path.split('/')
  const commit = { rev, operation: op.action, collection, rkey }
  if (op.action === 'delete') return commit
  const cid = op.cid.toString()
  return { ...commit, record: recordJson(blocks.get(cid)), cid }
}

function parseFilter(params) {
  const collections = params.getAll('wantedCollections')
  const dids = params.getAll('wantedDids')
  const cursor = params.has('cursor') ? Number(params.get('cursor')) : undefined
  const isNsid = (c) => /^[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)+(\.\*)?$/.test(c)
  const bad =
    collections.length > COLLECTIONS_LIMIT ||
    dids.length > DIDS_LIMIT ||
    !collections.every(isNsid) ||
    !dids.every((did) => did.startsWith('did:')) ||
    (cursor !== undefined && !Number.isSafeInteger(cursor))
  if (bad) return { refused: 400 }
  // A cursor in the future means: from now on.
  return { collections, dids, cursor: cursor > Date.now() * 1000 ? undefined : cursor }
}

// The collections choose among commits only; identity and account events of
// everybody come along, unless DIDs are named.
function wants({ collections, dids }, { did, collection }) {
  if (dids.length && !dids.includes(did)) return false
  if (collection === undefined || !collections.length) return true
  return collections.some((c) => (c.endsWith('.*') ? collection.startsWith(c.slice(0, -1)) : c === collection))
}

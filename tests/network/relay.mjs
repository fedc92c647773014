// A relay that follows real PDSes and behaves as the programs do that people
// run: it numbers the events itself, keeps them, and can lose them.
//   relay  a cursor in its future goes live without a word, and the first event
//          after that is not sent; a cursor that is too old begins with the
//          oldest event that is kept; no list of accounts: 404 {"error":"Not Found"}
//   pds    error FutureCursor, #info OutdatedCursor
// Connections break without a close frame. Other /xrpc paths are passed on to the
// first host, so that it can stand for a PDS.
import http from 'node:http'
import { WebSocketServer } from 'ws'
import { Subscription, encodeFrame } from './frames.mjs'
import { freePort, listen } from './loopback.mjs'
import { passOn } from './firehose.mjs'

const PATH = '/xrpc/com.atproto.sync.subscribeRepos'
const LIST = '/xrpc/com.atproto.sync.listReposByCollection'
const LOG_LIMIT = 20_000

export class Relay {
  #log = [] // {seq, bytes}
  #subscribers = new Map() // socket -> whether its next event is lost
  #subscriptions = []
  #next = 1
  #up = true
  #deaf = false

  /** Follow `hosts` from now on. `list`: whether it lists accounts. */
  static async start(hosts, { manners = 'relay', list = false } = {}) {
    const relay = new Relay()
    Object.assign(relay, { hosts, manners, list })
    relay.server = http.createServer((req, res) => relay.#answer(req, res))
    relay.wss = new WebSocketServer({ noServer: true })
    relay.server.on('upgrade', (req, socket, head) => {
      socket.on('error', () => {})
      const url = new URL(req.url, 'http://localhost')
      if (url.pathname !== PATH || !relay.#up) return socket.destroy()
      relay.wss.handleUpgrade(req, socket, head, (ws) => relay.#subscribe(ws, url.searchParams.get('cursor')))
    })
    const port = await listen(relay.server, await freePort())
    relay.url = `http://localhost:${port}`
    await Promise.all(hosts.map((host) => relay.#follow(host)))
    return relay
  }

  async #follow(host) {
    const subscription = new Subscription(host.ws, {
      cursor: await host.lastSeq(),
      onFrame: (type, body) => this.#take(type, body),
    })
    this.#subscriptions.push(subscription)
    await subscription.opened
  }

  #take(type, body) {
    if (this.#deaf) return
    const seq = this.#next++
    const bytes = encodeFrame({ op: 1, t: type }, { ...body, seq })
    this.#log.push({ seq, bytes })
    if (this.#log.length > LOG_LIMIT) this.#log.shift()
    for (const [ws, loses] of this.#subscribers)
      if (loses) this.#subscribers.set(ws, false)
      else ws.send(bytes)
  }

  #subscribe(ws, text) {
    ws.on('error', () => {})
    ws.on('close', () => this.#subscribers.delete(ws))
    const cursor = text === null ? undefined : Number(text)
    const oldest = this.#log[0]?.seq ?? this.#next
    let loses = false
    if (cursor !== undefined && cursor >= this.#next) {
      if (this.manners === 'pds') {
        ws.send(encodeFrame({ op: -1 }, { error: 'FutureCursor', message: 'Cursor in the future.' }))
        return ws.close()
      }
      loses = true
    } else if (cursor !== undefined) {
      if (this.manners === 'pds' && cursor > 0 && cursor + 1 < oldest)
        ws.send(encodeFrame({ op: 1, t: '#info' }, { name: 'OutdatedCursor', message: 'Requested cursor exceeded limit.' }))
      for (const { seq, bytes } of this.#log) if (seq > cursor) ws.send(bytes)
    }
    this.#subscribers.set(ws, loses)
  }

  #answer(req, res) {
    const path = req.url.split('?')[0]
    if (path !== LIST) return passOn(this.hosts[0].url, req, res)
    if (this.list) return passOn(this.hosts[0].url, Object.assign(req, { url: req.url.replace('listReposByCollection', 'listRepos') }), res)
    res.writeHead(404, { 'content-type': 'application/json' })
    res.end('{"error":"Not Found"}')
  }

  drop() {
    const dropped = this.#subscribers.size
    for (const ws of this.#subscribers.keys()) ws.terminate()
    return dropped
  }

  /** Whether it takes connections, and whether it takes events of its hosts. */
  set({ up = this.#up, deaf = this.#deaf }) {
    if (!up) this.drop()
    this.#up = up
    this.#deaf = deaf
  }

  /** Forget all events but the newest `keep`; the next one gets the number `next`. */
  wipe({ keep = 0, next = this.#next }) {
    this.drop()
    this.#log = keep > 0 ? this.#log.slice(-keep) : []
    this.#next = next
  }

  stop() {
    for (const subscription of this.#subscriptions) subscription.close()
    this.drop()
    this.server.close()
    this.server.closeAllConnections()
  }

  describe() {
    return { url: this.url, subscribers: this.#subscribers.size, events: this.#log.length, next: this.#next }
  }
}

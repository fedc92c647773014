// A firehose that cannot be trusted: it relays one real stream and adds to it
// or loses from it what a test asks for. Other /xrpc paths are passed on to the
// host that it relays, so that it can stand for a relay or a PDS.
import http from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'
import { Failure } from './failure.mjs'
import { decodeFrame, encodeFrame } from './frames.mjs'
import { freePort, listen } from './loopback.mjs'

const PATH = '/xrpc/com.atproto.sync.subscribeRepos'

export class Firehose {
  #subscribers = new Set()
  #skip = 0
  // The numbers of lost messages: these do not come on a later connection, either.
  #lost = new Set()
  // The last number that was read, and added messages with their places: these
  // come again to whoever asks for an earlier cursor.
  #seq = 0
  #kept = []

  /** Relay the host at `from`, an http URL; `host`: the PDS behind it. */
  static async start(from, host) {
    const firehose = new Firehose()
    firehose.from = from
    firehose.host = host
    firehose.server = http.createServer((req, res) => passOn(from, req, res))
    firehose.wss = new WebSocketServer({ noServer: true })
    firehose.server.on('upgrade', (req, socket, head) => {
      socket.on('error', () => {})
      if (req.url.split('?')[0] !== PATH) return socket.destroy()
      firehose.wss.handleUpgrade(req, socket, head, (ws) => firehose.#subscribe(ws, req.url))
    })
    const port = await listen(firehose.server, await freePort())
    firehose.url = `http://localhost:${port}`
    firehose.ws = `ws://localhost:${port}${PATH}`
    return firehose
  }

  #subscribe(ws, path) {
    const upstream = new WebSocket(new URL(path, this.from.replace(/^http/, 'ws')))
    this.#subscribers.add(ws)
    const cursor = Number(new URL(path, this.from).searchParams.get('cursor') ?? Infinity)
    const again = this.#kept.filter(({ after }) => after >= cursor)
    const sendKept = (seq) => {
      while (again.length > 0 && again[0].after <= seq) ws.send(again.shift().data)
    }
    upstream.on('open', () => sendKept(cursor))
    upstream.on('message', (data, binary) => {
      const seq = binary ? seqOf(data) : 0
      this.#seq = Math.max(this.#seq, seq)
      if (!this.#loses(seq)) ws.send(data, { binary })
      sendKept(seq)
    })
    for (const [side, other] of [
      [ws, upstream],
      [upstream, ws],
    ]) {
      side.on('error', () => {})
      side.on('close', () => {
        this.#subscribers.delete(ws)
        other.terminate()
      })
    }
  }

  /**
   * Send a frame to every subscriber; the number of those. With `keep` it has a
   * place in the stream and comes again behind an earlier cursor.
   */
  async inject(data, { binary = true, keep = false } = {}) {
    if (keep) {
      await this.#settled()
      this.#kept.push({ after: this.#seq, data })
    }
    for (const ws of this.#subscribers) ws.send(data, { binary })
    return this.#subscribers.size
  }

  drop() {
    const dropped = this.#subscribers.size
    for (const ws of this.#subscribers) ws.terminate()
    return dropped
  }

  #loses(seq) {
    if (this.#lost.has(seq)) return true
    if (this.#skip === 0) return false
    this.#skip -= 1
    if (seq > 0) this.#lost.add(seq)
    return true
  }

  /** Lose the next `count` messages of what the host writes from now on. */
  async skip(count) {
    await this.#settled()
    this.#skip = count
  }

  /** All that the host has written by now is passed on; 10 s at most. */
  async #settled() {
    const seq = await this.host?.lastSeq()
    for (let tries = 0; this.#subscribers.size > 0 && this.#seq < seq; tries++) {
      if (tries > 1000) throw new Failure(504, `the host has written ${seq}, and ${this.#seq} has come`)
      await pause(10)
    }
  }

  stop() {
    this.drop()
    this.server.close()
    this.server.closeAllConnections()
  }

  describe() {
    return { url: this.url, ws: this.ws, from: this.from, subscribers: this.#subscribers.size }
  }
}

/** The sequence number of a frame; 0 where it has none. */
function seqOf(data) {
  try {
    return decodeFrame(data).body.seq ?? 0
  } catch {
    return 0
  }
}

/** Pass a request on to the host at `to`, and its answer back. */
export function passOn(to, req, res) {
  const { hostname, port } = new URL(to)
  const upstream = http.request(
    { hostname, port, path: req.url, method: req.method, headers: { ...req.headers, host: `${hostname}:${port}` } },
    (answer) => {
      res.writeHead(answer.statusCode, answer.headers)
      answer.pipe(res)
    },
  )
  upstream.on('error', () => {
    if (!res.headersSent) res.writeHead(502, { 'content-type': 'text/plain' })
    res.end()
  })
  req.pipe(upstream)
}

/**
 * The bytes that `firehose.inject` asks for: `hex`, `base64`, or `header` and
 * `body` as JSON ({$bytes: base64} for bytes); `repeat` times over.
 */
export function frameBytes({ hex, base64, header, body, repeat = 1 }) {
  let bytes
  if (hex !== undefined) bytes = Buffer.from(hex, 'hex')
  else if (base64 !== undefined) bytes = Buffer.from(base64, 'base64')
  else if (header !== undefined) bytes = encodeFrame(revive(header), revive(body ?? {}))
  else throw new Failure(400, 'give hex, base64, text, or header and body')
  return Buffer.concat(Array(repeat).fill(bytes))
}

function revive(value) {
  if (Array.isArray(value)) return value.map(revive)
  if (value === null || typeof value !== 'object') return value
  if (typeof value.$bytes === 'string') return Buffer.from(value.$bytes, 'base64')
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]))
}

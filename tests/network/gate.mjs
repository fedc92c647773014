// A stage in front of a real HTTP server of this process: it counts requests,
// and on demand answers the next ones itself or never answers at all. The
// packages behind it are left as they are; only the listeners of their
// http.Server are wrapped.
//
// The control port's own requests carry the header of `passFor` and are neither
// counted nor held up, so that a test can still write records on a PDS that
// hangs for everybody else.
import crypto from 'node:crypto'

const PASS_HEADER = 'x-network-control'
const secret = crypto.randomBytes(16).toString('hex')
const LOG_LIMIT = 10_000 // requests remembered one by one; the totals go on

/** Headers that let a request through every gate of this process. */
export const passHeaders = () => ({ [PASS_HEADER]: secret })

export class Gate {
  #log = []
  #counts = new Map() // JSON of [path, agent] -> count
  #limits = [] // {status, count, path?, agent?, retryAfter?, body?}
  #hang = null // {path?, headers?}
  #frozen = false
  #held = new Set() // sockets of requests that are never answered
  #streams = new Set() // upgraded sockets: {socket, write, queue}

  /** Stand before `server`. `answer(req, res)` may serve a request instead: true when it did. */
  attach(server, answer) {
    const requests = server.listeners('request')
    const upgrades = server.listeners('upgrade')
    server.removeAllListeners('request').removeAllListeners('upgrade')
    server.on('request', async (req, res) => {
      if (this.#stop(req, req.socket, (limit) => sendLimit(res, limit), res)) return
      if (answer && (await attempt(answer, req, res))) return
      for (const listener of requests) listener.call(server, req, res)
    })
    server.on('upgrade', (req, socket, head) => {
      // Until somebody else handles it, a reset connection would end the process.
      socket.on('error', () => {})
      if (this.#stop(req, socket, (limit) => refuseUpgrade(socket, limit))) return
      if (req.headers[PASS_HEADER] !== secret) this.#track(socket)
      if (!upgrades.length) return socket.destroy()
      for (const listener of upgrades) listener.call(server, req, socket, head)
    })
  }

  // Count it; true when the request goes no further.
  #stop(req, socket, refuse, res) {
    if (req.headers[PASS_HEADER] === secret) return false
    const agent = req.headers['user-agent'] ?? ''
    const path = req.url.split('?')[0]
    const key = JSON.stringify([path, agent])
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    const entry = { method: req.method, url: req.url, agent, at: Date.now(), outcome: 'passed' }
    this.#log.push(entry)
    if (this.#log.length > LOG_LIMIT) this.#log.shift()

    if (this.#hang && path.startsWith(this.#hang.path ?? '')) {
      entry.outcome = 'hung'
      this.#held.add(socket)
      socket.once('close', () => this.#held.delete(socket))
      if (this.#hang.headers && res) {
        res.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': 1000 })
        res.write('x')
      }
      return true
    }
    const limit = this.#limits.find((l) => path.startsWith(l.path ?? '') && agent.includes(l.agent ?? ''))
    if (!limit) return false
    entry.outcome = `answered ${limit.status}`
    if (--limit.count <= 0) this.#limits.splice(this.#limits.indexOf(limit), 1)
    refuse(limit)
    return true
  }

  // Every write to an upgraded socket passes here, so that a stream can be
  // frozen: the connection stays open and silent, pongs included.
  #track(socket) {
    const stream = { socket, write: socket.write.bind(socket), queue: [] }
    socket.write = (...args) => {
      if (!this.#frozen) return stream.write(...args)
      stream.queue.push(args)
      return true
    }
    this.#streams.add(stream)
    socket.once('close', () => this.#streams.delete(stream))
  }

  /** `sockets: 'stop'` freezes the open streams too, 'flow' (or off) lets them go on. */
  hang({ on = true, sockets = 'flow', path, headers = false } = {}) {
    this.#hang = on ? { path, headers } : null
    this.#frozen = on && sockets === 'stop'
    if (this.#frozen) return
    for (const { socket, write, queue } of this.#streams)
      for (const args of queue.splice(0)) if (!socket.destroyed) write(...args)
  }

  /** The next `count` requests (of a path prefix, of an agent) get `status`; count 0 forgets all limits. */
  limit({ status = 429, count = 1, path, agent, retryAfter, body } = {}) {
    if (count <= 0) this.#limits = []
    else this.#limits.push({ status, count, path, agent, retryAfter, body })
  }

  /** What was asked since the start or the last reset. */
  requests({ path, agent, log = false, reset = false } = {}) {
    const wanted = (p, a) => p.startsWith(path ?? '') && a.includes(agent ?? '')
    const paths = {}
    let total = 0
    for (const [key, n] of this.#counts) {
      const [p, a] = JSON.parse(key)
      if (!wanted(p, a)) continue
      paths[p] = (paths[p] ?? 0) + n
      total += n
    }
    const out = { total, paths }
    if (log) out.log = this.#log.filter((e) => wanted(e.url.split('?')[0], e.agent))
    if (reset) {
      this.#counts.clear()
      this.#log = []
    }
    return out
  }

  /** Let go of the held requests, or the server behind waits for them when it stops. */
  release() {
    for (const socket of this.#held) socket.destroy()
  }
}

// A fault in a stand-in answer is an answer too, not the end of the process.
async function attempt(answer, req, res) {
  try {
    return await answer(req, res)
  } catch (e) {
    res.writeHead(500, { 'content-type': 'text/plain' })
    res.end(e.stack)
    return true
  }
}

function limitBody({ status, body }) {
  if (body !== undefined) return typeof body === 'string' ? body : JSON.stringify(body)
  const error = { 429: 'RateLimitExceeded', 502: 'UpstreamFailure', 503: 'NotEnoughResources' }[status]
  return JSON.stringify({ error: error ?? 'InternalServerError', message: 'answered by the test network' })
}

function limitHeaders(limit, body) {
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  if (limit.retryAfter !== undefined) headers['retry-after'] = String(limit.retryAfter)
  return headers
}

function sendLimit(res, limit) {
  const body = limitBody(limit)
  res.writeHead(limit.status, limitHeaders(limit, body))
  res.end(body)
}

function refuseUpgrade(socket, limit) {
  const body = limitBody(limit)
  const headers = Object.entries({ ...limitHeaders(limit, body), connection: 'close' })
  socket.end(
    `HTTP/1.1 ${limit.status} Refused\r\n${headers.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n${body}`,
  )
}

// A static web host for did:web documents, handle well-knowns and whatever else
// a client may fetch. One table of routes by Host header and path, served by
// any number of loopback ports (a did:web in atproto has no path, so each needs
// a port).
import http from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Gate } from './gate.mjs'
import { freePort, listen } from './loopback.mjs'
import { didDocument } from './plc.mjs'

const DID_PATH = '/.well-known/did.json'

export class Web {
  gate = new Gate()
  #routes = new Map() // JSON of [host or null, path] -> answer
  #servers = []
  #multikey

  constructor({ multikey }) {
    this.#multikey = multikey
  }

  /** One more port: {url, did}. */
  async open(port) {
    const server = http.createServer((req, res) => this.#serve(req, res))
    this.gate.attach(server)
    const bound = await listen(server, port || (await freePort()))
    this.#servers.push(server)
    return { url: `http://localhost:${bound}`, did: `did:web:localhost%3A${bound}` }
  }

  close() {
    this.gate.release()
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
  }

  /** Serve the document of a did:web on localhost at its own host. */
  serveDocument(data, { multikey = this.#multikey } = {}) {
    const body = JSON.stringify(didDocument(data, multikey))
    this.#set(didHost(data.did), DID_PATH, { status: 200, contentType: 'application/json', body })
  }

  dropDocument(did) {
    this.#routes.delete(routeKey(didHost(did), DID_PATH))
  }

  #set(host, path, answer) {
    this.#routes.set(routeKey(host, path), answer)
  }

  // The most particular route wins: host with port, host, any host.
  #find(req) {
    const host = (req.headers.host ?? '').toLowerCase()
    const path = req.url.split('?')[0]
    for (const candidate of [host, host.replace(/:\d+$/, ''), null]) {
      const answer = this.#routes.get(routeKey(candidate, path))
      if (answer) return answer
    }
    return { status: 404, contentType: 'text/plain', body: 'not found\n' }
  }

  async #serve(req, res) {
    req.resume()
    const { status, contentType, body, delayMs, redirect, headers, repeat } = this.#find(req)
    if (delayMs) await new Promise((done) => setTimeout(done, delayMs))
    res.writeHead(status, { 'content-type': contentType, ...(redirect && { location: redirect }), ...headers })
    // In pieces and without a length, so that a client has to count for itself;
    // one that has counted enough goes away, which is no fault here.
    if (repeat) await pipeline(Readable.from(pieces(body, repeat)), res).catch(() => {})
    else res.end(body)
  }

  operations() {
    return {
      // A string is served as it is, anything else as JSON; null takes the route away.
      'web.set': async ({ host = null, path, status, contentType, body = '', delayMs, redirect, headers, repeat }) => {
        const key = routeKey(host?.toLowerCase() ?? null, path)
        if (body === null) {
          this.#routes.delete(key)
          return {}
        }
        const isText = typeof body === 'string'
        this.#routes.set(key, {
          status: status ?? (redirect ? 302 : 200),
          contentType: contentType ?? (isText ? 'text/plain' : 'application/json'),
          body: isText ? body : JSON.stringify(body),
          delayMs,
          redirect,
          headers,
          repeat,
        })
        return {}
      },
      'web.open': async () => this.open(),
      'web.requests': async (query) => this.gate.requests(query),
      'web.hang': async (how) => (this.gate.hang(how), {}),
    }
  }
}

function* pieces(body, count) {
  for (let i = 0; i < count; i++) yield body
}

const routeKey = (host, path) => JSON.stringify([host, path])
const didHost = (did) => decodeURIComponent(did.slice('did:web:'.length)).toLowerCase()

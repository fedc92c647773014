// The control port: `POST /<operation>` with a JSON body, answered with JSON.
// An operation that fails answers {error} with the status of the failure.
import http from 'node:http'
import { Failure } from './failure.mjs'
import { listen } from './loopback.mjs'

export class Control {
  constructor(operations) {
    this.operations = operations
  }

  async start(port) {
    this.server = http.createServer((req, res) => this.#serve(req, res))
    this.url = `http://127.0.0.1:${await listen(this.server, port)}`
  }

  close() {
    this.server?.close()
    this.server?.closeAllConnections()
  }

  async #serve(req, res) {
    const reply = (status, answer) => {
      res.writeHead(status, { 'content-type': 'application/json' })
      res.end(JSON.stringify(answer))
    }
    try {
      const chunks = []
      for await (const chunk of req) chunks.push(chunk)
      const name = new URL(req.url, 'http://control').pathname.slice(1) || 'state'
      if (!Object.hasOwn(this.operations, name))
        return reply(404, { error: `no operation ${name}`, operations: Object.keys(this.operations) })
      const text = Buffer.concat(chunks).toString()
      reply(200, await this.operations[name](text ? JSON.parse(text) : {}))
    } catch (e) {
      reply(e instanceof Failure ? e.status : 500, { error: e instanceof Failure ? e.message : e.stack })
    }
  }
}

// Starts a network as a test would, by run.sh, and talks to it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import dns from 'node:dns/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import WebSocket from 'ws'

export const script = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url))

export class Network {
  used = new Set() // operations that succeeded at least once

  static async start(...flags) {
    const network = new Network()
    const startedAt = Date.now()
    network.child = spawn(script('run.sh'), ['--exit-with-stdin', ...flags], { stdio: ['pipe', 'pipe', 'inherit'] })
    network.exited = once(network.child, 'exit')
    network.lines = []
    const lines = createInterface(network.child.stdout)
    lines.on('line', (line) => network.lines.push(line))
    await Promise.race([once(lines, 'line'), network.exited])
    if (!network.lines.length) throw new Error('the network did not start')
    network.ready = JSON.parse(network.lines[0])
    network.startMs = Date.now() - startedAt
    return network
  }

  async stop() {
    const startedAt = Date.now()
    this.child.stdin.end()
    const [code] = await this.exited
    return { code, ms: Date.now() - startedAt }
  }

  /** A control operation; throws on anything but 200. */
  async op(name, body = {}) {
    const { status, answer } = await this.tryOp(name, body)
    if (status !== 200) throw new Error(`${name}: ${status} ${JSON.stringify(answer).slice(0, 500)}`)
    this.used.add(name)
    return answer
  }

  async tryOp(name, body = {}) {
    const res = await fetch(`${this.ready.control}/${name}`, { method: 'POST', body: JSON.stringify(body) })
    return { status: res.status, answer: await res.json() }
  }

  /** GET as a service under test does: without the control port's pass. */
  async get(url, { headers, timeoutMs = 5000, redirect = 'manual' } = {}) {
    const res = await fetch(url, { headers, redirect, signal: AbortSignal.timeout(timeoutMs) })
    const bytes = Buffer.from(await res.arrayBuffer())
    const text = bytes.toString()
    const json = res.headers.get('content-type')?.includes('json') ? JSON.parse(text) : undefined
    return { status: res.status, headers: res.headers, bytes, text, json }
  }

  document(did) {
    return this.get(`${this.ready.plc}/${did}`)
  }

  getRecord(pds, did) {
    const params = new URLSearchParams({ did, collection: this.ready.collection, rkey: 'self' })
    return this.get(`${this.ready.pds[pds].url}/xrpc/com.atproto.sync.getRecord?${params}`)
  }

  resolver({ timeout = 500 } = {}) {
    const resolver = new dns.Resolver({ timeout, tries: 1 })
    resolver.setServers([this.ready.dns])
    return resolver
  }
}

/** A websocket that keeps what it receives: {frames, closed, until(test), close()}. */
export async function listenTo(url) {
  const ws = new WebSocket(url)
  const stream = { ws, frames: [], closed: null, close: () => ws.terminate() }
  ws.on('message', (data, binary) => stream.frames.push(binary ? data : data.toString()))
  ws.on('error', () => {})
  ws.on('close', (code) => (stream.closed = code))
  stream.until = (test, ms) => until(() => stream.frames.find(test), ms)
  await once(ws, 'open')
  return stream
}

/** The first true answer of `test`, tried every 20 ms. */
export async function until(test, ms = 5000) {
  for (const start = Date.now(); Date.now() - start < ms; await sleep(20)) {
    const answer = await test()
    if (answer) return answer
  }
  throw new Error(`not true within ${ms} ms: ${test}`)
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

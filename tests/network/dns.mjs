// A small authoritative name server, UDP and TCP. By itself it answers
// `_atproto.<handle>` TXT from the table of handles and A = 127.0.0.1 for the
// handles' own names; `dns.set` overrides any name. Every TTL is 0, so that a
// change is seen at once.
import dgram from 'node:dgram'
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
import net from 'node:net'
import { Failure } from './failure.mjs'
import { LOOPBACK, freePort, listen } from './loopback.mjs'

const [A, TXT, AAAA] = [1, 16, 28]
const NXDOMAIN = 3
const QUERY_LIMIT = 5000 // queries remembered

export class NameServer {
  handles = new Map() // handle -> DID
  #overrides = new Map() // name -> {txt?, a?, aaaa?} | {rcode} | {drop}
  #queries = []

  async start(port) {
    this.port = port || (await freePort())
    this.udp = dgram.createSocket('udp4')
    this.udp.on('message', (query, peer) => {
      const answer = this.#answer(query)
      if (answer) this.udp.send(answer, peer.port, peer.address)
    })
    await new Promise((ok, no) => this.udp.once('error', no).bind(this.port, LOOPBACK, ok))
    this.tcp = net.createServer((socket) => this.#serveTcp(socket))
    await listen(this.tcp, this.port)
  }

  close() {
    this.udp?.close()
    this.tcp?.close()
  }

  /** Make the PDSes of this process, which resolve with node:dns, ask this server. */
  useInThisProcess() {
    dns.setServers([`${LOOPBACK}:${this.port}`])
    dns.promises.setServers([`${LOOPBACK}:${this.port}`])
    // setServers makes new functions; names that were already imported from the
    // module would silently keep the machine's own resolver without this.
    syncBuiltinESMExports()
  }

  #serveTcp(socket) {
    let buffer = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (data) => {
      buffer = Buffer.concat([buffer, data])
      while (buffer.length >= 2 && buffer.length >= 2 + buffer.readUInt16BE(0)) {
        const end = 2 + buffer.readUInt16BE(0)
        const answer = this.#answer(buffer.subarray(2, end))
        buffer = buffer.subarray(end)
        if (!answer) continue
        const length = Buffer.alloc(2)
        length.writeUInt16BE(answer.length)
        socket.write(Buffer.concat([length, answer]))
      }
    })
  }

  #lookup(name, type) {
    const override = this.#overrides.get(name)
    if (override) return override
    const handle = name.replace(/^_atproto\./, '')
    const did = this.handles.get(handle)
    if (!did) return { rcode: NXDOMAIN }
    if (name !== handle) return { txt: [`did=${did}`] }
    // A handle's own name leads to loopback, so that an HTTP well-known client
    // reaches the PDS if it is also told which port to use.
    return type === A ? { a: [LOOPBACK] } : {}
  }

  #answer(query) {
    const question = readQuestion(query)
    if (!question) return null
    const { name, type } = question
    const found = this.#lookup(name, type)
    this.#queries.push({ name, type, at: Date.now() })
    if (this.#queries.length > QUERY_LIMIT) this.#queries.shift()
    if (found.drop) return null
    let data = []
    if (type === TXT) data = (found.txt ?? []).map(txtData)
    if (type === A) data = (found.a ?? []).map((a) => Buffer.from(a.split('.').map(Number)))
    if (type === AAAA) data = (found.aaaa ?? []).map(ipv6Data)
    return writeAnswer(query, question, data, found.rcode ?? 0)
  }

  operations() {
    return {
      // The whole override of a name is replaced; {name, txt: null} forgets it.
      'dns.set': async ({ name, txt, a, aaaa, rcode, drop }) => {
        const list = (value) => (value == null ? undefined : [value].flat())
        const addresses = [...(list(a) ?? []).map((x) => [x, 4]), ...(list(aaaa) ?? []).map((x) => [x, 6])]
        for (const [address, family] of addresses)
          if (net.isIP(address) !== family) throw new Failure(400, `not an IPv${family} address: ${address}`)
        const key = name.toLowerCase()
        if (drop) this.#overrides.set(key, { drop })
        else if (rcode) this.#overrides.set(key, { rcode })
        else if (txt == null && a == null && aaaa == null) this.#overrides.delete(key)
        else this.#overrides.set(key, { txt: list(txt), a: list(a), aaaa: list(aaaa) })
        return {}
      },
      'dns.queries': async ({ name, reset = false } = {}) => {
        const out = this.#queries.filter((q) => name === undefined || q.name === name)
        if (reset) this.#queries = []
        return out
      },
    }
  }
}

function readQuestion(query) {
  const isReply = query.length > 2 && (query[2] & 0x80) !== 0
  if (query.length < 17 || isReply) return null
  const labels = []
  let offset = 12
  while (offset < query.length && query[offset] !== 0) {
    if (query[offset] > 63) return null // a pointer has no place in a question
    labels.push(query.toString('latin1', offset + 1, offset + 1 + query[offset]))
    offset += 1 + query[offset]
  }
  const end = offset + 5
  if (end > query.length) return null
  return { name: labels.join('.').toLowerCase(), type: query.readUInt16BE(offset + 1), bytes: query.subarray(12, end) }
}

// A character string holds 255 bytes at most; a longer text is several of them.
function txtData(text) {
  const bytes = Buffer.from(text)
  const chunks = []
  for (let i = 0; i < bytes.length || i === 0; i += 255) {
    const chunk = bytes.subarray(i, i + 255)
    chunks.push(Buffer.from([chunk.length]), chunk)
  }
  return Buffer.concat(chunks)
}

function ipv6Data(address) {
  const dotted = address.match(/^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/)
  if (dotted) {
    const [b0, b1, b2, b3] = dotted.slice(2).map(Number)
    address = `${dotted[1]}${((b0 << 8) | b1).toString(16)}:${((b2 << 8) | b3).toString(16)}`
  }
  const [head, tail] = address.split('::').map((half) => half.split(':').filter(Boolean))
  const groups = tail ? [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail] : head
  const out = Buffer.alloc(16)
  groups.forEach((group, i) => out.writeUInt16BE(parseInt(group, 16), 2 * i))
  return out
}

function writeAnswer(query, question, datas, rcode) {
  const head = Buffer.alloc(12)
  query.copy(head, 0, 0, 2)
  const recursionDesired = query[2] & 1 ? 0x0100 : 0
  head.writeUInt16BE(0x8480 | recursionDesired | rcode, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(datas.length, 6)
  const answers = datas.map((data) => {
    const record = Buffer.alloc(12)
    record.writeUInt16BE(0xc00c, 0) // the name is the one in the question
    record.writeUInt16BE(question.type, 2)
    record.writeUInt16BE(1, 4)
    record.writeUInt32BE(0, 6)
    record.writeUInt16BE(data.length, 10)
    return Buffer.concat([record, data])
  })
  return Buffer.concat([head, question.bytes, ...answers])
}

// The firehose's binary frames, and a subscription to a real PDS that comes
// back by itself.
import { CarReader } from '@ipld/car'
import * as dagCbor from '@ipld/dag-cbor'
import WebSocket from 'ws'
import { passHeaders } from './gate.mjs'

const RETRY_MS = 200

/**
 * {header, body} of a frame: two DAG-CBOR values one after the other. Put
 * behind the byte that opens an array of two, they are one strict value.
 */
export function decodeFrame(bytes) {
  const [header, body] = dagCbor.decode(Buffer.concat([Buffer.from([0x82]), bytes]))
  return { header, body }
}

export function encodeFrame(header, body) {
  return Buffer.concat([dagCbor.encode(header), dagCbor.encode(body)])
}

/** The blocks of a CAR by CID text. */
export async function carBlocks(bytes) {
  const reader = await CarReader.fromBytes(bytes)
  const blocks = new Map()
  for await (const { cid, bytes: block } of reader.blocks()) blocks.set(cid.toString(), block)
  return blocks
}

/** A record block as the JSON of the data model: links as $link, bytes as $bytes. */
export function recordJson(block) {
  return plain(dagCbor.decode(block))
}

function plain(value) {
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64').replace(/=+$/, '') }
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  const isLink = value.asCID === value || (value['/'] !== undefined && value['/'] === value.bytes)
  if (isLink) return { $link: value.toString() }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}

/**
 * Follow one PDS's firehose from `cursor` (undefined: from now on). Frames come
 * to `onFrame` one at a time and in order; after a lost connection it goes on
 * behind the last one.
 */
export class Subscription {
  #ws
  #closed = false
  #queue = Promise.resolve()

  constructor(url, { cursor, onFrame }) {
    this.url = url
    this.cursor = cursor
    this.onFrame = onFrame
    this.opened = new Promise((resolve) => (this.markOpened = resolve))
    this.#connect()
  }

  #connect() {
    const url = new URL(this.url)
    if (this.cursor !== undefined) url.searchParams.set('cursor', String(this.cursor))
    // The pass keeps a PDS that hangs for everybody else open for this one.
    this.#ws = new WebSocket(url, { headers: passHeaders() })
    this.#ws.on('open', () => this.markOpened())
    this.#ws.on('message', (data) => {
      this.#queue = this.#queue.then(() => this.#take(data)).catch((e) => console.error('subscription:', e.message))
    })
    this.#ws.on('error', () => {}) // 'close' follows
    this.#ws.on('close', () => {
      if (!this.#closed) setTimeout(() => this.#closed || this.#connect(), RETRY_MS)
    })
  }

  async #take(data) {
    const { header, body } = decodeFrame(data)
    if (header.op !== 1 || (this.cursor !== undefined && body.seq <= this.cursor)) return
    await this.onFrame(header.t, body)
    if (body.seq !== undefined) this.cursor = body.seq
  }

  close() {
    this.#closed = true
    this.#ws.terminate()
  }
}

#!/usr/bin/env node
// Reads an event stream, and prints each frame as a line of JSON.
//
// usage: node.sh updates.mjs URL
//
//   {"open":true}                       the WebSocket is open
//   {"t":"#upsert","body":{...}}        a message
//   {"error":"FutureCursor","message"}  an error
//   {"closed":1008}                     the end, with its code
//   {"refused":426}                     no WebSocket, with the status
// Frames are read by the reference implementation, and once more as strict
// DAG-CBOR. On a line of standard input it stops or goes on reading.
import { createInterface } from 'node:readline'
import { Frame } from '@atproto/xrpc-server'
import WebSocket from 'ws'
import { decodeFrame } from './frames.mjs'

const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const socket = new WebSocket(process.argv[2])
socket.on('open', () => say({ open: true }))
socket.on('unexpected-response', (_, response) => {
  say({ refused: response.statusCode })
  process.exit(0)
})
socket.on('message', (bytes, isBinary) => {
  if (!isBinary) return say({ fault: 'a text' })
  const { header } = decodeFrame(bytes)
  const frame = Frame.fromBytes(bytes)
  if (frame.isError()) say({ error: frame.code, message: frame.message })
  else say({ t: header.t, body: frame.body })
})
socket.on('error', (e) => say({ fault: e.message }))
socket.on('close', (code) => {
  say({ closed: code })
  process.exit(0)
})
for await (const line of createInterface(process.stdin)) {
  if (line === 'pause') socket.pause()
  else socket.resume()
}

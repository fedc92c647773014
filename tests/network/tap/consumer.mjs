#!/usr/bin/env node
// A consumer of the channel: the unmodified client of the npm package
// @atproto/tap.
//
// usage: run.sh URL PASSWORD LOG
//
// Appends each event to LOG, one line of JSON, before it acknowledges it: what
// is acknowledged is in the file when the process is killed. A fault is a line
// with `fault`, but for connections that end: these are the test's doing.
import { openSync, writeSync } from 'node:fs'
import { Tap } from '@atproto/tap'

const [url, adminPassword, path] = process.argv.slice(2)
const log = openSync(path, 'a')
const write = (value) => writeSync(log, JSON.stringify(value) + '\n')
const tap = new Tap(url, { adminPassword })
const handler = {
  async onEvent(event, { ack }) {
    write(event)
    ack().catch((e) => write({ fault: e.message }))
  },
  onError: (e) => write({ fault: `${e.message}: ${e.cause?.message}` }),
}
const channel = tap.channel(handler, { maxReconnectSeconds: 1 })
await channel.start()

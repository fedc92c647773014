#!/usr/bin/env node
// What @did-plc/lib says of did:plc operation logs, on standard input and output.
//
// usage: node.sh plc_log.mjs
//
// Each line {"did","log":[{cid, createdAt, nullified, operation}]} is answered by one line:
//   {"ok":true,"data":{did, verificationMethods, rotationKeys, alsoKnownAs, services} | null,"states":2}
//   {"ok":false,"error":"..."}
// data is null where the account is tombstoned; states counts the operations that count.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { cidForCbor } from '@atproto/common'
import * as plcLibModule from '@did-plc/lib'

const plcLib = plcLibModule.default ?? plcLibModule

/**
 * Replays the log as a directory accepts operations, each at the time of its entry, and validates
 * what counts in the end as a reader does.
 */
export async function judge(did, log) {
  const now = Date.now
  let counted = []
  const seen = new Map()
  try {
    for (const entry of log) {
      const createdAt = new Date(entry.createdAt)
      const cid = await cidForCbor(entry.operation)
      if (cid.toString() !== entry.cid) throw new Error('the cid is not of the operation')
      Date.now = () => createdAt.getTime()
      const { nullified } = await plcLib.assureValidNextOp(did, counted, entry.operation)
      counted = counted.filter((op) => !nullified.some((gone) => gone.equals(op.cid)))
      counted.push({ did, operation: entry.operation, cid, nullified: false, createdAt })
      seen.set(entry.cid, entry)
    }
  } finally {
    Date.now = now
  }
  const counts = new Set(counted.map((op) => op.cid.toString()))
  for (const [cid, { nullified }] of seen)
    if (nullified === counts.has(cid)) throw new Error('an entry is marked as what it is not')
  const data = await plcLib.validateOperationLog(did, counted.map((op) => op.operation))
  return { data, states: counted.length - (data === null ? 1 : 0) }
}

async function main() {
  for await (const line of createInterface(process.stdin)) {
    if (!line.trim()) continue
    let answer
    try {
      const { did, log } = JSON.parse(line)
      answer = { ok: true, ...(await judge(did, log)) }
    } catch (e) {
      answer = { ok: false, error: `${e.name}: ${e.message}`.split('\n')[0] }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main()

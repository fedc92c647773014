#!/usr/bin/env node
// A small, real atproto network on loopback, for tests.
//
//   directory      @did-plc/server, its database in memory
//   PDSes          @atproto/pds, sqlite in a temporary directory
//   name server    _atproto.<handle> TXT, UDP and TCP
//   web host       did:web documents and handle well-knowns
//   control port   JSON over HTTP: make accounts, write records, break things
//   on demand      a PDS of another implementation, Jetstreams, a firehose that lies
//
// usage: run.sh [--pds N] [--spec FILE.json] [--multikey] [--exit-with-stdin]
//               [--plc-port P] [--pds-ports P,P] [--dns-port P] [--web-port P] [--control-port P]
//               [--data-dir DIR] [--crawlers URL,URL] [--pds-config JSON] [--log FILE]
//
// Every port that is not given is a free one. When everything answers, one line
// of JSON is printed on stdout, and nothing else ever is.
// --multikey        the directory answers with the DID document shape of today's public one
// --exit-with-stdin end when standard input does, so that a test that dies takes this along
// --pds-config      more settings for every PDS, such as {"disableSsrfProtection":false}
// --spec            {"pds":2,"accounts":[{"name":"alice","pds":0,"keyPackage":{"label":"Alice"}}]}
// SIGTERM or SIGINT: a clean end with exit code 0.
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { bindLoopbackOnly } from './loopback.mjs'

const startedAt = Date.now()
const { values: option } = parseArgs({
  options: {
    pds: { type: 'string' },
    spec: { type: 'string' },
    multikey: { type: 'boolean', default: false },
    'exit-with-stdin': { type: 'boolean', default: false },
    'plc-port': { type: 'string', default: '0' },
    'pds-ports': { type: 'string', default: '' },
    'dns-port': { type: 'string', default: '0' },
    'web-port': { type: 'string', default: '0' },
    'control-port': { type: 'string', default: '0' },
    'data-dir': { type: 'string' },
    crawlers: { type: 'string', default: '' },
    'pds-config': { type: 'string', default: '{}' },
    log: { type: 'string' },
  },
})

// The packages read LOG_* once, when they are imported: hence the imports below.
process.env.LOG_ENABLED = option.log ? 'true' : 'false'
if (option.log) process.env.LOG_DESTINATION = option.log
bindLoopbackOnly()

const { Accounts, accountOperations } = await import('./accounts.mjs')
const { Control } = await import('./control.mjs')
const { NameServer } = await import('./dns.mjs')
const { Identity } = await import('./identity.mjs')
const { ADMIN_PASSWORD, Host, hostOperations } = await import('./pds.mjs')
const { Peer } = await import('./peer.mjs')
const { Directory } = await import('./plc.mjs')
const { COLLECTION, Records } = await import('./records.mjs')
const { Streams } = await import('./streams.mjs')
const { Web } = await import('./web.mjs')
const importMs = Date.now() - startedAt

const { multikey } = option
const hosts = []
const nameServer = new NameServer()
const directory = new Directory({ multikey })
const web = new Web({ multikey })
const streams = new Streams()
const peer = new Peer(directory, nameServer)
const accounts = new Accounts(hosts, nameServer)
const records = new Records(accounts)
const identity = new Identity({ accounts, directory, hosts, web })
const operations = {
  state: describe,
  ...accountOperations({ accounts, records, identity }),
  ...records.operations(),
  ...identity.operations({ records }),
  ...directory.operations(),
  ...hostOperations(hosts),
  ...nameServer.operations(),
  ...web.operations(),
  ...peer.operations(),
  ...streams.operations({ accounts, hosts }),
}
const control = new Control(operations)
let webUrl
let dataDir

async function describe() {
  return {
    plc: directory.url,
    pds: await Promise.all(hosts.map((host) => host.describe())),
    dns: `127.0.0.1:${nameServer.port}`,
    web: webUrl,
    control: control.url,
    multikey,
    adminPassword: ADMIN_PASSWORD,
    collection: COLLECTION,
    accounts: accounts.views(),
    peer: peer.describe(),
    jetstreams: streams.jetstreams.describe(),
    firehoses: streams.firehoses.describe(),
  }
}

async function start() {
  const spec = option.spec ? JSON.parse(await fs.readFile(option.spec, 'utf8')) : {}
  dataDir = option['data-dir'] ?? (await fs.mkdtemp(path.join(os.tmpdir(), 'atcomm-network-')))
  await nameServer.start(Number(option['dns-port']))
  nameServer.useInThisProcess()
  await directory.start(Number(option['plc-port']))
  webUrl = (await web.open(Number(option['web-port']))).url
  const ports = option['pds-ports'].split(',').filter(Boolean).map(Number)
  for (let index = 0; index < Number(option.pds ?? spec.pds ?? 2); index++) {
    const host = await Host.create(index, {
      port: ports[index],
      dataDir,
      plcUrl: directory.url,
      crawlers: option.crawlers.split(',').filter(Boolean),
      settings: JSON.parse(option['pds-config']),
    })
    await host.start()
    hosts.push(host)
  }
  await control.start(Number(option['control-port']))
  for (const account of spec.accounts ?? []) await operations['account.create'](account)
  const startMs = Date.now() - startedAt
  console.log(JSON.stringify({ ready: true, pid: process.pid, importMs, startMs, ...(await describe()) }))
}

let stopping = false
async function stop(code) {
  if (stopping) return
  stopping = true
  // A connection that does not want to end must not keep the test waiting.
  setTimeout(() => process.exit(code || 1), 5000).unref()
  control.close()
  streams.close()
  web.close()
  await Promise.allSettled([peer.stop(), ...hosts.map((host) => host.stop()), directory.stop()])
  nameServer.close()
  if (dataDir && !option['data-dir']) await fs.rm(dataDir, { recursive: true, force: true })
  process.exit(code)
}
process.on('SIGTERM', () => stop(0))
process.on('SIGINT', () => stop(0))
if (option['exit-with-stdin']) process.stdin.on('end', () => stop(0)).resume()

try {
  await start()
} catch (e) {
  console.error(e)
  await stop(1)
}

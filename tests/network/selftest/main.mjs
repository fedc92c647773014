// Runs every check in both DID document shapes and closes with a count. A
// check is [name, async function]; they share one network and go in order.
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { accountChecks } from './accounts.mjs'
import { Network, sleep } from './driver.mjs'
import { faultChecks } from './faults.mjs'
import { lexiconChecks } from './lexicon.mjs'
import { peerChecks } from './peer.mjs'
import { streamChecks } from './streams.mjs'

let passed = 0
let failed = 0

async function run(title, checks) {
  for (const [name, check] of checks) {
    const startedAt = Date.now()
    try {
      await check()
      passed += 1
      console.log(`ok   ${title}: ${name} (${Date.now() - startedAt} ms)`)
    } catch (e) {
      failed += 1
      console.log(`FAIL ${title}: ${name}\n${e.stack}`)
    }
  }
}

function must(condition, message) {
  if (!condition) throw new Error(message)
}

for (const shape of ['legacy', 'multikey']) {
  const network = await Network.start(...(shape === 'multikey' ? ['--multikey'] : []))
  console.log(`${shape}: ready after ${network.startMs} ms`)
  await run(shape, [
    ...accountChecks(network, shape),
    ...faultChecks(network),
    ...streamChecks(network),
    ...peerChecks(network),
    [
      'every operation was used',
      async () => {
        const { status, answer } = await network.tryOp('no.such.operation')
        must(status === 404, `unknown operation answered ${status}`)
        const unused = answer.operations.filter((name) => !network.used.has(name))
        must(!unused.length, `never used: ${unused.join(' ')}`)
      },
    ],
    [
      'ends with its standard input',
      async () => {
        const { code, ms } = await network.stop()
        console.log(`${shape}: stopped after ${ms} ms`)
        must(code === 0, `exit code ${code}`)
        must(network.lines.length === 1, 'more than the ready line was printed')
      },
    ],
  ])
}

await run('death', [
  [
    'a killed network takes its peer along',
    async () => {
      const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'atcomm-selftest-'))
      const network = await Network.start('--pds', '0', '--data-dir', directory)
      const peer = await network.op('peer.start', { handles: ['erin.peer.test'] })
      const alive = () => fetch(`${peer.url}/xrpc/_health`).then(() => true, () => false)
      must(await alive(), 'the peer does not answer')
      process.kill(network.ready.pid, 'SIGKILL')
      for (let i = 0; i < 100 && (await alive()); i++) await sleep(50)
      must(!(await alive()), 'the peer outlived the network')
      await fs.rm(directory, { recursive: true }) // nobody was left to do it
    },
  ],
])
await run('lexicon', lexiconChecks())

console.log(`${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)

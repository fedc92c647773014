#!/usr/bin/env node
// The demo: a real network on this machine, the directory beside it, and what it answers.
//
// usage: demo.sh [--once] [--binary FILE]
//
// Every answer that is shown has just been given by the running program, and is compared with what
// the story says about it. With --once the demo ends after the story, without it with Ctrl-C.
// Exit code 0: all was as told. 1: something was not. 130: interrupted before the end.
// --binary FILE  show this program instead of building one
import fs from 'node:fs'
import { parseArgs } from 'node:util'
import { readCarWithRoot, verifyProofs } from '@atproto/repo'
import {
  bold, build, cyan, dim, freePort, green, indented, pretty, print, red, sleep, Stage, Surprise, table,
} from './demo.stage.mjs'
import { newPeerDid } from './peerdid.mjs'

const { values: option } = parseArgs({
  options: { once: { type: 'boolean', default: false }, binary: { type: 'string' } },
})

const RESOLVE = 'at.didcomm.directory.resolveRecipient'
const PROOF = 'at.didcomm.directory.getProof'
const REFRESH = 'at.didcomm.directory.refresh'

let network // the ready line of the test network
let directory // the directory's address
let metrics // where it shows what it counts
let answers = 0
let chapters = 0
let told = false // the story, to its end

let end // with null, or with what went wrong
const ending = new Promise((done) => (end = done))
const stage = new Stage((why) => end(new Surprise(why)))

// ---- the story

async function story() {
  const binary = option.binary ?? (await build())

  chapter('A network')
  note('A did:plc directory, two PDSes by Bluesky and one of another implementation: real ones, on this machine only.')
  network = await stage.network('--multikey')
  const peer = await control('peer.start', { handles: ['erin.peer.test', 'frank.peer.test'] })
  const mediator = await openMediator()
  const mediators = [mediator.did]
  const alice = await control('account.create', { name: 'alice', keyPackage: { mediators, label: 'phone' } })
  const bob = await control('account.create', { name: 'bob', pds: 1, keyPackage: { mediators, label: 'laptop' } })
  const carol = await control('account.create', { name: 'carol', pds: 1 })
  const mallory = await control('account.create', { name: 'mallory' })
  await control('record.put', {
    account: 'mallory',
    record: { $type: network.collection, did: 42, mediators, createdAt: new Date().toISOString() },
  })
  const [erin, frank] = peer.accounts
  await control('peer.put', { handle: erin.handle, keyPackage: { mediators } })
  table([
    ['did:plc directory', network.plc],
    ['PDS 0', network.pds[0].url],
    ['PDS 1', network.pds[1].url],
    ['PDS arroba', peer.url],
    ['mediator', `${mediator.did} (its DID document and an endpoint, on a web host)`],
  ])
  table([
    ['alice', alice.handle, alice.did, 'PDS 0', 'has a key package'],
    ['bob', bob.handle, bob.did, 'PDS 1', 'has one'],
    ['carol', carol.handle, carol.did, 'PDS 1', 'has none'],
    ['mallory', mallory.handle, mallory.did, 'PDS 0', 'has one with "did": 42'],
    ['erin', erin.handle, erin.did, 'arroba', 'has one'],
    ['frank', frank.handle, frank.did, 'arroba', 'has none'],
  ])

  chapter('The directory starts beside it')
  const config = await configure([...network.pds.map((pds) => pds.url), peer.url])
  print(`\n${dim(indented(fs.readFileSync(config, 'utf8').trimEnd()))}`)
  print(`\n${cyan(`$ atcomm serve --config ${config}`)}`)
  const begun = Date.now()
  await stage.serve(binary, config, directory)
  note(`It answers after ${Date.now() - begun} ms, and follows the three hosts. What it finds there by itself it proves:`)
  await untilCounted({ package: 3, invalid: 1 })
  print(`\n${cyan(`$ curl -s ${metrics}/metrics | grep atcomm_directory_outcomes_total`)}`)
  print((await outcomes()).join('\n'))
  note(`Three packages and one that is none, ${Date.now() - begun} ms after the start, before anybody asked.`)

  chapter('How do I send a message to alice?')
  note('One call with her handle: the keys to encrypt to, the mediator that takes it, and why to believe it.')
  // Mediators are looked at beside the accounts.
  await until(resolve(alice.handle), (answer) => answer.body.mediators?.[0].state === 'reachable')
  const view = await ask(resolve(alice.handle))
  expect(view.status === 200, 'alice is found by her handle')
  expect(view.body.did === alice.did && view.body.handle === alice.handle, 'handle and DID name each other')
  expect(same(view.body.keyPackage.value, alice.keyPackage), 'the record is shown as alice wrote it')
  expect(view.body.peer.did === alice.peer.did, 'her messaging DID is in the answer')
  expect(view.body.mediators[0].services[0].uri === mediator.endpoint, 'her mediator is resolved')

  chapter('Why should I believe it?')
  note('proof=true attaches the proof: the signed commit, and the path through her repository to the record.')
  const proven = await ask(resolve(alice.did, 'proof=true'), ['did', 'verification', 'proof'])
  expect(proven.body.proof?.car.$bytes.length > 0, 'the proof comes along')
  note(
    'getProof gives the same bytes as a CAR file. The reference implementation checks it here, under the key that',
    'the did:plc directory names; whether atcomm has checked it does not matter to that.',
  )
  const car = await showProof(alice, 'alice.car', view.body.keyPackage.cid)
  expect(Buffer.from(proven.body.proof.car.$bytes, 'base64').equals(car), 'both ways give the same proof')

  chapter('bob changes his keys')
  const before = await ask(resolve(bob.handle), ['did', 'keyPackage'])
  expect(before.body.peer?.did === bob.peer.did, 'bob is found with his first key')
  note('A new phone, a new key package, and PDS 1 says so on its stream:')
  let rotated
  const rotation = await measure(
    async () => (rotated = await control('record.put', { account: 'bob', keyPackage: { mediators, label: 'new phone' } })),
    resolve(bob.handle),
    (answer) => answer.body.keyPackage?.value.label === 'new phone',
  )
  const after = await ask(resolve(bob.handle), ['did', 'keyPackage', 'verification'])
  expect(after.body.peer.did === rotated.peer.did && after.body.peer.did !== bob.peer.did, 'the new key is served')
  note(`Served ${rotation}`)

  chapter('Who cannot be written to, and why')
  note('mallory published a record, and it breaks a rule. The answer says which.')
  await refused(resolve(mallory.handle), 'InvalidKeyPackage')
  note('carol has no key package. That is proven, too: her repository has nothing in the place where it would be.')
  await refused(resolve(carol.handle), 'NotEnrolled')
  await showProof(carol, 'carol.car', null)
  note('erin lives on another implementation of a PDS, and her proof holds all the same.')
  const foreign = await ask(resolve(erin.handle), ['did', 'handle', 'pds', 'verification'])
  expect(foreign.status === 200 && foreign.body.pds === peer.url, 'erin is found on arroba')
  note('frank lives there too, without a key package. That host proves no absence, so the answer is another one.')
  await refused(resolve(frank.handle), 'NotEnrolledUnproven')
  note('And nobody at all:')
  await refused(resolve('nobody.pds0.test'), 'HandleNotFound')

  chapter('alice is taken down by her host, and comes back')
  const down = await measure(
    () => control('account.takedown', { account: 'alice' }),
    resolve(alice.handle),
    (answer) => answer.body.error === 'AccountInactive',
  )
  await refused(resolve(alice.handle), 'AccountInactive')
  note(`Not served any more ${down}`)
  const up = await measure(
    () => control('account.takedown', { account: 'alice', applied: false }),
    resolve(alice.handle),
    (answer) => answer.status === 200,
  )
  const back = await ask(resolve(alice.handle), ['did', 'handle', 'status'])
  expect(back.body.status === 'active' && back.body.peer.did === alice.peer.did, 'alice is back')
  note(`Served again ${up}`)

  chapter('bob deletes his key package')
  const gone = await measure(
    () => control('record.delete', { account: 'bob' }),
    resolve(bob.handle),
    (answer) => answer.body.error === 'NotEnrolled',
  )
  await refused(resolve(bob.handle), 'NotEnrolled')
  note(`Not served any more ${gone}`)
  await showProof(bob, 'bob.car', null)

  chapter('carol enrols, and asks for a look rather than wait')
  const enrolled = await control('record.put', { account: 'carol', keyPackage: { mediators, label: 'tablet' } })
  const looked = await ask({ nsid: REFRESH, input: { did: carol.did } }, ['did', 'outcome'])
  expect(['package', 'unchanged'].includes(looked.body.outcome), 'refresh finds the package')
  expect(looked.body.recipient?.peer.did === enrolled.peer.did, 'the answer to refresh has the new key')
  if (looked.body.outcome === 'unchanged') note('Unchanged: the stream of PDS 1 had been faster.')
  const found = await ask(resolve(carol.handle), ['did', 'handle', 'status'])
  expect(found.body.peer?.did === enrolled.peer.did, 'carol is found')

  told = true
  print(`\n\n${green(`All ${answers} answers were as told.`)}`)
  if (!option.once) invite()
}

/** A web host that shows the DID document of a mediator and answers at its endpoint. */
async function openMediator() {
  const { url, did } = await control('web.open')
  const endpoint = `${url}/didcomm`
  const [, key] = newPeerDid().did.match(/\.E(z\w+)/)
  const document = {
    '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1'],
    id: did,
    verificationMethod: [{ id: `${did}#key-1`, type: 'Multikey', controller: did, publicKeyMultibase: key }],
    keyAgreement: [`${did}#key-1`],
    service: [
      {
        id: `${did}#didcomm`,
        type: 'DIDCommMessaging',
        serviceEndpoint: { uri: endpoint, accept: ['didcomm/v2'], routingKeys: [] },
      },
    ],
  }
  const { host } = new URL(url)
  await control('web.set', { host, path: '/.well-known/did.json', body: document })
  await control('web.set', { host, path: '/didcomm', status: 202 })
  return { did, endpoint }
}

/** Write the directory's configuration; the file. */
async function configure(sources) {
  const [port, metricsPort] = [await freePort(2590), await freePort(2591)]
  directory = `http://127.0.0.1:${port}`
  metrics = `http://127.0.0.1:${metricsPort}`
  const file = stage.file('atcomm.toml')
  const text = JSON.stringify
  fs.writeFileSync(
    file,
    `data_dir = ${text(stage.file('data'))}

[http]
listen = "127.0.0.1:${port}"

[metrics]
listen = "127.0.0.1:${metricsPort}"

[net] # a network of one machine: loopback addresses, plain http, names under .test
development = true
name_server = ${text(network.dns)}

[identity]
plc_url = ${text(network.plc)}
${sources.map((url) => `\n[[sources]]\nkind = "pds"\nurl = ${text(url)}\n`).join('')}`,
  )
  return file
}

/** What a person can do who keeps the demo running. */
function invite() {
  chapter('Go on yourself')
  note(`The directory answers at ${bold(directory)} until you press Ctrl-C. Try:`)
  print()
  print(cyan(`  curl ${directory}/`))
  print(cyan(`  ${curl(resolve('erin.peer.test', 'proof=true'))}`))
  print(cyan(`  curl -d '{"name":"dave","keyPackage":{"label":"Dave"}}' ${network.control}/account.create`))
  print(cyan(`  ${curl(resolve('dave.pds0.test'))}`))
  print(cyan(`  curl ${metrics}/metrics`))
  note(
    `tests/network/README.md tells what else ${network.control} can do.`,
    `Logs and data are in ${stage.dir} until the end.`,
  )
}

// ---- asking

// Colons may stand in a query as they are.
const resolve = (actor, more) => {
  const name = encodeURIComponent(actor).replaceAll('%3A', ':')
  return { nsid: RESOLVE, query: `actor=${name}${more ? `&${more}` : ''}` }
}

const address = ({ nsid, query }) => `${directory}/xrpc/${nsid}${query ? `?${query}` : ''}`

/** The request as one would type it. */
function curl(request, more = '') {
  const input = request.input ? `-H 'content-type: application/json' -d '${JSON.stringify(request.input)}' ` : ''
  return `curl ${more}${input}'${address(request)}'`
}

/** One request to the directory: {status, body}. */
async function fetchAnswer(request) {
  const { input } = request
  const posted = input && { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(input) }
  const answer = await fetch(address(request), posted)
  const isJson = answer.headers.get('content-type')?.includes('json')
  const body = isJson ? await answer.json() : new Uint8Array(await answer.arrayBuffer())
  return { status: answer.status, body }
}

/** Ask, and show the question and the answer; of its fields those in `only`, if that is given. */
async function ask(request, only) {
  const answer = await fetchAnswer(request)
  answers += 1
  print(`\n${cyan(`$ ${curl(request)}`)}`)
  print(`${(answer.status === 200 ? green : red)(answer.status)} ${pretty(excerpt(answer.body, only))}`)
  return answer
}

// What is left out of an answer is a "…" too.
function excerpt(body, only) {
  if (!only || body.error) return body
  const left = Object.entries(body).filter(([name]) => only.includes(name))
  return { ...Object.fromEntries(left), ...(left.length < Object.keys(body).length && { '…': '…' }) }
}

/** Ask what is answered with the named error. */
async function refused(request, error) {
  const answer = await ask(request)
  expect(answer.status === 400 && answer.body.error === error, `the answer is ${error}`)
  return answer
}

/** Fetch an account's proof, and let the reference implementation verify it; the proof. `cid`: of the record, or null. */
async function showProof(account, file, cid) {
  const request = { nsid: PROOF, query: `did=${account.did}` }
  print(`\n${cyan(`$ ${curl(request, `-o ${file} `)}`)}`)
  const { status, body } = await fetchAnswer(request)
  answers += 1
  expect(status === 200 && body instanceof Uint8Array, 'the proof is given')
  const { root, blocks } = await readCarWithRoot(body)
  const data = await fetch(`${network.plc}/${account.did}/data`).then((answer) => answer.json())
  const key = data.verificationMethods.atproto
  const record = cid && blocks.cids().find((block) => block.toString() === cid)
  expect(record !== undefined, 'the record is in the proof')
  const claim = { collection: network.collection, rkey: 'self', cid: record }
  const { verified, unverified } = await verifyProofs(body, [claim], account.did, key)
  expect(verified.length === 1 && unverified.length === 0, 'the reference implementation accepts the proof')
  print(`${green(status)} ${body.length} bytes, root ${root}`)
  print(`    @atproto/repo: verified ${cid ? `record ${cid}` : 'that there is no record'}`)
  print(`    under ${key}`)
  return body
}

/** Do something at a PDS and ask the directory until its answer has changed; how long that took, in words. */
async function measure(act, request, changed) {
  const begun = performance.now()
  let acknowledged
  const acting = act().then(() => (acknowledged = performance.now()))
  acting.catch(() => {}) // awaited below, when the asking is over
  const seen = until(request, changed).then(() => performance.now())
  await acting
  const ms = (await seen) - begun
  return `${Math.round(ms)} ms after the host was asked; the host itself answered after ${Math.round(acknowledged - begun)} ms.`
}

/** Ask until the answer is as wanted. */
async function until(request, wanted, ms = 15_000) {
  let answer
  for (const begun = Date.now(); Date.now() - begun < ms && !stage.stopping; await sleep(2)) {
    answer = await fetchAnswer(request)
    if (wanted(answer)) return answer
  }
  throw new Surprise(`the answer to ${curl(request)} stayed ${answer?.status} ${JSON.stringify(answer?.body)}`)
}

/** The lines of the metrics that count what became of looks and events. */
async function outcomes() {
  const text = await fetch(`${metrics}/metrics`).then((answer) => answer.text())
  return text.split('\n').filter((line) => line.startsWith('atcomm_directory_outcomes_total'))
}

/** Wait until each named outcome was counted that often. */
async function untilCounted(wanted, ms = 15_000) {
  const begun = Date.now()
  for (let lines = []; ; await sleep(20)) {
    const seen = (outcome) => Number(lines.find((line) => line.includes(`"${outcome}"`))?.split(' ')[1] ?? 0)
    if (Object.entries(wanted).every(([outcome, count]) => seen(outcome) >= count)) return
    if (Date.now() - begun > ms) throw new Surprise(`the hosts were not enumerated within ${ms / 1000} s: ${lines.join(', ')}`)
    lines = await outcomes()
  }
}

/** An operation of the network's control port. */
async function control(operation, body = {}) {
  const answer = await fetch(`${network.control}/${operation}`, { method: 'POST', body: JSON.stringify(body) })
  const value = await answer.json()
  if (!answer.ok) throw new Surprise(`the network refuses ${operation}: ${value.error}`)
  return value
}

function expect(truth, what) {
  if (!truth) throw new Surprise(`not as told: ${what}`)
}

const sorted = (_, v) => (v?.constructor === Object ? Object.fromEntries(Object.entries(v).sort()) : v)
const same = (a, b) => JSON.stringify(a, sorted) === JSON.stringify(b, sorted)

// ---- telling

function chapter(title) {
  chapters += 1
  print(`${chapters > 1 ? '\n\n' : ''}${bold(`${chapters}. ${title}`)}`)
}

const note = (...lines) => print(`\n${lines.join('\n')}`)

// ---- the beginning and the end

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => end(null))
// Whoever started this may be gone without a word, as `make` is after a SIGKILL.
const parent = process.ppid
setInterval(() => process.ppid === parent || end(null), 500).unref()
// Nobody reads any more: `make demo | head`.
process.stdout.on('error', () => end(null))
// The terminal is gone.
if (process.stdin.isTTY) process.stdin.on('end', () => end(null)).on('error', () => end(null)).resume()

try {
  const outcome = await Promise.race([story().then(() => (option.once ? 'told' : ending)), ending])
  if (outcome instanceof Error) throw outcome
  if (!option.once || !told) print('\nEnding.')
  const bad = await stage.stop()
  if (told && bad.length) throw new Surprise(`not everything ended well: ${bad.join(', ')}`)
  stage.remove()
  process.exit(told ? 0 : 130)
} catch (error) {
  await stage.stop()
  const text = error instanceof Surprise ? error.message : error.stack
  console.error(`${red('demo: failed:')} ${text}`)
  console.error(`hint: the logs are in ${stage.dir}`)
  process.exit(1)
}

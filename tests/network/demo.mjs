#!/usr/bin/env node
// The demo: two people on two PDSes, each with an atcomm beside it, and one encrypted conversation.
//
// usage: demo.sh [--once] [--binary FILE] [--transcript FILE]
//
// Every command that is shown has just been run, and what it printed is compared with what the story
// says about it. With --once the demo ends after the story, without it with Ctrl-C.
// Exit code 0: all was as told. 1: something was not. 130: interrupted before the end.
// --binary FILE      use this program instead of building one
// --transcript FILE  write the commands and what they printed, without what differs from run to run
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import {
  bold, build, cyan, dim, freePort, green, print, red, Stage, Surprise, table,
} from './demo.stage.mjs'
import { Transcript } from './demo.transcript.mjs'

const { values: option } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    binary: { type: 'string' },
    transcript: { type: 'string' },
  },
})

/** How long one command may take. */
const COMMAND_MS = 60_000

let binary
let network // the ready line of the test network
let commands = 0
let chapters = 0
let told = false // the story, to its end

let end // with null, or with what went wrong
const ending = new Promise((done) => (end = done))
const stage = new Stage((why) => end(new Surprise(why)))
const transcript = new Transcript()

// ---- the story

async function story() {
  binary = option.binary ?? (await build())

  chapter('Two hosts')
  note('A did:plc directory and two PDSes, real ones, on this machine only. Beside each PDS runs an atcomm: it follows')
  note2('its PDS and, by a Jetstream, all others, answers who can be written to, and keeps the mail of those who chose')
  note2('it as their mediator.')
  transcript.name(stage.dir, '/demo')
  network = await stage.network('--multikey')
  const jetstream = await control('jetstream.start')
  const sidecars = [await sidecar(0, jetstream), await sidecar(1, jetstream)]
  table([
    ['did:plc directory', network.plc],
    ['PDS 0', network.pds[0].url, 'beside it', sidecars[0].url, sidecars[0].did],
    ['PDS 1', network.pds[1].url, 'beside it', sidecars[1].url, sidecars[1].did],
  ].map((row) => [...row, '', '', ''].slice(0, 5)))
  const alice = await person('alice', 0)
  const bob = await person('bob', 1)
  transcript.name(sidecars[0].port, '2590').name(sidecars[1].port, '2690')
  transcript.name(port(network.pds[0].url), '2583').name(port(network.pds[1].url), '2683')

  chapter('alice and bob enrol')
  note('One record in one’s own repository, signed by one’s own PDS. The app password comes from the environment.')
  await alice.runs(['enroll', alice.handle, '--mediator', `localhost:${sidecars[0].port}`, '--label', 'laptop'])
  await bob.runs(['enroll', bob.handle, '--mediator', `localhost:${sidecars[1].port}`, '--label', 'phone'])

  chapter('alice finds bob')
  note('The directory answers in one hop, and alice’s client believes none of it: record, commit, signing key, handle')
  note2('and mediator are verified here, and from now on remembered.')
  await alice.runs(['resolve', bob.handle])

  chapter('A message, through two mediators')
  const secret = 'the walls here have ears, but they cannot read'
  await alice.runs(['send', bob.handle, secret])
  note('It waits at bob’s mediator. What do the two hosts have of it?')
  await onlyCiphertext(sidecars, secret)
  await bob.runs(['receive'], [secret, alice.handle])
  await bob.runs(['send', alice.handle, 'heard you, and nobody else did'])
  await alice.runs(['receive'], ['heard you, and nobody else did', bob.handle])

  chapter('bob changes his key')
  note('The old key signs a statement for the new one, so alice is told, and need not ask.')
  await bob.runs(['rotate'])
  await alice.runs(['send', bob.handle, 'still you?'], [], { says: ['key'] })
  await bob.runs(['receive'], ['still you?', alice.handle])

  chapter('bob loses his phone')
  note('On the new one there is no old key that could vouch. For all that alice can tell, bob’s host may have put in a')
  note2('key of its own. Nothing is sent until she has asked bob and accepts it.')
  const phone = await person('bob', 1, 'new')
  await phone.runs(['enroll', bob.handle, '--mediator', `localhost:${sidecars[1].port}`, '--label', 'new phone', '--replace'])
  await alice.runs(['send', bob.handle, 'lunch?'], [], { exit: 3 })
  await alice.runs(['contacts', 'accept', bob.handle])
  await alice.runs(['send', bob.handle, 'lunch?'])
  await phone.runs(['receive'], ['lunch?', alice.handle])

  chapter('carol publishes bob’s key as her own')
  const carol = await person('carol', 1)
  const { value } = await fetchRecord(bob)
  await control('record.put', { account: 'carol', keyPackage: { did: value.did, mediators: value.mediators } })
  note('Whoever writes to carol now writes to bob. alice is warned before, and bob sees whom it was meant for.')
  await alice.runs(['send', carol.handle, 'hello carol'], [], { exit: 3 })
  await alice.runs(['send', carol.handle, 'hello carol', '--anyway'])
  await phone.runs(['receive'], [carol.did])

  told = true
  print(`\n\n${green(`All ${commands} commands did as told.`)}`)
  if (option.transcript) fs.writeFileSync(option.transcript, transcript.text())
  if (!option.once) invite(alice, phone)
}

const port = (url) => Number(new URL(url).port)

// ---- hosts and people

/** An atcomm beside a PDS: its directory and its mediator. */
async function sidecar(pds, jetstream) {
  const at = await freePort(2590 + pds * 100)
  const url = `http://127.0.0.1:${at}`
  const data = stage.file(`sidecar${pds}`)
  const text = JSON.stringify
  const config = stage.file(`sidecar${pds}.toml`)
  fs.writeFileSync(
    config,
    `data_dir = ${text(data)}

[http]
listen = "127.0.0.1:${at}"

[mediator]
public_url = "http://localhost:${at}"
${development()}
[[sources]]
kind = "pds"
url = ${text(network.pds[pds].url)}

[[sources]]
kind = "jetstream"
url = ${text(jetstream.url)}
walk = false
`,
  )
  await stage.serve(binary, config, url, `sidecar${pds}`)
  return { url, port: at, did: `did:web:localhost%3A${at}`, data }
}

/** A network of one machine: loopback addresses, plain http, names under .test. */
const development = () => `
[net]
development = true
name_server = ${JSON.stringify(network.dns)}

[identity]
plc_url = ${JSON.stringify(network.plc)}
`

/** An account with an app password and a wallet of its own; `device` names a further wallet. */
async function person(name, pds, device = '') {
  const account = device ? people.get(name) : await control('account.create', { name, pds })
  people.set(name, account)
  const wallet = stage.file(`wallet-${name}${device && `-${device}`}`)
  const config = stage.file('client.toml')
  fs.writeFileSync(config, development())
  const { accessJwt } = await control('session', { account: name })
  const appPassword = await xrpc(account.pdsUrl, 'com.atproto.server.createAppPassword', accessJwt, { name: `atcomm ${device}` })
  transcript.name(account.did, `did:plc:${name}`)
  const env = { ATCOMM_CONFIG: config, ATCOMM_HOME: wallet, ATCOMM_PASSWORD: appPassword.password }
  return {
    ...account,
    env,
    runs: (flags, shows = [], { exit = 0, says = [] } = {}) => run(name, env, flags, shows, says, exit),
  }
}

const people = new Map()

/** Run a command, show it and what it prints, and hold it to what the story says. */
async function run(name, env, flags, shows, says, exit) {
  const shown = ['atcomm', ...flags.map(quoted)].join(' ')
  print(`\n${cyan(`${name}$ ${shown}`)}`)
  const child = spawn(binary, flags, { env: { ...process.env, ...env, NO_COLOR: '1' }, stdio: ['ignore', 'pipe', 'pipe'] })
  const late = setTimeout(() => child.kill('SIGKILL'), COMMAND_MS)
  const parts = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr']) {
    child[stream].setEncoding('utf8').on('data', (text) => (parts[stream] += text))
  }
  const code = await new Promise((done) => child.on('close', (code, signal) => done(code ?? signal)))
  clearTimeout(late)
  // Talk before data, as the commands write them: two pipes have no order between them.
  process.stdout.write(dim(parts.stderr) + parts.stdout)
  if (exit !== 0) print(dim(`(exit code ${code})`))
  commands += 1
  transcript.add(`${name}$ ${shown}`, parts.stderr + parts.stdout, exit)
  expect(code === exit, `${shown} ends with ${exit}, not with ${code}`)
  for (const text of shows) expect(parts.stdout.includes(text), `${shown} prints "${text}"`)
  for (const text of says) expect(parts.stderr.includes(text), `${shown} says "${text}"`)
}

const quoted = (flag) => (/^[\w.:%/@=-]+$/.test(flag) ? flag : `'${flag}'`)

/** Look for the text of a message in every file of both hosts, and for its ciphertext. */
async function onlyCiphertext(sidecars, secret) {
  let files = 0
  let ciphertext = false
  for (const { data } of sidecars) {
    for (const name of fs.readdirSync(data, { recursive: true })) {
      const file = path.join(data, name)
      if (!fs.statSync(file).isFile()) continue
      files += 1
      const bytes = fs.readFileSync(file)
      expect(!bytes.includes(secret), `${name} does not hold the message`)
      ciphertext ||= bytes.includes('"ciphertext"')
    }
  }
  expect(ciphertext, 'the encrypted message waits in a store')
  note(`Searched: ${files} files of both hosts. Its text is in none of them, its ciphertext in bob’s mediator’s.`)
}

const fetchRecord = ({ did, pdsUrl }) =>
  xrpc(pdsUrl, `com.atproto.repo.getRecord?repo=${did}&collection=${network.collection}&rkey=self`)

/** An XRPC call: a query, or a procedure where there is input. */
async function xrpc(url, method, token, input) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(input && { 'content-type': 'application/json' }) }
  const answer = await fetch(`${url}/xrpc/${method}`, { method: input ? 'POST' : 'GET', headers, body: input && JSON.stringify(input) })
  if (!answer.ok) throw new Surprise(`${method} is answered ${answer.status}: ${await answer.text()}`)
  return answer.json()
}

/** An operation of the network's control port. */
async function control(operation, body = {}) {
  const answer = await fetch(`${network.control}/${operation}`, { method: 'POST', body: JSON.stringify(body) })
  const value = await answer.json()
  if (!answer.ok) throw new Surprise(`the network refuses ${operation}: ${value.error}`)
  return value
}

/** What a person can do who keeps the demo running. */
function invite(alice, bob) {
  chapter('Go on yourself')
  note(`Everything runs until you press Ctrl-C. In another terminal, be alice or bob:`)
  for (const { name, env } of [alice, bob]) {
    print(`\n  # ${name}`)
    for (const [key, text] of Object.entries(env)) print(cyan(`  export ${key}=${text}`))
  }
  print(cyan(`\n  ${path.relative(process.cwd(), binary)} receive --follow`))
  note(`tests/network/README.md tells what else ${network.control} can do.`)
  note2(`Logs and data are in ${stage.dir} until the end.`)
}

function expect(truth, what) {
  if (!truth) throw new Surprise(`not as told: ${what}`)
}

// ---- telling

function chapter(title) {
  chapters += 1
  print(`${chapters > 1 ? '\n\n' : ''}${bold(`${chapters}. ${title}`)}`)
  transcript.chapter(title)
}

const note = (...lines) => print(`\n${lines.join('\n')}`)
const note2 = (...lines) => print(lines.join('\n'))

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

// What the demo stands on: the processes it starts and ends, and how its text looks.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const PROJECT = here('../..')

const START_MS = 60_000

/** Something was not as the story says; the message is one line for the person at the terminal. */
export class Surprise extends Error {}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

// ---- processes

/** The processes of the demo and the directory that holds their files. */
export class Stage {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atcomm-demo-'))
  stopping = false
  #children = [] // in the order of their start; ended in the other
  #onEnd

  /** `onEnd(why)`: a process ended that nobody asked to. */
  constructor(onEnd) {
    this.#onEnd = onEnd
  }

  file(name) {
    return path.join(this.dir, name)
  }

  // Detached: Ctrl-C in a terminal reaches only this process, which ends the
  // others in order. Their talk goes to <name>.log.
  #start(name, command, flags, stdin) {
    const log = fs.openSync(this.file(`${name}.log`), 'a')
    const stdio = [stdin, 'pipe', log]
    const child = spawn(command, flags, { stdio, detached: true, cwd: this.dir })
    fs.closeSync(log)
    child.on('error', (error) => this.#onEnd(`${name} cannot be started: ${error.message}`))
    const exited = new Promise((done) => child.once('exit', (code, signal) => done(code ?? signal)))
    exited.then((code) => this.stopping || this.#onEnd(`${name} ended by itself (${code}): ${this.#lastWord(name)}`))
    this.#children.push({ name, child, exited })
    return child
  }

  #lastWord(name) {
    return fs.readFileSync(this.file(`${name}.log`), 'utf8').trimEnd().split('\n').at(-1) || 'it says nothing'
  }

  /** Start the test network; its ready line. */
  async network(...flags) {
    // Its standard input is a pipe from here, so that it never outlives this process.
    const child = this.#start('network', here('run.sh'), ['--exit-with-stdin', ...flags], 'pipe')
    child.stdin.on('error', () => {})
    const lines = createInterface(child.stdout)
    const late = sleep(START_MS).then(() => [null])
    const [line] = await Promise.race([once(lines, 'line'), late])
    if (!line) throw new Surprise(`the network was not ready within ${START_MS / 1000} s`)
    return JSON.parse(line)
  }

  /** Start `atcomm serve` under a name and wait until it answers at `url`. */
  async serve(binary, config, url, name) {
    const begun = Date.now()
    this.#start(name, binary, ['serve', '--config', config], 'ignore').stdout.resume()
    for (; Date.now() - begun < START_MS; await sleep(10)) {
      const answer = await fetch(`${url}/xrpc/_health`).catch(() => null)
      if (answer?.ok) return
    }
    throw new Surprise(`${name} did not answer at ${url} within ${START_MS / 1000} s`)
  }

  /** End everything, the last first. The names of those that did not end well. */
  async stop() {
    this.stopping = true
    const bad = []
    for (const { name, child, exited } of this.#children.reverse()) {
      if (child.stdin) child.stdin.end()
      else child.kill('SIGTERM')
      const late = new Promise((done) => setTimeout(done, 15_000, 'did not end').unref())
      const code = child.pid === undefined ? 0 : await Promise.race([exited, late])
      if (code === 'did not end') child.kill('SIGKILL')
      if (code !== 0) bad.push(`${name} (${code})`)
    }
    return bad
  }

  remove() {
    fs.rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Build the program in the tests' own profile; the path of the binary. */
export async function build() {
  const flags = ['build', '--locked', '--bin', 'atcomm', '--message-format=json-render-diagnostics']
  const cargo = spawn(process.env.CARGO ?? 'cargo', flags, { cwd: PROJECT, stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(cargo, 'exit')
  let binary
  for await (const line of createInterface(cargo.stdout)) {
    const { reason, executable } = JSON.parse(line)
    if (reason === 'compiler-artifact' && executable) binary = executable
  }
  const [code] = await exited
  if (code !== 0 || !binary) throw new Surprise('atcomm does not build; what cargo says stands above')
  return binary
}

/** The port if it is free, else any. */
export async function freePort(usual) {
  for (const port of [usual, 0]) {
    const probe = net.createServer().listen(port, '127.0.0.1')
    const taken = once(probe, 'error').catch(() => {})
    const listening = once(probe, 'listening').then(() => probe.address().port, () => null)
    const bound = await Promise.race([listening, taken.then(() => null)])
    if (bound === null) continue
    await new Promise((done) => probe.close(done))
    return bound
  }
  throw new Surprise('no free port')
}

// ---- text

const colours = process.stdout.isTTY && !process.env.NO_COLOR
const paint = (code) => (text) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text)
export const bold = paint('1')
export const dim = paint('2')
export const green = paint('32')
export const red = paint('31')
export const cyan = paint('36')

export const print = (text = '') => console.log(text)

export const indented = (text) => text.replace(/^(?=.)/gm, '  ')

/** Lines in columns. */
export function table(rows) {
  print()
  const width = (column) => Math.max(...rows.map((row) => row[column].length))
  for (const row of rows) {
    const cells = row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(width(column))))
    print(`  ${cells.join('  ')}`)
  }
}

const WIDTH = 100
const LONG = 72

/** The text with its middle left out, if it is long and not made of words. */
const short = (text) => (text.length > LONG && !text.includes(' ') ? `${text.slice(0, 36)}…${text.slice(-12)}` : text)

/** JSON for reading: what fits stands on one line, and the middle of long texts is a "…". */
export function pretty(value, indent = '', before = 0) {
  const flat = JSON.stringify(value, (_, v) => (typeof v === 'string' ? short(v) : v), 1).replace(/\n */g, ' ')
  if (value === null || typeof value !== 'object' || indent.length + before + flat.length <= WIDTH) return flat
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const lines = Object.entries(value).map(([name, v]) => {
    const label = isList ? '' : `${JSON.stringify(name)}: `
    return `${inner}${label}${pretty(v, inner, label.length)}`
  })
  const [open, close] = isList ? '[]' : '{}'
  return `${open}\n${lines.join(',\n')}\n${indent}${close}`
}

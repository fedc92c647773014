// The second PDS implementation, peer_arroba.py, as a child process.
import { spawn } from 'node:child_process'
import crypto from 'node:crypto'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Failure } from './failure.mjs'
import { freePort } from './loopback.mjs'
import { COLLECTION, keyPackageRecord } from './records.mjs'
import { xrpc } from './xrpc.mjs'

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const START_MS = 60_000

export class Peer {
  #child = null
  #description = null
  #directory
  #nameServer

  constructor(directory, nameServer) {
    this.#directory = directory
    this.#nameServer = nameServer
  }

  async start(handles) {
    if (this.#child) throw new Failure(409, 'the peer runs already')
    const python = here('.venv/bin/python')
    if (!existsSync(python)) throw new Failure(500, 'no tests/network/.venv (hint: run tests/network/setup.sh)')
    const token = crypto.randomBytes(16).toString('hex')
    const flags = ['--plc', this.#directory.url, '--port', String(await freePort()), '--token', token]
    // Its standard input is a pipe from here: when this process ends, however
    // it ends, the pipe does too and the child with it.
    const child = spawn(python, [here('peer_arroba.py'), ...flags, ...handles.flatMap((h) => ['--handle', h])], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    child.stdin.on('error', () => {})
    let talk = ''
    child.stderr.on('data', (data) => (talk = (talk + data).slice(-4000)))
    child.once('exit', () => this.#child === child && this.#forget())
    const line = await new Promise((resolve) => {
      createInterface(child.stdout).once('line', resolve)
      child.once('exit', () => resolve(null))
      setTimeout(() => resolve(null), START_MS).unref()
    })
    if (line === null) {
      child.kill('SIGKILL')
      throw new Failure(500, `the peer did not start: ${talk}`)
    }
    this.#description = JSON.parse(line)
    for (const { handle, did } of this.#description.accounts) this.#nameServer.handles.set(handle, did)
    return this.#description
  }

  async stop() {
    const child = this.#child
    if (!child) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.stdin.end()
    await gone
  }

  #forget() {
    for (const { handle } of this.#description?.accounts ?? []) this.#nameServer.handles.delete(handle)
    this.#child = null
    this.#description = null
  }

  describe() {
    return this.#description
  }

  #account(handle) {
    const account = this.#description?.accounts.find((a) => a.handle === handle)
    if (!account) throw new Failure(404, `no such account of the peer: ${handle}`)
    return account
  }

  #call(nsid, request) {
    return xrpc(this.#description.url, nsid, { token: this.#description.token, ...request })
  }

  async #delete({ handle, collection = COLLECTION, rkey = 'self' }) {
    const { did } = this.#account(handle)
    const at = { repo: did, collection, rkey }
    try {
      await this.#call('com.atproto.repo.deleteRecord', { body: at })
    } catch (e) {
      // It deletes the record, tells the firehose, and then refuses its own
      // answer with a 400; so look whether the record is there.
      const still = await this.#call('com.atproto.repo.getRecord', { params: at }).catch(() => null)
      if (still) throw e
    }
    return {}
  }

  operations() {
    return {
      'peer.start': async ({ handles = [] }) => this.start(handles),
      'peer.stop': async () => (await this.stop(), {}),
      // `record` as it is, or `keyPackage` fields to have one made.
      'peer.put': async ({ handle, collection = COLLECTION, rkey = 'self', record, keyPackage }) => {
        const account = this.#account(handle)
        const made = record ? { record } : keyPackageRecord(keyPackage)
        const answer = await this.#call('com.atproto.repo.putRecord', {
          body: { repo: account.did, collection, rkey, record: made.record },
        })
        return { ...answer, ...made }
      },
      'peer.delete': async (wanted) => this.#delete(wanted),
    }
  }
}

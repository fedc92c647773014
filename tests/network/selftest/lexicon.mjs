// The lexicon validator.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { script } from './driver.mjs'

const schema = {
  lexicon: 1,
  id: 'at.example.getThing',
  defs: {
    main: {
      type: 'query',
      parameters: { type: 'params', required: ['id'], properties: { id: { type: 'string', maxLength: 5 } } },
      output: { encoding: 'application/json', schema: { type: 'ref', ref: '#thing' } },
      errors: [{ name: 'ThingNotFound' }],
    },
    thing: { type: 'object', required: ['n'], properties: { n: { type: 'integer' }, raw: { type: 'bytes' } } },
  },
}
const putThing = {
  lexicon: 1,
  id: 'at.example.putThing',
  defs: {
    main: {
      type: 'procedure',
      input: { encoding: 'application/json', schema: { type: 'ref', ref: 'at.example.getThing#thing' } },
    },
  },
}
const record = {
  lexicon: 1,
  id: 'at.example.note',
  defs: {
    main: {
      type: 'record',
      key: 'tid',
      record: { type: 'object', required: ['text'], properties: { text: { type: 'string' } } },
    },
  },
}
const stream = {
  lexicon: 1,
  id: 'at.example.subscribeThings',
  defs: {
    main: { type: 'subscription', message: { schema: { type: 'union', refs: ['#added'] } } },
    added: { type: 'object', required: ['seq'], properties: { seq: { type: 'integer' } } },
  },
}

// Run the validator on `documents` {path: document}, give it `lines`, return what it says.
async function validate(documents, lines = []) {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'atcomm-lexicon-'))
  try {
    for (const [name, document] of Object.entries(documents)) {
      await fs.mkdir(path.dirname(path.join(directory, name)), { recursive: true })
      await fs.writeFile(path.join(directory, name), JSON.stringify(document))
    }
    const child = spawn(script('lexicon.sh'), [directory])
    const out = []
    const err = []
    child.stdout.on('data', (data) => out.push(data))
    child.stderr.on('data', (data) => err.push(data))
    child.stdin.on('error', () => {})
    child.stdin.end(lines.map((line) => JSON.stringify(line) + '\n').join(''))
    const code = await new Promise((resolve) => child.once('close', resolve))
    const answers = Buffer.concat(out).toString().split('\n').filter(Boolean).map((line) => JSON.parse(line))
    return { code, answers, talk: Buffer.concat(err).toString() }
  } finally {
    await fs.rm(directory, { recursive: true })
  }
}

export function lexiconChecks() {
  const all = { 'a/getThing.json': schema, 'a/b/putThing.json': putThing, 'note.json': record, 'stream.json': stream }
  const get = 'at.example.getThing'
  const put = 'at.example.putThing'
  const events = 'at.example.subscribeThings'
  const note = 'at.example.note'
  const notFound = { error: 'ThingNotFound', message: 'no such thing' }
  const cases = [
    [true, { nsid: get, kind: 'params', value: { id: 'x' } }],
    [false, { nsid: get, kind: 'params', value: {} }],
    [false, { nsid: get, kind: 'params', value: { id: 'too long' } }],
    [true, { nsid: get, kind: 'output', value: { n: 1, raw: { $bytes: 'AAEC' } } }],
    [false, { nsid: get, kind: 'output', value: { n: '1' } }],
    [true, { nsid: put, kind: 'input', value: { n: 1 } }],
    [false, { nsid: put, kind: 'input', value: {} }],
    [true, { nsid: note, kind: 'record', value: { $type: note, text: 'x' } }],
    [false, { nsid: note, kind: 'record', value: { text: 'x' } }],
    [true, { nsid: `${get}#thing`, kind: 'object', value: { n: 2 } }],
    [false, { nsid: `${get}#thing`, kind: 'object', value: { n: 1.5 } }],
    [true, { nsid: events, kind: 'message', value: { $type: `${events}#added`, seq: 1 } }],
    [false, { nsid: events, kind: 'message', value: { $type: `${events}#added` } }],
    [true, { nsid: get, kind: 'error', value: { status: 404, body: notFound } }],
    [false, { nsid: put, kind: 'error', value: { status: 404, body: notFound } }],
    [true, { nsid: put, kind: 'error', value: { status: 429, body: { error: 'RateLimitExceeded', message: 'x' } } }],
    [false, { nsid: put, kind: 'error', value: { status: 400, body: { error: 'RateLimitExceeded', message: 'x' } } }],
    [false, { nsid: get, kind: 'error', value: { status: 404, body: { error: 'ThingNotFound' } } }],
    [false, { nsid: 'at.example.unknown', kind: 'output', value: {} }],
    [false, { nsid: get, kind: 'nonsense', value: {} }],
  ]
  return [
    [
      'answers one line for each, of every kind',
      async () => {
        const { code, answers, talk } = await validate(all, cases.map(([, line]) => line))
        assert.equal(code, 0, talk)
        assert.deepEqual(
          answers.map((a) => a.ok),
          cases.map(([ok]) => ok),
          JSON.stringify(answers, null, 1),
        )
        assert.ok(answers.every((a) => a.ok || a.error))
      },
    ],
    [
      'refuses a bad document by its name',
      async () => {
        const wrong = { ...schema, defs: { main: { type: 'quarry' } } }
        const bad = await validate({ 'a/bad.json': wrong })
        assert.equal(bad.code, 1)
        assert.match(bad.talk, /a\/bad\.json/)
        const dangling = await validate({ 'put.json': putThing })
        assert.equal(dangling.code, 1)
        assert.match(dangling.talk, /at\.example\.putThing.*getThing#thing/)
        assert.equal((await validate({})).code, 1)
      },
    ],
  ]
}

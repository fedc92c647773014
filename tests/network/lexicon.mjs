#!/usr/bin/env node
// A lexicon validator on standard input and output.
//
// usage: lexicon.sh DIR
//
// Loads every *.json below DIR; a document that is not a valid lexicon, or that
// refers to a definition which is nowhere, ends it at once with exit code 1 and
// a line on stderr. Then each line of input is answered by one line:
//   {"nsid":"at.x.getY","kind":"output","value":{...}}  ->  {"ok":true} | {"ok":false,"error":"..."}
// Kinds: params, input, output, record, object (nsid#name), message (of a
// subscription, with $type), and error, whose value is {status, body}.
import fs from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { Lexicons, jsonToLex, parseLexiconDoc } from '@atproto/lexicon'

// Errors that any XRPC method may answer, with their status.
const GENERIC_ERRORS = {
  InvalidRequest: 400,
  ExpiredToken: 400,
  InvalidToken: 400,
  AuthenticationRequired: 401,
  AuthMissing: 401,
  BadJwt: 401,
  BadJwtAudience: 401,
  BadJwtIss: 401,
  BadJwtLexiconMethod: 401,
  BadJwtSignature: 401,
  JwtExpired: 401,
  Forbidden: 403,
  XRPCNotSupported: 404,
  NotAcceptable: 406,
  PayloadTooLarge: 413,
  UnsupportedMediaType: 415,
  RateLimitExceeded: 429,
  InternalServerError: 500,
  MethodNotImplemented: 501,
  UpstreamFailure: 502,
  NotEnoughResources: 503,
  UpstreamTimeout: 504,
}

async function load(directory) {
  const lexicons = new Lexicons()
  const entries = await fs.readdir(directory, { recursive: true })
  const names = entries.filter((name) => name.endsWith('.json')).sort()
  if (!names.length) throw new Error(`no *.json below ${directory}`)
  for (const name of names) {
    try {
      lexicons.add(parseLexiconDoc(JSON.parse(await fs.readFile(path.join(directory, name), 'utf8'))))
    } catch (e) {
      throw new Error(`${name}: ${reason(e)}`)
    }
  }
  // A dangling reference would otherwise show only when a value first meets it.
  for (const document of lexicons)
    for (const uri of references(document))
      if (!lexicons.getDef(uri)) throw new Error(`${document.id}: reference to ${uri}, which is not defined`)
  return lexicons
}

// After `add` every reference is a full lex: URI.
function* references(node) {
  if (node === null || typeof node !== 'object') return
  if (node.type === 'ref' && typeof node.ref === 'string') yield node.ref
  if (node.type === 'union' && Array.isArray(node.refs)) yield* node.refs
  for (const child of Object.values(node)) yield* references(child)
}

function check(lexicons, { nsid, kind, value }) {
  switch (kind) {
    case 'params':
      return lexicons.assertValidXrpcParams(nsid, value)
    case 'input':
      return lexicons.assertValidXrpcInput(nsid, jsonToLex(value))
    case 'output':
      return lexicons.assertValidXrpcOutput(nsid, jsonToLex(value))
    case 'record':
      return lexicons.assertValidRecord(nsid, jsonToLex(value))
    case 'message':
      return lexicons.assertValidXrpcMessage(nsid, jsonToLex(value))
    case 'object': {
      const result = lexicons.validate(nsid, jsonToLex(value))
      if (!result.success) throw result.error
      return
    }
    case 'error':
      return checkError(lexicons, nsid, value)
    default:
      throw new Error(`no kind ${kind}`)
  }
}

function checkError(lexicons, nsid, { status, body }) {
  const method = lexicons.getDefOrThrow(nsid, ['query', 'procedure', 'subscription'])
  if (!Number.isInteger(status) || status < 400 || status > 599) throw new Error(`status ${status} is not of an error`)
  if (body === null || typeof body !== 'object' || Array.isArray(body)) throw new Error('the body is not an object')
  for (const field of ['error', 'message'])
    if (typeof body[field] !== 'string' || !body[field]) throw new Error(`${field} is not a text`)
  const extra = Object.keys(body).filter((field) => !['error', 'message'].includes(field))
  if (extra.length) throw new Error(`unexpected field ${extra[0]}`)
  if ((method.errors ?? []).some(({ name }) => name === body.error)) return
  const expected = GENERIC_ERRORS[body.error]
  if (expected === undefined) throw new Error(`${body.error} is neither declared by ${nsid} nor generic`)
  if (status !== expected) throw new Error(`${body.error} goes with status ${expected}, not ${status}`)
}

// Schema errors come as a list of issues, all others with a plain message.
function reason(e) {
  if (!Array.isArray(e.issues)) return e.message
  return e.issues.map(({ path: at, message }) => `${at.join('.') || 'document'}: ${message}`).join('; ')
}

const directory = process.argv[2]
if (!directory) {
  console.error('usage: lexicon.sh DIR')
  process.exit(2)
}
let lexicons
try {
  lexicons = await load(directory)
} catch (e) {
  console.error(`lexicon: ${e.message}`)
  process.exit(1)
}
for await (const line of createInterface(process.stdin)) {
  if (!line.trim()) continue
  let answer = { ok: true }
  try {
    check(lexicons, JSON.parse(line))
  } catch (e) {
    answer = { ok: false, error: reason(e) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}

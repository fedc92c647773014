// Accounts, records, identities and names.
import assert from 'node:assert/strict'
import { listenTo, until } from './driver.mjs'
import { decodeFrame } from '../frames.mjs'

export function accountChecks(network, shape) {
  const { ready } = network
  const op = (name, body) => network.op(name, body)
  const status = async (pds, did) =>
    (await network.get(`${ready.pds[pds].url}/xrpc/com.atproto.sync.getRepoStatus?did=${encodeURIComponent(did)}`)).json
  const who = {}

  // What a subscriber of a PDS sees of `did` while `action` runs. It names its
  // cursor: a live one may still get the last event, or miss the first new one.
  const seen = async (pds, did, type, action, test = () => true) => {
    const { seq } = (await op('state')).pds[pds]
    const stream = await listenTo(`${ready.pds[pds].ws}?cursor=${seq}`)
    try {
      await action()
      return await until(() =>
        stream.frames
          .map(decodeFrame)
          .find(({ header, body }) => header.t === type && (body.did ?? body.repo) === did && test(body)),
      )
    } finally {
      stream.close()
    }
  }

  return [
    [
      'account.create with a key package, state',
      async () => {
        who.alice = await op('account.create', { name: 'alice', keyPackage: { label: 'Alice' } })
        who.bob = await op('account.create', { name: 'bob', pds: 1, keyPackage: {} })
        assert.match(who.alice.did, /^did:plc:/)
        assert.equal(who.alice.handle, 'alice.pds0.test')
        assert.equal(who.alice.keyPackage.label, 'Alice')
        assert.equal(Object.keys(who.alice.peer.keys).length, 2)
        const state = await op('state')
        assert.deepEqual(state.accounts.map((a) => a.name), ['alice', 'bob'])
        assert.equal(state.plc, ready.plc)
        assert.equal((await network.tryOp('account.create', { name: 'alice' })).status, 409)
      },
    ],
    [
      'DID document shape',
      async () => {
        const { json } = await network.document(who.alice.did)
        const [method] = json.verificationMethod
        assert.equal(json.id, who.alice.did)
        assert.equal(json.service[0].serviceEndpoint, ready.pds[0].url)
        if (shape === 'multikey') {
          assert.equal(method.type, 'Multikey')
          assert.equal(method.id, `${who.alice.did}#atproto`)
        } else {
          assert.equal(method.type, 'EcdsaSecp256k1VerificationKey2019')
          assert.equal(method.id, '#atproto')
        }
        assert.equal((await network.document('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')).status, 404)
      },
    ],
    [
      'record.put, record.delete, record.batch',
      async () => {
        const { did } = who.alice
        const keyPackage = { label: 'v2', mediators: ['did:web:other.test'] }
        const isUpdate = (body) => body.ops[0]?.action === 'update' && body.ops[0].path === `${ready.collection}/self`
        await seen(0, did, '#commit', () => op('record.put', { account: 'alice', keyPackage }), isUpdate)
        await op('record.put', { account: 'alice', record: { did: 42 } }) // garbage goes through too
        const isDelete = (body) => body.ops[0].action === 'delete'
        await seen(0, did, '#commit', () => op('record.delete', { account: 'alice' }), isDelete)
        const value = { $type: ready.collection, did: 'did:peer:0', mediators: [], createdAt: '2026-01-01T00:00:00Z' }
        const writes = [
          { action: 'create', collection: ready.collection, rkey: 'self', value },
          { action: 'create', collection: 'at.example.note', rkey: 'one', value: { $type: 'at.example.note' } },
        ]
        const isBatch = (body) => body.ops.length === 2
        await seen(0, did, '#commit', () => op('record.batch', { account: 'alice', writes }), isBatch)
        assert.equal((await network.getRecord(0, did)).status, 200)
      },
    ],
    [
      'account.deactivate, account.activate, account.takedown',
      async () => {
        const { did } = who.bob
        await op('account.deactivate', { account: 'bob' })
        assert.equal((await status(1, did)).status, 'deactivated')
        await seen(1, did, '#account', () => op('account.activate', { account: 'bob' }), (body) => body.active)
        await op('account.takedown', { account: 'bob' })
        assert.equal((await status(1, did)).status, 'takendown')
        await op('account.takedown', { account: 'bob', applied: false })
        assert.equal((await status(1, did)).active, true)
      },
    ],
    [
      'account.rename',
      async () => {
        const renamed = await op('account.rename', { account: 'alice', handle: 'alice.example.test' })
        assert.equal(renamed.handle, 'alice.example.test')
        const txt = await network.resolver().resolveTxt('_atproto.alice.example.test')
        assert.deepEqual(txt, [[`did=${who.alice.did}`]])
        assert.equal((await network.document(who.alice.did)).json.alsoKnownAs[0], 'at://alice.example.test')
        await assert.rejects(network.resolver().resolveTxt('_atproto.alice.pds0.test'))
      },
    ],
    [
      'account.rotate in three modes',
      async () => {
        const { did } = who.bob
        const key = async () => (await network.document(did)).json.verificationMethod[0].publicKeyMultibase
        const first = await key()
        const sync = await seen(1, did, '#sync', () => op('account.rotate', { account: 'bob' }))
        assert.ok(sync.body.blocks.length > 0)
        const second = await key()
        assert.notEqual(second, first)
        const identity = await seen(1, did, '#identity', () =>
          op('account.rotate', { account: 'bob', mode: 'plc-only' }),
        )
        assert.equal(identity.body.did, did)
        const third = await key()
        assert.notEqual(third, second)
        await op('account.rotate', { account: 'bob', mode: 'pds-only' })
        assert.equal(await key(), third)
        await op('account.rotate', { account: 'bob', mode: 'full' })
      },
    ],
    [
      'account.migrate',
      async () => {
        const { did } = await op('account.create', { name: 'carol', pds: 1, keyPackage: {} })
        const sync = await seen(0, did, '#sync', () => op('account.migrate', { account: 'carol', to: 0 }))
        assert.equal(sync.body.did, did)
        assert.equal((await network.document(did)).json.service[0].serviceEndpoint, ready.pds[0].url)
        assert.equal((await status(1, did)).status, 'deactivated')
        assert.equal((await network.getRecord(0, did)).status, 200)
        await op('record.put', { account: 'carol', keyPackage: { label: 'from the new home' } })
      },
    ],
    [
      'account.createWeb, web.open',
      async () => {
        const dave = await op('account.createWeb', { name: 'dave', keyPackage: { label: 'web' } })
        assert.match(dave.did, /^did:web:localhost%3A\d+$/)
        const { json } = await network.get(`${dave.web}/.well-known/did.json`)
        assert.equal(json.id, dave.did)
        assert.equal(json.service[0].serviceEndpoint, ready.pds[0].url)
        assert.equal((await status(0, dave.did)).active, true)
        const before = json.verificationMethod[0].publicKeyMultibase
        await op('account.rotate', { account: 'dave' })
        const after = (await network.get(`${dave.web}/.well-known/did.json`)).json.verificationMethod[0]
        assert.notEqual(after.publicKeyMultibase, before)
        assert.equal(after.type, shape === 'multikey' ? 'Multikey' : 'EcdsaSecp256k1VerificationKey2019')
        await op('record.put', { account: 'dave', keyPackage: {} })
        await op('account.deactivate', { account: 'dave' })
        await op('account.activate', { account: 'dave' })
        await op('account.migrate', { account: 'dave', to: 1 })
        assert.equal((await network.getRecord(1, dave.did)).status, 200)
        await op('account.delete', { account: 'dave', tombstone: true })
        assert.equal((await network.get(`${dave.web}/.well-known/did.json`)).status, 404)
        const site = await op('web.open')
        assert.equal(site.did, `did:web:localhost%3A${new URL(site.url).port}`)
      },
    ],
    [
      'plc.update, events.identity, events.sync',
      async () => {
        const { did } = who.alice
        const data = await op('plc.update', { account: 'alice', set: { alsoKnownAs: ['at://liar.test'] } })
        assert.deepEqual(data.alsoKnownAs, ['at://liar.test'])
        const services = { ...data.services, didcomm_keys: { type: 'DidcommKeys', endpoint: 'http://localhost:1' } }
        await op('plc.update', { account: 'alice', set: { services }, quiet: true })
        assert.equal((await network.document(did)).json.service.length, 2)
        await seen(0, did, '#identity', () => op('events.identity', { account: 'alice' }))
        await seen(0, did, '#sync', () => op('events.sync', { account: 'alice' }))
      },
    ],
    [
      'session, serviceAuth',
      async () => {
        const { accessJwt } = await op('session', { account: 'alice' })
        const session = await network.get(`${ready.pds[0].url}/xrpc/com.atproto.server.getSession`, {
          headers: { authorization: `Bearer ${accessJwt}` },
        })
        assert.equal(session.json.did, who.alice.did)
        const { token } = await op('serviceAuth', { account: 'alice', aud: 'did:web:service.test', lxm: 'at.didcomm.x' })
        const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
        assert.equal(claims.iss, who.alice.did)
        assert.equal(claims.aud, 'did:web:service.test')
      },
    ],
    [
      'account.delete with and without a tombstone',
      async () => {
        const erin = await op('account.create', { name: 'erin' })
        const isDeleted = (body) => body.status === 'deleted'
        await seen(0, erin.did, '#account', () => op('account.delete', { account: 'erin' }), isDeleted)
        assert.equal((await network.document(erin.did)).status, 200)
        const frank = await op('account.create', { name: 'frank' })
        await op('account.delete', { account: 'frank', tombstone: true })
        assert.equal((await network.document(frank.did)).status, 404)
      },
    ],
    [
      'dns.set, dns.queries',
      async () => {
        const resolver = network.resolver()
        const set = (name, answer) => op('dns.set', { name, ...answer })
        const name = '_atproto.alice.example.test'
        await set(name, { txt: ['did=did:plc:one', 'did=did:plc:two', 'x'.repeat(300)] })
        const texts = (await resolver.resolveTxt(name)).map((chunks) => chunks.join(''))
        assert.deepEqual(texts, ['did=did:plc:one', 'did=did:plc:two', 'x'.repeat(300)])
        await set(name, { rcode: 2 })
        await assert.rejects(resolver.resolveTxt(name), { code: 'ESERVFAIL' })
        await set(name, { drop: true })
        await assert.rejects(resolver.resolveTxt(name), { code: 'ETIMEOUT' })
        await set(name, { txt: null })
        assert.deepEqual(await resolver.resolveTxt(name), [[`did=${who.alice.did}`]])
        await set('inside.test', { a: '169.254.169.254', aaaa: ['::1', '::ffff:10.0.0.1', 'fe80::1'] })
        assert.deepEqual(await resolver.resolve4('inside.test'), ['169.254.169.254'])
        assert.deepEqual(await resolver.resolve6('inside.test'), ['::1', '::ffff:10.0.0.1', 'fe80::1'])
        await set('inside.test', { a: ['10.0.0.1', '127.0.0.1'] })
        assert.deepEqual(await resolver.resolve4('inside.test'), ['10.0.0.1', '127.0.0.1'])
        assert.equal((await network.tryOp('dns.set', { name: 'x.test', a: 'localhost' })).status, 400)
        const queries = await op('dns.queries', { name: 'inside.test', reset: true })
        assert.equal(queries.length, 3)
        assert.equal((await op('dns.queries', { name: 'inside.test' })).length, 0)
      },
    ],
  ]
}

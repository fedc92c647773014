// Hosts that hang, refuse, stop and count.
import assert from 'node:assert/strict'
import http from 'node:http'
import { decodeFrame } from '../frames.mjs'
import { listenTo, sleep, until } from './driver.mjs'

export function faultChecks(network) {
  const { ready } = network
  const op = (name, body) => network.op(name, body)
  const [pds0] = ready.pds
  const health = (options) => network.get(`${pds0.url}/xrpc/_health`, options)
  const hangs = { name: 'TimeoutError' }

  return [
    [
      'pds.hang: requests wait, streams flow, the control port passes',
      async () => {
        const stream = await listenTo(pds0.ws)
        await op('pds.hang', { pds: 0 })
        await assert.rejects(health({ timeoutMs: 300 }), hangs)
        await assert.rejects(Promise.race([listenTo(pds0.ws), sleep(300).then(() => Promise.reject(new Error('hung')))]), {
          message: 'hung',
        })
        await op('record.put', { account: 'alice', keyPackage: { label: 'while it hangs' } })
        await until(() => stream.frames.length)
        await op('pds.hang', { pds: 0, on: false })
        assert.equal((await health()).status, 200)
        stream.close()
      },
    ],
    [
      'pds.hang with silent streams, with a path, with headers sent',
      async () => {
        const stream = await listenTo(pds0.ws)
        await op('pds.hang', { pds: 0, sockets: 'stop' })
        await op('record.put', { account: 'alice', keyPackage: { label: 'not seen' } })
        await sleep(300)
        assert.equal(stream.frames.length, 0)
        await op('pds.hang', { pds: 0, on: false })
        await until(() => stream.frames.length)
        assert.equal(decodeFrame(stream.frames[0]).header.t, '#commit')
        stream.close()
        await op('pds.hang', { pds: 0, path: '/xrpc/com.atproto.sync.getRecord' })
        assert.equal((await health()).status, 200)
        await op('pds.hang', { pds: 0, headers: true })
        const status = await new Promise((resolve) => {
          const req = http.get(`${pds0.url}/xrpc/_health`, (res) => {
            resolve(res.statusCode)
            req.destroy()
          })
          req.on('error', () => {})
        })
        assert.equal(status, 200)
        await op('pds.hang', { pds: 0, on: false })
      },
    ],
    [
      'pds.requests, pds.limit',
      async () => {
        await op('pds.requests', { pds: 0, reset: true })
        await op('record.put', { account: 'alice', keyPackage: {} }) // the control port's own are not counted
        assert.equal((await op('pds.requests', { pds: 0, path: '/xrpc/com.atproto.repo' })).total, 0)
        await op('pds.limit', { pds: 0, retryAfter: 7, count: 2, path: '/xrpc/_health' })
        const answers = [await health(), await health(), await health()]
        assert.deepEqual(answers.map((a) => a.status), [429, 429, 200])
        assert.equal(answers[0].headers.get('retry-after'), '7')
        assert.equal(answers[0].json.error, 'RateLimitExceeded')
        const got = await op('pds.requests', { pds: 0, log: true })
        assert.equal(got.paths['/xrpc/_health'], 3)
        assert.deepEqual(
          got.log.filter((e) => e.url === '/xrpc/_health').map((e) => e.outcome),
          ['answered 429', 'answered 429', 'passed'],
        )
        await op('pds.limit', { pds: 0, status: 503, path: '/xrpc/com.atproto.sync.subscribeRepos' })
        await assert.rejects(listenTo(pds0.ws), /503/)
        await op('pds.limit', { pds: 0, count: 100, agent: 'somebody else' })
        assert.equal((await health()).status, 200)
        await op('pds.limit', { pds: 0, count: 0 })
      },
    ],
    [
      'pds.stop, pds.start: the stream goes on where it was',
      async () => {
        const stream = await listenTo(`${pds0.ws}?cursor=0`)
        await until(() => stream.frames.length > 3)
        const held = op('pds.hang', { pds: 0 }).then(() => health().catch((e) => e))
        await sleep(200)
        const startedAt = Date.now()
        await op('pds.stop', { pds: 0 })
        assert.ok(Date.now() - startedAt < 4000, 'a held request delays the stop')
        await held
        await until(() => stream.closed)
        assert.equal((await op('state')).pds[0].up, false)
        assert.equal((await network.tryOp('events.sync', { account: 'alice' })).status, 409)
        await op('pds.hang', { pds: 0, on: false })
        await op('pds.start', { pds: 0 })
        const last = decodeFrame(stream.frames.at(-1)).body.seq
        const again = await listenTo(`${pds0.ws}?cursor=${last}`)
        await op('record.put', { account: 'alice', keyPackage: { label: 'after the stop' } })
        await until(() => again.frames.length)
        assert.equal(decodeFrame(again.frames[0]).body.seq, last + 1)
        again.close()
      },
    ],
    [
      'plc.requests, plc.fail, plc.hang, plc.stop, plc.start',
      async () => {
        const { did } = await op('state').then((state) => state.accounts[0])
        await op('plc.requests', { reset: true })
        await op('plc.fail', { status: 503, count: 1, path: `/${did}` })
        assert.equal((await network.document(did)).status, 503)
        assert.equal((await network.document(did)).status, 200)
        assert.equal((await op('plc.requests')).paths[`/${did}`], 2)
        await op('plc.hang')
        await assert.rejects(network.get(`${ready.plc}/${did}`, { timeoutMs: 300 }), hangs)
        await op('plc.hang', { on: false })
        await op('plc.stop')
        await assert.rejects(network.document(did))
        await op('plc.start')
        assert.equal((await network.document(did)).status, 200)
      },
    ],
    [
      'web.set, web.requests, web.hang',
      async () => {
        const { host } = new URL(ready.web)
        const did = `did:web:${host.replace(':', '%3A')}`
        await op('web.requests', { reset: true })
        await op('web.set', { host, path: '/.well-known/did.json', body: { id: did } })
        assert.equal((await network.get(`${ready.web}/.well-known/did.json`)).json.id, did)
        // Another host's name on the same port: fetch will not send a Host of its own choice.
        const byHost = (name) =>
          new Promise((resolve, reject) => {
            const url = `${ready.web}/.well-known/atproto-did`
            http.get(url, { headers: { host: name } }, (res) => res.setEncoding('utf8').on('data', resolve)).on('error', reject)
          })
        await op('web.set', { host: 'alice.test', path: '/.well-known/atproto-did', body: 'did:plc:one' })
        await op('web.set', { path: '/.well-known/atproto-did', body: 'did:plc:any' })
        assert.equal(await byHost('alice.test'), 'did:plc:one')
        assert.equal(await byHost('bob.test'), 'did:plc:any')
        await op('web.set', { path: '/moved', redirect: 'http://169.254.169.254/' })
        const moved = await network.get(`${ready.web}/moved`)
        assert.equal(moved.status, 302)
        assert.equal(moved.headers.get('location'), 'http://169.254.169.254/')
        await op('web.set', { path: '/slow', status: 500, body: 'late', contentType: 'text/html', delayMs: 200 })
        const startedAt = Date.now()
        const slow = await network.get(`${ready.web}/slow`)
        assert.deepEqual([slow.status, slow.text, slow.headers.get('content-type')], [500, 'late', 'text/html'])
        assert.ok(Date.now() - startedAt >= 190)
        await op('web.set', { path: '/large', body: 'x'.repeat(1000), repeat: 3000 })
        assert.equal((await network.get(`${ready.web}/large`)).bytes.length, 3_000_000)
        await op('web.set', { path: '/slow', body: null })
        assert.equal((await network.get(`${ready.web}/slow`)).status, 404)
        await op('web.hang', { path: '/large' })
        await assert.rejects(network.get(`${ready.web}/large`, { timeoutMs: 300 }), hangs)
        await op('web.hang', { on: false })
        assert.equal((await op('web.requests')).paths['/.well-known/atproto-did'], 2)
      },
    ],
  ]
}

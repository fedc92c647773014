// The PDS of another implementation.
import assert from 'node:assert/strict'
import { decodeFrame } from '../frames.mjs'
import { listenTo, until } from './driver.mjs'

export function peerChecks(network) {
  const op = (name, body) => network.op(name, body)
  return [
    [
      'peer.start, peer.put, peer.delete, peer.stop',
      async () => {
        const peer = await op('peer.start', { handles: ['erin.peer.test', 'frank.peer.test'] })
        assert.equal(peer.accounts.length, 2)
        const [{ handle, did }] = peer.accounts
        assert.equal((await network.document(did)).json.service[0].serviceEndpoint, peer.url)
        assert.deepEqual(await network.resolver().resolveTxt(`_atproto.${handle}`), [[`did=${did}`]])
        assert.equal((await network.tryOp('peer.start')).status, 409)
        const stream = await listenTo(peer.ws)
        const made = await op('peer.put', { handle, keyPackage: { label: 'Erin' } })
        assert.equal(made.record.label, 'Erin')
        assert.equal(Object.keys(made.peer.keys).length, 2)
        const commit = await until(() => stream.frames.map(decodeFrame).find(({ header }) => header.t === '#commit'))
        assert.equal(commit.body.repo, did)
        const params = new URLSearchParams({ did, collection: network.ready.collection, rkey: 'self' })
        const record = () => network.get(`${peer.url}/xrpc/com.atproto.sync.getRecord?${params}`)
        assert.equal((await record()).status, 200)
        assert.deepEqual(await op('peer.delete', { handle }), {})
        assert.equal((await record()).status, 400)
        const { ws: relayed } = await op('firehose.start', { from: peer.url })
        const relay = await listenTo(`${relayed}?cursor=0`)
        await until(() => relay.frames.length)
        await op('firehose.stop')
        assert.deepEqual((await op('state')).peer, peer)
        stream.close()
        await op('peer.stop')
        await assert.rejects(fetch(peer.url))
        await assert.rejects(network.resolver().resolveTxt(`_atproto.${handle}`))
        assert.equal((await op('state')).peer, null)
      },
    ],
  ]
}

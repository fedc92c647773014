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
        // Without a cursor this implementation may lose what happens right after the opening.
        const stream = await listenTo(`${peer.ws}?cursor=0`)
        const made = await op('peer.put', { handle, keyPackage: { label: 'Erin' } })
        assert.equal(made.record.label, 'Erin')
        assert.equal(Object.keys(made.peer.keys).length, 2)
        const isMade = ({ header, body }) => header.t === '#commit' && body.repo === did && body.ops.length === 1
        await until(() => stream.frames.map(decodeFrame).find(isMade), 10_000)
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

// The Jetstream and the firehose that lies.
import assert from 'node:assert/strict'
import { decodeFrame } from '../frames.mjs'
import { listenTo, sleep, until } from './driver.mjs'

export function streamChecks(network) {
  const { ready } = network
  const op = (name, body) => network.op(name, body)
  const put = (label, account = 'alice') => op('record.put', { account, keyPackage: { label } })
  const parsed = (stream) => stream.frames.map((frame) => JSON.parse(frame))
  const labels = (stream) => parsed(stream).filter((e) => e.commit?.record).map((e) => e.commit.record.label)
  let jetstream

  return [
    [
      'jetstream.start: history, live, filters and cursors',
      async () => {
        jetstream = await op('jetstream.start', { pds: [0, 1] })
        const { did } = (await op('state')).accounts.find((a) => a.name === 'alice')
        const live = await listenTo(`${jetstream.ws}?wantedCollections=${ready.collection}`)
        const mine = await listenTo(`${jetstream.ws}?wantedDids=${did}`)
        const other = await listenTo(`${jetstream.ws}?wantedCollections=at.example.*`)
        await put('one')
        const event = await until(() => parsed(live).find((e) => e.commit?.record?.label === 'one'))
        assert.deepEqual(Object.keys(event), ['did', 'time_us', 'kind', 'commit'])
        assert.deepEqual(Object.keys(event.commit), ['rev', 'operation', 'collection', 'rkey', 'record', 'cid'])
        assert.equal(event.commit.operation, 'update')
        await op('record.delete', { account: 'alice' })
        const gone = await until(() => parsed(live).find((e) => e.commit?.operation === 'delete'))
        assert.equal(gone.commit.record, undefined)
        await op('events.identity', { account: 'bob' })
        await op('events.sync', { account: 'bob' })
        await op('account.takedown', { account: 'bob' })
        await op('account.takedown', { account: 'bob', applied: false })
        await until(() => parsed(other).filter((e) => e.kind === 'account').length === 2)
        assert.deepEqual([...new Set(parsed(other).map((e) => e.kind))].sort(), ['account', 'identity'])
        assert.ok(parsed(mine).every((e) => e.did === did))
        const replay = await listenTo(`${jetstream.ws}?cursor=${event.time_us}`)
        await until(() => replay.frames.length >= 5)
        assert.deepEqual(parsed(replay)[0], event)
        const all = await listenTo(`${jetstream.ws}?cursor=0`)
        await until(() => all.frames.length === replay.frames.length + parsed(all).findIndex((e) => e.time_us === event.time_us))
        const times = parsed(all).map((e) => e.time_us)
        assert.ok(times.every((t, i) => i === 0 || t > times[i - 1]))
        assert.ok(new Set(parsed(all).map((e) => e.did)).size > 2)
        await assert.rejects(listenTo(`${jetstream.ws}?wantedCollections=nonsense`), /400/)
        for (const stream of [live, mine, other, replay, all]) stream.close()
      },
    ],
    [
      'jetstream.inject, jetstream.skip, jetstream.drop, jetstream.stop',
      async () => {
        const stream = await listenTo(`${jetstream.ws}?wantedCollections=${ready.collection}`)
        assert.deepEqual(await op('jetstream.inject', { text: '{not json' }), { sent: 1 })
        await op('jetstream.inject', { json: { did: 'did:plc:x', kind: 'mystery' } })
        await until(() => stream.frames.length === 2)
        assert.equal(stream.frames[0], '{not json')
        await op('jetstream.skip', { count: 1 })
        await put('lost')
        await put('kept')
        await until(() => stream.frames.length === 3)
        assert.equal(JSON.parse(stream.frames[2]).commit.record.label, 'kept')
        const replay = await listenTo(`${jetstream.ws}?cursor=0`)
        await until(() => labels(replay).includes('kept'))
        assert.ok(!labels(replay).includes('lost'))
        assert.deepEqual(await op('jetstream.drop'), { dropped: 2 })
        await until(() => stream.closed !== null)
        const second = await op('jetstream.start', { pds: [1], history: false })
        assert.notEqual(second.id, jetstream.id)
        assert.equal((await op('state')).jetstreams.length, 2)
        await op('jetstream.stop', { id: second.id })
        await op('jetstream.stop')
        await assert.rejects(listenTo(jetstream.ws))
        assert.equal((await network.tryOp('jetstream.drop')).status, 404)
      },
    ],
    [
      'a jetstream follows a PDS through its restart',
      async () => {
        const { ws, id } = await op('jetstream.start', { pds: [0] })
        const stream = await listenTo(ws)
        await op('pds.stop', { pds: 0 })
        await op('pds.start', { pds: 0 })
        await put('after the restart')
        await until(() => labels(stream).includes('after the restart'))
        await op('jetstream.stop', { id })
      },
    ],
    [
      'firehose.start, firehose.inject, firehose.skip, firehose.drop, firehose.stop',
      async () => {
        const firehose = await op('firehose.start', { from: 0 })
        const stream = await listenTo(`${firehose.ws}?cursor=0`)
        await until(() => stream.frames.length > 3)
        assert.equal(decodeFrame(stream.frames[0]).body.seq, 1)
        const repos = await network.get(`${firehose.url}/xrpc/com.atproto.sync.listRepos`)
        assert.ok(repos.json.repos.length > 0)
        await sleep(200)
        stream.frames.length = 0
        assert.deepEqual(await op('firehose.inject', { hex: 'a0ff' }), { sent: 1 })
        await op('firehose.inject', { base64: Buffer.from('hello').toString('base64') })
        await op('firehose.inject', { header: { op: 1, t: '#future' }, body: { seq: 1, x: { $bytes: 'AAEC' } } })
        await op('firehose.inject', { text: 'text' })
        await op('firehose.inject', { hex: '00', repeat: 6_000_000 })
        await until(() => stream.frames.length === 5)
        const [hex, base64, future, text, large] = stream.frames
        assert.equal(hex.toString('hex'), 'a0ff')
        assert.equal(base64.toString(), 'hello')
        assert.deepEqual([...decodeFrame(future).body.x], [0, 1, 2])
        assert.equal(text, 'text')
        assert.equal(large.length, 6_000_000)
        stream.frames.length = 0
        await op('firehose.skip', { count: 1 })
        await put('lost')
        await put('kept')
        await until(() => stream.frames.length)
        await sleep(100)
        assert.equal(stream.frames.length, 1)
        assert.deepEqual(await op('firehose.drop'), { dropped: 1 })
        await until(() => stream.closed !== null)
        assert.equal((await network.tryOp('firehose.inject', {})).status, 400)
        await op('firehose.stop')
        await assert.rejects(listenTo(firehose.ws))
      },
    ],
  ]
}

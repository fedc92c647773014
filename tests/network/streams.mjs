// The control operations of the test servers for streams: any number of
// Jetstreams, relays and untrustworthy firehoses, each known by the id that its start
// returned.
import { Failure } from './failure.mjs'
import { Firehose, frameBytes } from './firehose.mjs'
import { Jetstream } from './jetstream.mjs'
import { Relay } from './relay.mjs'

class Group {
  #members = new Map()
  #next = 0

  add(member) {
    const id = this.#next++
    this.#members.set(id, member)
    return { id, ...member.describe() }
  }

  // Without an id, the only one or the first of those that run.
  pick(id = this.#members.keys().next().value) {
    const member = this.#members.get(id)
    if (!member) throw new Failure(404, `none runs with id ${id}`)
    return { id, member }
  }

  stop(id) {
    const picked = this.pick(id)
    picked.member.stop()
    this.#members.delete(picked.id)
  }

  close() {
    for (const member of this.#members.values()) member.stop()
    this.#members.clear()
  }

  describe() {
    return [...this.#members].map(([id, member]) => ({ id, ...member.describe() }))
  }
}

export class Streams {
  jetstreams = new Group()
  firehoses = new Group()
  relays = new Group()

  close() {
    this.jetstreams.close()
    this.firehoses.close()
    this.relays.close()
  }

  operations({ accounts, hosts }) {
    const { jetstreams, firehoses, relays } = this
    return {
      'jetstream.start': async ({ pds = hosts.map((_, index) => index), history, numbers }) =>
        jetstreams.add(await Jetstream.start(pds.map((index) => accounts.host(index)), { history, numbers })),
      'jetstream.stop': async ({ id }) => (jetstreams.stop(id), {}),
      'jetstream.inject': async ({ id, json, text }) => ({
        sent: jetstreams.pick(id).member.inject(text ?? JSON.stringify(json)),
      }),
      'jetstream.drop': async ({ id }) => ({ dropped: jetstreams.pick(id).member.drop() }),
      'jetstream.skip': async ({ id, count }) => (jetstreams.pick(id).member.skip(count), {}),
      'jetstream.set': async ({ id, ...how }) => (jetstreams.pick(id).member.set(how), {}),
      'jetstream.wipe': async ({ id, ...how }) => (jetstreams.pick(id).member.wipe(how), {}),

      // from: the index of a PDS, or the URL of any host (the peer's, say).
      'firehose.start': async ({ from = 0 }) =>
        firehoses.add(
          typeof from === 'string'
            ? await Firehose.start(from)
            : await Firehose.start(accounts.host(from).url, accounts.host(from)),
        ),
      'firehose.stop': async ({ id }) => (firehoses.stop(id), {}),
      'firehose.inject': async ({ id, text, keep, times = 1, ...frame }) => {
        const { member } = firehoses.pick(id)
        let sent = 0
        for (let time = 0; time < times; time++) {
          sent = await (text === undefined
            ? member.inject(frameBytes(frame), { keep })
            : member.inject(text, { binary: false }))
        }
        return { sent }
      },
      'firehose.drop': async ({ id }) => ({ dropped: firehoses.pick(id).member.drop() }),
      'firehose.skip': async ({ id, count }) => (await firehoses.pick(id).member.skip(count), {}),

      'relay.start': async ({ pds = hosts.map((_, index) => index), manners, list }) =>
        relays.add(await Relay.start(pds.map((index) => accounts.host(index)), { manners, list })),
      'relay.stop': async ({ id }) => (relays.stop(id), {}),
      'relay.drop': async ({ id }) => ({ dropped: relays.pick(id).member.drop() }),
      'relay.set': async ({ id, ...how }) => (relays.pick(id).member.set(how), {}),
      'relay.wipe': async ({ id, ...how }) => (relays.pick(id).member.wipe(how), {}),
      'relay.describe': async ({ id }) => relays.pick(id).member.describe(),
    }
  }
}

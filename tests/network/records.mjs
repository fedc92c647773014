// Records in the accounts' repositories, the key package first of all.
import { newPeerDid } from './peerdid.mjs'

export const COLLECTION = 'at.didcomm.keyPackage'

/**
 * A key package record of `fields` {mediators, label, did, createdAt}. Without
 * a `did` a fresh did:peer:2 is made; its private keys come along as `peer`.
 */
export function keyPackageRecord({ did, mediators = ['did:web:mediator.test'], label, createdAt } = {}) {
  const peer = did ? undefined : newPeerDid(mediators)
  const record = {
    $type: COLLECTION,
    did: did ?? peer.did,
    mediators,
    createdAt: createdAt ?? new Date().toISOString(),
    ...(label !== undefined && { label }),
  }
  return { record, peer }
}

export class Records {
  #accounts

  constructor(accounts) {
    this.#accounts = accounts
  }

  // `validate: false` lets anything through that is DAG-CBOR: hostile records
  // from a real PDS are that easy to make.
  async put(account, { collection = COLLECTION, rkey = 'self', record, keyPackage, swapRecord }) {
    const made = record ? { record } : keyPackageRecord(keyPackage)
    const answer = await this.#accounts.call(account, 'com.atproto.repo.putRecord', {
      body: { repo: account.did, collection, rkey, record: made.record, validate: false, swapRecord },
    })
    if (made.peer) account.peer = made.peer
    if (collection === COLLECTION && rkey === 'self') account.keyPackage = made.record
    return { ...answer, record: made.record, peer: account.peer }
  }

  operations() {
    const accounts = this.#accounts
    return {
      // Give `record` as it is to be stored, or `keyPackage` fields to have one made.
      'record.put': async ({ account, ...write }) => this.put(accounts.find(account), write),

      'record.delete': async ({ account: key, collection = COLLECTION, rkey = 'self' }) => {
        const account = accounts.find(key)
        const answer = await accounts.call(account, 'com.atproto.repo.deleteRecord', {
          body: { repo: account.did, collection, rkey },
        })
        if (collection === COLLECTION && rkey === 'self') delete account.keyPackage
        return answer
      },

      // Several writes in one commit: [{action: 'create'|'update'|'delete', collection, rkey, value}]
      'record.batch': async ({ account: key, writes }) => {
        const account = accounts.find(key)
        const typed = writes.map(({ action, ...write }) => ({
          $type: `com.atproto.repo.applyWrites#${action}`,
          ...write,
        }))
        return accounts.call(account, 'com.atproto.repo.applyWrites', {
          body: { repo: account.did, validate: false, writes: typed },
        })
      },
    }
  }
}

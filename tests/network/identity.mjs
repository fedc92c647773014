// What an account's identity is made of: keys, DID documents, moves between
// PDSes, and the events that tell of them. did:plc accounts change by signed
// directory operations, did:web accounts by another document on a web host.
import crypto from 'node:crypto'
import fs from 'node:fs/promises'
import { Secp256k1Keypair } from '@atproto/crypto'
import { Failure } from './failure.mjs'
import { xrpc } from './xrpc.mjs'

export class Identity {
  #accounts
  #directory
  #hosts
  #web

  constructor({ accounts, directory, hosts, web }) {
    this.#accounts = accounts
    this.#directory = directory
    this.#hosts = hosts
    this.#web = web
  }

  // The PLC rotation key that may change this DID now: that of one of our PDSes.
  async #signer(did) {
    const { rotationKeys } = await this.#directory.data(did)
    const host = this.#hosts.find((h) => rotationKeys.includes(h.rotationKey.did()))
    if (!host) throw new Failure(409, `no rotation key known here for ${did}`)
    return host.rotationKey
  }

  /** Change the identity data {alsoKnownAs, verificationMethods, services, rotationKeys}. */
  async change(account, change) {
    if (account.web) {
      account.web.data = { ...account.web.data, ...change(account.web.data) }
      this.#web.serveDocument(account.web.data)
    } else {
      await this.#directory.update(account.did, await this.#signer(account.did), change)
    }
  }

  data(account) {
    return account.web ? account.web.data : this.#directory.data(account.did)
  }

  async tombstone(account) {
    if (account.web) this.#web.dropDocument(account.did)
    else await this.#directory.tombstone(account.did, await this.#signer(account.did))
  }

  #setKey(account, key) {
    return this.change(account, (last) => ({
      ...last,
      verificationMethods: { ...last.verificationMethods, atproto: key.did() },
    }))
  }

  async #rotate(account, mode) {
    const { actorStore, sequencer } = this.#accounts.hostOf(account).context
    const key = await Secp256k1Keypair.create({ exportable: true })
    if (mode !== 'plc-only') {
      const { keyLocation } = await actorStore.getLocation(account.did)
      await fs.writeFile(keyLocation, await key.export())
    }
    if (mode !== 'pds-only') await this.#setKey(account, key)
    if (mode === 'full') {
      const sync = await actorStore.transact(account.did, async (store) => {
        await store.repo.processWrites([]) // an empty commit, signed with the new key
        return store.repo.getSyncEventData()
      })
      await sequencer.sequenceIdentity(account.did)
      await sequencer.sequenceSync(account.did, sync)
    } else if (mode === 'plc-only') {
      await sequencer.sequenceIdentity(account.did)
    }
    return { signingKey: key.did() }
  }

  // Invitation by service token, repository export and import, directory
  // update, activation there, deactivation here.
  async #migrate(account, { to, handle = account.handle, deleteOld }) {
    const accounts = this.#accounts
    const [from, dest] = [accounts.hostOf(account), accounts.host(to)]
    const token = await accounts.session(account)
    const invitation = await accounts.call(account, 'com.atproto.server.getServiceAuth', {
      params: { aud: dest.did, lxm: 'com.atproto.server.createAccount' },
    })
    accounts.handles.set(handle, account.did)
    const made = await this.#join(dest, account, handle, invitation.token)
    const car = await xrpc(from.url, 'com.atproto.sync.getRepo', { params: { did: account.did } })
    await xrpc(dest.url, 'com.atproto.repo.importRepo', {
      token: made.accessJwt,
      rawBody: car,
      headers: { 'content-type': 'application/vnd.ipld.car' },
    })
    await this.#settle(dest, account, made.accessJwt)
    if (deleteOld) await accounts.admin(from, 'com.atproto.admin.deleteAccount', { did: account.did })
    else await xrpc(from.url, 'com.atproto.server.deactivateAccount', { token, body: {} })
    if (handle !== account.handle) accounts.handles.delete(account.handle)
    account.handle = handle
    account.pds = to
    accounts.keepToken(account, made.accessJwt)
  }

  // An account for a DID that exists already, let in by a token in its name.
  #join(host, { did, email, password }, handle, token) {
    return xrpc(host.url, 'com.atproto.server.createAccount', { token, body: { did, handle, email, password } })
  }

  // Point the identity at this PDS (its key, its URL) and start the account there.
  async #settle(host, account, token) {
    const wanted = await xrpc(host.url, 'com.atproto.identity.getRecommendedDidCredentials', { token })
    await this.change(account, (last) => ({ ...last, ...wanted }))
    await this.activate(account, host, token)
  }

  // Before it activates an account the PDS compares keys, and for did:web it
  // understands only the Multikey shape; so that one is shown meanwhile.
  async activate(account, host, token) {
    if (account.web) this.#web.serveDocument(account.web.data, { multikey: true })
    try {
      await xrpc(host.url, 'com.atproto.server.activateAccount', { token, method: 'POST' })
    } finally {
      if (account.web) this.#web.serveDocument(account.web.data)
    }
  }

  // did:web has no paths in atproto, so every such account has a port of its own.
  async #createWeb(wanted) {
    const accounts = this.#accounts
    const account = accounts.draft(wanted)
    const host = accounts.hostOf(account)
    const site = await this.#web.open()
    const key = await Secp256k1Keypair.create({ exportable: true })
    account.did = site.did
    account.web = {
      url: site.url,
      data: {
        did: site.did,
        alsoKnownAs: [`at://${account.handle}`],
        verificationMethods: { atproto: key.did() },
        services: { atproto_pds: { type: 'AtprotoPersonalDataServer', endpoint: host.url } },
      },
    }
    this.#web.serveDocument(account.web.data)
    accounts.handles.set(account.handle, account.did)
    const token = await serviceToken(key, {
      iss: account.did,
      aud: host.did,
      lxm: 'com.atproto.server.createAccount',
    })
    const made = await this.#join(host, account, account.handle, token)
    await this.#settle(host, account, made.accessJwt)
    accounts.keepToken(account, made.accessJwt)
    accounts.add(account)
    return account
  }

  operations({ records }) {
    const accounts = this.#accounts
    return {
      'account.createWeb': async ({ keyPackage, ...wanted }) => {
        const account = await this.#createWeb(wanted)
        if (keyPackage) await records.put(account, { keyPackage })
        return accounts.view(account)
      },

      // 'full': a new key in the PDS and the directory, identity and sync
      //   events, as an operator's rotation does.
      // 'plc-only': the directory moves on and the PDS keeps signing with the
      //   old key (its later commits must be refused).
      // 'pds-only': the PDS signs with a key that the directory does not list.
      'account.rotate': async ({ account, mode = 'full' }) => {
        if (!['full', 'plc-only', 'pds-only'].includes(mode)) throw new Failure(400, `no rotation mode ${mode}`)
        return this.#rotate(accounts.find(account), mode)
      },

      // The handle is kept unless `handle` says otherwise.
      'account.migrate': async ({ account: key, to, handle, deleteOld = false }) => {
        const account = accounts.find(key)
        await this.#migrate(account, { to, handle, deleteOld })
        return accounts.view(account)
      },

      // Any change to the identity's data, such as {services: {...}}; an
      // identity event makes subscribers look again (unless quiet).
      'plc.update': async ({ account: key, set, quiet = false }) => {
        const account = accounts.find(key)
        await this.change(account, (last) => ({ ...last, ...set }))
        if (!quiet) await accounts.hostOf(account).context.sequencer.sequenceIdentity(account.did)
        return this.data(account)
      },

      'events.identity': async ({ account: key }) => {
        const account = accounts.find(key)
        await accounts.hostOf(account).context.sequencer.sequenceIdentity(account.did)
        return {}
      },

      'events.sync': async ({ account: key }) => {
        const account = accounts.find(key)
        const { actorStore, sequencer } = accounts.hostOf(account).context
        const data = await actorStore.read(account.did, (store) => store.repo.getSyncEventData())
        await sequencer.sequenceSync(account.did, data)
        return {}
      },
    }
  }
}

async function serviceToken(key, claims) {
  const now = Math.floor(Date.now() / 1000)
  const jti = crypto.randomBytes(16).toString('hex')
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ typ: 'JWT', alg: 'ES256K' })}.${part({ iat: now, exp: now + 60, jti, ...claims })}`
  const signature = await key.sign(Buffer.from(signed))
  return `${signed}.${Buffer.from(signature).toString('base64url')}`
}

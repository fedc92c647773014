// The accounts of the network: their registry, sessions and life on a PDS.
// What changes an account's identity or place is in identity.mjs, its records
// are in records.mjs.
import { Failure } from './failure.mjs'
import { ADMIN_PASSWORD } from './pds.mjs'
import { xrpc } from './xrpc.mjs'

// Access tokens live two hours; one is kept for half an hour, as long as the
// account stays on the same PDS: a new session costs a password hash (0.3 s).
const TOKEN_MS = 30 * 60_000

export class Accounts {
  #byName = new Map()

  constructor(hosts, nameServer) {
    this.hosts = hosts
    this.handles = nameServer.handles
  }

  /** By name, DID or handle. */
  find(key) {
    const all = [...this.#byName.values()]
    const account = this.#byName.get(key) ?? all.find((a) => a.did === key || a.handle === key)
    if (!account) throw new Failure(404, `no such account: ${key}`)
    return account
  }

  add(account) {
    this.#byName.set(account.name, account)
    this.handles.set(account.handle, account.did)
  }

  remove(account) {
    this.#byName.delete(account.name)
    this.handles.delete(account.handle)
  }

  host(index) {
    if (!this.hosts[index]) throw new Failure(404, `no such PDS: ${index}`)
    return this.hosts[index]
  }

  /** The account's own PDS. */
  hostOf(account) {
    return this.host(account.pds)
  }

  /** A new account's fields before any PDS knows it; refuses a name twice. */
  draft({ name, pds = 0, handle }) {
    if (!name) throw new Failure(400, 'an account needs a name')
    if (this.#byName.has(name)) throw new Failure(409, `account exists: ${name}`)
    return {
      name,
      pds,
      handle: handle ?? `${name}${this.host(pds).handleDomain}`,
      password: `pw-${name}`,
      email: `${name}@mail.test`,
    }
  }

  keepToken(account, jwt) {
    account.token = { pds: account.pds, at: Date.now(), jwt }
  }

  async session(account) {
    const { token } = account
    if (token && token.pds === account.pds && Date.now() - token.at < TOKEN_MS) return token.jwt
    const made = await xrpc(this.hostOf(account).url, 'com.atproto.server.createSession', {
      body: { identifier: account.did, password: account.password },
    })
    this.keepToken(account, made.accessJwt)
    return made.accessJwt
  }

  /** Call a method of the account's PDS in its name. */
  async call(account, nsid, request = {}) {
    return xrpc(this.hostOf(account).url, nsid, { token: await this.session(account), ...request })
  }

  /** Call an admin method of a PDS. */
  admin(host, nsid, body) {
    return xrpc(host.url, nsid, { basic: `admin:${ADMIN_PASSWORD}`, body })
  }

  view(account) {
    const { name, handle, did, pds, password, keyPackage, peer, web } = account
    return {
      name,
      handle,
      did,
      pds,
      pdsUrl: this.hostOf(account).url,
      password,
      keyPackage,
      peer,
      ...(web && { web: web.url }),
    }
  }

  views() {
    return [...this.#byName.values()].map((account) => this.view(account))
  }
}

export function accountOperations({ accounts, records, identity }) {
  return {
    async 'account.create'({ keyPackage, ...wanted }) {
      const account = accounts.draft(wanted)
      const made = await xrpc(accounts.hostOf(account).url, 'com.atproto.server.createAccount', {
        body: { handle: account.handle, email: account.email, password: account.password },
      })
      account.did = made.did
      accounts.keepToken(account, made.accessJwt)
      accounts.add(account)
      if (keyPackage) await records.put(account, { keyPackage })
      return accounts.view(account)
    },

    // dns: 'first' (the new name answers before the PDS is asked, needed for a
    // handle outside its domain), 'never' (the new handle stays unproven).
    async 'account.rename'({ account: key, handle, dns = 'first', keepOld = false }) {
      const account = accounts.find(key)
      if (dns === 'first') accounts.handles.set(handle, account.did)
      await accounts.call(account, 'com.atproto.identity.updateHandle', { body: { handle } })
      if (!keepOld && account.handle !== handle) accounts.handles.delete(account.handle)
      account.handle = handle
      return accounts.view(account)
    },

    async 'account.deactivate'({ account: key }) {
      await accounts.call(accounts.find(key), 'com.atproto.server.deactivateAccount', { body: {} })
      return {}
    },

    async 'account.activate'({ account: key }) {
      const account = accounts.find(key)
      await identity.activate(account, accounts.hostOf(account), await accounts.session(account))
      return {}
    },

    async 'account.takedown'({ account: key, applied = true }) {
      const account = accounts.find(key)
      return accounts.admin(accounts.hostOf(account), 'com.atproto.admin.updateSubjectStatus', {
        subject: { $type: 'com.atproto.admin.defs#repoRef', did: account.did },
        takedown: { applied, ref: 'test' },
      })
    },

    // tombstone: also end the DID in the directory; deleting the account does not.
    async 'account.delete'({ account: key, tombstone = false }) {
      const account = accounts.find(key)
      await accounts.admin(accounts.hostOf(account), 'com.atproto.admin.deleteAccount', { did: account.did })
      if (tombstone) await identity.tombstone(account)
      accounts.remove(account)
      return {}
    },

    // An access token, for a test that talks to the PDS itself.
    async session({ account: key }) {
      return { accessJwt: await accounts.session(accounts.find(key)) }
    },

    async serviceAuth({ account: key, aud, lxm, exp }) {
      return accounts.call(accounts.find(key), 'com.atproto.server.getServiceAuth', {
        params: { aud, ...(lxm && { lxm }), ...(exp && { exp }) },
      })
    },
  }
}

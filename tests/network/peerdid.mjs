// did:peer:2 identities for the accounts' key packages.
import crypto from 'node:crypto'

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function base58(bytes) {
  let number = BigInt('0x' + (Buffer.from(bytes).toString('hex') || '0'))
  let text = ''
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text
  const zeros = bytes.findIndex((b) => b !== 0)
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text
}

/**
 * A fresh did:peer:2 with an X25519 agreement key, an Ed25519 authentication
 * key and one DIDCommMessaging service per mediator.
 * Returns {did, keys}: the private keys as JWK by key id, so that a test can
 * read what is sent to this recipient.
 */
export function newPeerDid(mediators = []) {
  const agreement = crypto.generateKeyPairSync('x25519')
  const authentication = crypto.generateKeyPairSync('ed25519')
  const multibase = (codec, key) => {
    const raw = Buffer.from(key.export({ format: 'jwk' }).x, 'base64url')
    return 'z' + base58(Buffer.concat([Buffer.from(codec), raw]))
  }
  const services = mediators.map((uri) => {
    const service = { t: 'dm', s: { uri, a: ['didcomm/v2'], r: [] } }
    return '.S' + Buffer.from(JSON.stringify(service)).toString('base64url')
  })
  const did =
    `did:peer:2.E${multibase([0xec, 0x01], agreement.publicKey)}` +
    `.V${multibase([0xed, 0x01], authentication.publicKey)}${services.join('')}`
  return {
    did,
    keys: {
      [`${did}#key-1`]: agreement.privateKey.export({ format: 'jwk' }),
      [`${did}#key-2`]: authentication.privateKey.export({ format: 'jwk' }),
    },
  }
}

"""Envelopes by the library didcomm: authcrypt, anoncrypt with three ciphers, signatures."""

import json
import warnings
from base64 import urlsafe_b64encode
from importlib.metadata import version
from typing import Any

from authlib.deprecate import AuthlibDeprecationWarning
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from identity import Document, Documents, from_multikey

# The library is older than what it stands on, which says so at each start.
warnings.simplefilter("ignore", AuthlibDeprecationWarning)

from didcomm.common.algorithms import AnonCryptAlg
from didcomm.common.resolvers import ResolversConfig
from didcomm.common.types import VerificationMaterial, VerificationMaterialFormat
from didcomm.did_doc.did_doc import DIDDoc
from didcomm.did_doc.did_resolver import DIDResolver
from didcomm.pack_encrypted import PackEncryptedConfig, pack_encrypted
from didcomm.pack_signed import pack_signed
from didcomm.secrets.secrets_resolver import Secret, SecretsResolver
from didcomm.unpack import UnpackConfig, unpack

Jwk = dict[str, str]

PRIVATE_KEYS = {
    "X25519": x25519.X25519PrivateKey,
    "Ed25519": ed25519.Ed25519PrivateKey,
}


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def public_jwk(curve: str, public: bytes) -> Jwk:
    """A JWK of the bytes in a multikey."""
    if curve != "P-256":
        return {"kty": "OKP", "crv": curve, "x": base64url(public)}
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    numbers = point.public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    return {"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)}


class Resolver(DIDResolver):
    """The library's resolver over our documents, in the only form that it reads."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def resolve(self, did: str) -> DIDDoc:
        """Ids are made absolute and keys JWKs. Services are left out: packing would follow them."""
        document = self._documents.resolve(did)

        def absolute(kid: str) -> str:
            return did + kid if kid.startswith("#") else kid

        methods = [
            {
                "id": absolute(method["id"]),
                "type": "JsonWebKey2020",
                "controller": did,
                "publicKeyJwk": public_jwk(*from_multikey(method["publicKeyMultibase"])),
            }
            for method in document["verificationMethod"]
        ]
        relationships = {
            name: [absolute(kid) for kid in document.get(name, [])]
            for name in ("keyAgreement", "authentication")
        }
        return DIDDoc.deserialize({"id": did, "verificationMethod": methods, **relationships})


class Secrets(SecretsResolver):
    """The library's secrets, in memory."""

    def __init__(self) -> None:
        self._held: dict[str, Secret] = {}

    def hold(self, kid: str, jwk: Jwk) -> None:
        material = VerificationMaterial(VerificationMaterialFormat.JWK, json.dumps(jwk))
        self._held[kid] = Secret(kid, "JsonWebKey2020", material)

    async def get_key(self, kid: str) -> Secret | None:
        return self._held.get(kid)

    async def get_keys(self, kids: list[str]) -> list[str]:
        return [kid for kid in kids if kid in self._held]


class Library:
    """Packs and unpacks, and holds the secrets."""

    name = "didcomm"
    release = version("didcomm")
    content_encryptions = [algorithm.value.enc for algorithm in AnonCryptAlg]
    signs = True

    def __init__(self, documents: Documents) -> None:
        self._secrets = Secrets()
        self._resolvers = ResolversConfig(self._secrets, Resolver(documents))

    def key(self, curve: str, secret: bytes | None) -> tuple[bytes, Jwk]:
        """A key pair, of these secret bytes or new: the public bytes, and what `hold` takes."""
        if curve == "P-256":
            pair = (
                ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
                if secret
                else ec.generate_private_key(ec.SECP256R1())
            )
            secret = pair.private_numbers().private_value.to_bytes(32, "big")
            public = pair.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        else:
            kind = PRIVATE_KEYS[curve]
            pair = kind.from_private_bytes(secret) if secret else kind.generate()
            secret = pair.private_bytes_raw()
            public = pair.public_key().public_bytes_raw()
        return public, {**public_jwk(curve, public), "d": base64url(secret)}

    async def hold(self, kid: str, _curve: str, jwk: Jwk) -> None:
        """Keeps the secret of an absolute kid."""
        self._secrets.hold(kid, jwk)

    async def pack(
        self,
        message: Document,
        to: str | None = None,
        sender: str | None = None,
        signer: str | None = None,
        enc: str | None = None,
        protect: bool = False,
    ) -> str:
        """A packed message; without `to` it is only signed. The library refuses a lying `from`."""
        if to is None:
            return (await pack_signed(self._resolvers, message, signer)).packed_msg
        # This library's own default content encryption of an anoncrypt is XC20P.
        enc = enc or "XC20P"
        config = PackEncryptedConfig(
            enc_alg_anon=next(
                algorithm for algorithm in AnonCryptAlg if algorithm.value.enc == enc
            ),
            protect_sender_id=protect,
            forward=False,
        )
        result = await pack_encrypted(self._resolvers, message, to, sender, signer, config)
        return result.packed_msg

    async def unpack(self, packed: str) -> dict[str, Any]:
        """The plaintext and who is said to have sent it, through all layers."""
        # Forwards stay what they are, and the plaintext is shown as it is.
        config = UnpackConfig(unwrap_re_wrapping_forward=False)
        result = await unpack(self._resolvers, packed, config, deserializer=lambda message: message)
        found = result.metadata
        layers = []
        if found.enc_alg_anon:
            layers.append(f"anoncrypt {found.enc_alg_anon.value.enc}")
        if found.enc_alg_auth:
            layers.append(f"authcrypt {found.enc_alg_auth.value.enc}")
        if found.sign_alg:
            layers.append(f"signed {found.sign_alg.value}")
        ours = await self._secrets.get_keys(found.encrypted_to or [])
        return {
            "message": result.message,
            "sender": found.encrypted_from,
            "signer": found.sign_from,
            "recipient": ours[0] if ours else None,
            "layers": layers,
        }

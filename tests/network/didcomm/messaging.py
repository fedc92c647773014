"""Envelopes by the library didcomm-messaging: authcrypt and anoncrypt, no signatures."""

import json
from importlib.metadata import version
from typing import Any

from aries_askar import Key, KeyAlg
from didcomm_messaging.crypto.backend.askar import AskarCryptoService, AskarSecretKey
from didcomm_messaging.crypto.backend.basic import InMemorySecretsManager
from didcomm_messaging.packaging import PackagingService
from didcomm_messaging.resolver import DIDResolver

from identity import Document, Documents

ALGORITHMS = {"X25519": KeyAlg.X25519, "Ed25519": KeyAlg.ED25519, "P-256": KeyAlg.P256}


class Resolver(DIDResolver):
    """The library's resolver over our documents."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def resolve(self, did: str) -> Document:
        return self._documents.resolve(did)

    async def is_resolvable(self, did: str) -> bool:
        return self._documents.is_resolvable(did)


class Library:
    """Packs and unpacks, and holds the secrets."""

    name = "didcomm-messaging"
    release = version("didcomm-messaging")
    content_encryptions = ["XC20P"]
    signs = False

    def __init__(self, documents: Documents) -> None:
        self._crypto = AskarCryptoService()
        self._secrets = InMemorySecretsManager()
        self._resolver = Resolver(documents)
        self._packaging = PackagingService()

    def key(self, curve: str, secret: bytes | None) -> tuple[bytes, Key]:
        """A key pair, of these secret bytes or new: the public bytes, and what `hold` takes."""
        algorithm = ALGORITHMS[curve]
        pair = Key.from_secret_bytes(algorithm, secret) if secret else Key.generate(algorithm)
        return pair.get_public_bytes(), pair

    async def hold(self, kid: str, _curve: str, pair: Key) -> None:
        """Keeps the secret of an absolute kid."""
        await self._secrets.add_secret(AskarSecretKey(pair, kid))

    async def pack(
        self,
        message: Document | None = None,
        text: str | None = None,
        to: str | None = None,
        sender: str | None = None,
        signer: str | None = None,
        enc: str | None = None,
        protect: bool = False,
    ) -> str:
        """A packed message; `text` goes in as it is, whatever it says."""
        if to is None or signer is not None or enc not in (None, *self.content_encryptions):
            raise NotImplementedError("this library does not sign, and anoncrypts by XC20P only")
        plaintext = (json.dumps(message) if text is None else text).encode()
        packed = await self._encrypt(plaintext, to, sender)
        if protect:
            packed = await self._encrypt(packed, to, None)
        return packed.decode()

    async def _encrypt(self, plaintext: bytes, to: str, sender: str | None) -> bytes:
        return await self._packaging.pack(
            self._crypto, self._resolver, self._secrets, plaintext, [to], sender
        )

    async def unpack(self, packed: str) -> dict[str, Any]:
        """The plaintext and who is said to have sent it, through all layers of encryption."""
        layers: list[str] = []
        sender = recipient = None
        message = json.loads(packed)
        while "ciphertext" in message:
            plaintext, found = await self._packaging.unpack(
                self._crypto, self._resolver, self._secrets, json.dumps(message)
            )
            kind = "authcrypt" if found.method == "ECDH-1PU" else "anoncrypt"
            layers.append(f"{kind} {found.wrapper.protected['enc']}")
            sender = found.sender_kid or sender
            recipient = recipient or found.recip_key.kid
            message = json.loads(plaintext)
        if "payload" in message:
            raise NotImplementedError("this library reads no signatures")
        return {
            "message": message,
            "sender": sender,
            "signer": None,
            "recipient": recipient,
            "layers": layers,
        }

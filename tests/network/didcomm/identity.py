"""Keys as multikeys, did:peer:2 and did:peer:4 made from them, and the documents of DIDs."""

from base64 import urlsafe_b64decode
from typing import Any

import did_peer_2
import did_peer_4
from base58 import b58decode, b58encode

# Multicodec prefixes of public keys.
PREFIXES = {"X25519": b"\xec\x01", "Ed25519": b"\xed\x01", "P-256": b"\x80\x24"}

Document = dict[str, Any]


def from_base64url(text: str) -> bytes:
    """Bytes of base64url, padded or not."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def to_multikey(curve: str, public: bytes) -> str:
    """The text of a public key: `z` and base58btc."""
    return "z" + b58encode(PREFIXES[curve] + public).decode()


def from_multikey(text: str) -> tuple[str, bytes]:
    """Curve and bytes of a public key."""
    tagged = b58decode(text[1:])
    for curve, prefix in PREFIXES.items():
        if tagged.startswith(prefix):
            return curve, tagged[len(prefix) :]
    raise ValueError(f"a multikey of another kind: {text}")


def peer_did(keys: list[tuple[str, bytes]], services: list[Document], method: int) -> str:
    """A did:peer with these keys in this order: `#key-1`, `#key-2` and so on.

    Ed25519 keys are for authentication, the others for key agreement.
    """
    if method == 2:
        return did_peer_2.generate([key_spec(curve, public) for curve, public in keys], services)
    document: Document = {"verificationMethod": [], "authentication": [], "keyAgreement": []}
    for number, (curve, public) in enumerate(keys, start=1):
        kid = f"#key-{number}"
        multikey = {"id": kid, "type": "Multikey", "publicKeyMultibase": to_multikey(curve, public)}
        document["verificationMethod"].append(multikey)
        document["authentication" if curve == "Ed25519" else "keyAgreement"].append(kid)
    if services:
        document["service"] = [
            {"id": f"#service-{number}", **service} for number, service in enumerate(services)
        ]
    return did_peer_4.encode(document)


def key_spec(curve: str, public: bytes) -> did_peer_2.KeySpec:
    """An element of a did:peer:2."""
    material = to_multikey(curve, public)
    if curve == "Ed25519":
        return did_peer_2.KeySpec.authentication(material)
    return did_peer_2.KeySpec.key_agreement(material)


class Documents:
    """Documents of DIDs: did:peer out of themselves, others as they were told."""

    def __init__(self) -> None:
        self._known: dict[str, Document] = {}

    def know(self, did: str, document: Document) -> None:
        """From now on this is the DID's document."""
        self._known[did] = document

    def resolve(self, did: str) -> Document:
        """The document as it stands, with absolute or relative ids."""
        if did in self._known:
            return self._known[did]
        if did.startswith("did:peer:2"):
            return did_peer_2.resolve(did)
        if did.startswith("did:peer:4"):
            return did_peer_4.resolve(did)
        raise LookupError(f"no document of {did}")

    def is_resolvable(self, did: str) -> bool:
        """Whether there would be a document."""
        return did in self._known or did.startswith(("did:peer:2", "did:peer:4"))

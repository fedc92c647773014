"""Envelopes of a library that others wrote, as JSON lines (see lines.py).

Runs in either environment, over the library that stands there. Identities are DIDs; their secrets
stay in this process. Operations and fields are listed in ../README.md.
"""

import asyncio
from typing import Any

import did_peer_4
from identity import Document, Documents, from_base64url, peer_did
from lines import Operation, serve

try:
    from messaging import Library
except ModuleNotFoundError:
    from sicpa import Library


class Envelopes:
    """The operations."""

    def __init__(self) -> None:
        self._documents = Documents()
        self.library = Library(self._documents)

    def operations(self) -> dict[str, Operation]:
        return {
            "library": self.about,
            "generate": self.generate,
            "import": self.hold,
            "know": self.know,
            "pack": self.pack,
            "unpack": self.library.unpack,
        }

    async def about(self) -> dict[str, Any]:
        """What the library is and does."""
        return {
            "name": self.library.name,
            "version": self.library.release,
            "anoncrypt": self.library.content_encryptions,
            "signs": self.library.signs,
        }

    async def generate(
        self,
        keys: list[str] = ["Ed25519", "X25519"],
        services: list[Document] = [],
        method: int = 2,
    ) -> dict[str, Any]:
        """A new did:peer with a key of each of these curves, in this order."""
        pairs = [(curve, *self.library.key(curve, None)) for curve in keys]
        did = peer_did([(curve, public) for curve, public, _ in pairs], services, method)
        kids = []
        for number, (curve, _, pair) in enumerate(pairs, start=1):
            kids.append(f"{did}#key-{number}")
            await self.library.hold(kids[-1], curve, pair)
        found = {"did": did, "kids": kids}
        if method == 4:
            # Both forms are the same identity, and either can be written from.
            found["short"] = short = did_peer_4.long_to_short(did)
            self._documents.know(short, did_peer_4.resolve_short(did))
            for number, (curve, _, pair) in enumerate(pairs, start=1):
                await self.library.hold(f"{short}#key-{number}", curve, pair)
        return found

    async def hold(self, keys: list[dict[str, str]]) -> dict[str, Any]:
        """Secrets of an identity made elsewhere: `{kid, curve, secret}`, raw bytes in base64url."""
        for key in keys:
            _, pair = self.library.key(key["curve"], from_base64url(key["secret"]))
            await self.library.hold(key["kid"], key["curve"], pair)
        return {}

    async def know(self, did: str, document: Document) -> dict[str, Any]:
        """The document of a DID that does not resolve out of itself."""
        self._documents.know(did, document)
        return {}

    async def pack(self, **fields: Any) -> dict[str, Any]:
        """Authcrypt with `from`, anoncrypt without; see the library's own `pack`."""
        return {"packed": await self.library.pack(**fields)}


if __name__ == "__main__":
    asyncio.run(serve(Envelopes().operations()))

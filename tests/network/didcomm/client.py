"""A client of a mediator, as JSON lines (see lines.py), over the library didcomm-messaging.

It does what it is told and judges nothing: every answer has the HTTP status, the headers, the raw
body and the message in it. Operations and fields are listed in ../README.md.
"""

import asyncio
import json
from base64 import urlsafe_b64decode
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

import protocols
from envelopes import Envelopes
from lines import Operation, failure, serve
from live import Socket
from protocols import Message, plaintext, present

ENCRYPTED = "application/didcomm-encrypted+json"

# Longer than anything that is only a matter of time, shorter than the caller's own patience.
TIMEOUT = ClientTimeout(total=45)


class Client(Envelopes):
    """The operations; those of envelopes.py are among them."""

    def __init__(self, session: ClientSession) -> None:
        super().__init__()
        self._session = session
        self._sockets: list[Socket] = []
        self._mediator = self._http = self._ws = ""

    def operations(self) -> dict[str, Operation]:
        return {
            **super().operations(),
            "mediator": self.mediator,
            "send": self.send,
            "request": self.request,
            "update": self.update,
            "query": self.query,
            "status": self.status,
            "delivery": self.delivery,
            "received": self.received,
            "live": self.live,
            "ping": self.ping,
            "discover": self.discover,
            "forward": self.forward,
            "open": self.open,
            "freeze": self.freeze,
            "frames": self.frames,
            "close": self.close,
        }

    async def mediator(self, did: str, http: str, ws: str = "") -> dict[str, Any]:
        """Whom all that follows is meant for, unless it says otherwise."""
        self._mediator, self._http, self._ws = did, http, ws
        return {}

    # Protocols. `how` is everything that `send` takes besides the message.

    async def request(self, version: str = "3.0", body: Any = {}, **how: Any) -> dict[str, Any]:
        """mediate-request; the body may be null, then there is none."""
        return await self._ask(protocols.mediate_request(version), body, how)

    async def update(
        self, updates: list[dict[str, str]], version: str = "3.0", **how: Any
    ) -> dict[str, Any]:
        """keylist-update or recipient-update."""
        return await self._ask(protocols.update(version), {"updates": updates}, how)

    async def query(
        self, version: str = "3.0", paginate: dict[str, int] | None = None, **how: Any
    ) -> dict[str, Any]:
        """keylist-query or recipient-query."""
        return await self._ask(protocols.query(version), present(paginate=paginate), how)

    async def status(
        self, pickup: str = "3.0", recipient_did: str | None = None, **how: Any
    ) -> dict[str, Any]:
        """status-request."""
        return await self._pickup(pickup, "status-request", how, recipient_did=recipient_did)

    async def delivery(
        self, pickup: str = "3.0", limit: int = 10, recipient_did: str | None = None, **how: Any
    ) -> dict[str, Any]:
        """delivery-request; what is attached to the answer is opened as well."""
        fields = {protocols.PICKUP[pickup][1]: limit, "recipient_did": recipient_did}
        return await self._pickup(pickup, "delivery-request", how, **fields)

    async def received(self, ids: list[str], pickup: str = "3.0", **how: Any) -> dict[str, Any]:
        """messages-received."""
        return await self._pickup(pickup, "messages-received", how, message_id_list=ids)

    async def live(self, on: Any = True, pickup: str = "3.0", **how: Any) -> dict[str, Any]:
        """live-delivery-change; `on` may be what no client should send."""
        return await self._pickup(pickup, "live-delivery-change", how, live_delivery=on)

    async def ping(self, response_requested: bool | None = None, **how: Any) -> dict[str, Any]:
        """trust-ping."""
        return await self._ask(protocols.PING, present(response_requested=response_requested), how)

    async def discover(self, queries: list[dict[str, str]], **how: Any) -> dict[str, Any]:
        """discover-features."""
        return await self._ask(protocols.QUERIES, {"queries": queries}, how)

    async def _pickup(self, version: str, name: str, how: Message, **body: Any) -> dict[str, Any]:
        return await self._ask(f"{protocols.PICKUP[version][0]}/{name}", present(**body), how)

    async def _ask(self, kind: str, body: Any, how: Message) -> dict[str, Any]:
        message = plaintext(kind, body, how.get("sender"), how.get("to", self._mediator))
        return await self.send(message, **{"return_route": "all", **how})

    async def forward(
        self,
        next: str,
        packed: str | list[str],
        form: str = "json",
        through: list[str] | None = None,
        extra: Message = {},
        **how: Any,
    ) -> dict[str, Any]:
        """A forward of envelopes to `next` by the mediators `through`, the nearest first.

        `extra` goes into the outermost forward only, which is authcrypted where there is a `from`.
        """
        nearest, *others = through or [self._mediator]
        for mediator in reversed(others):
            inner = self._forward(next, packed, form, None, mediator)
            next, packed = mediator, await self.library.pack(inner, to=mediator)
        message = self._forward(next, packed, form, how.get("sender"), nearest)
        return await self.send(message, to=nearest, extra=extra, **how)

    def _forward(
        self, next: str, packed: str | list[str], form: str, sender: str | None, to: str
    ) -> Message:
        message = plaintext(protocols.FORWARD, {"next": next}, sender, to)
        envelopes = packed if isinstance(packed, list) else [packed]
        message["attachments"] = [protocols.attachment(envelope, form) for envelope in envelopes]
        return message

    # Transport.

    async def send(
        self,
        message: Message | None = None,
        text: str | None = None,
        packed: str | None = None,
        to: str | None = None,
        sender: str | None = None,
        protect: bool = False,
        plain: bool = False,
        return_route: str | None = None,
        extra: Message = {},
        post: bool = True,
        **transport: Any,
    ) -> dict[str, Any]:
        """Packs a message, or a text as it is, and sends it; or sends what was packed before.

        `extra` replaces headers of the message, null removes them. The answer has what was sent, so
        that it can be sent again.
        """
        if message is not None:
            message = present(**{**message, **present(return_route=return_route), **extra})
            text = json.dumps(message)
        if plain:
            packed = text
        elif packed is None:
            recipient = to or self._mediator
            packed = await self.library.pack(
                text=text, to=recipient, sender=sender, protect=protect
            )
        sent = {"packed": packed, **present(sent=message)}
        return {**sent, **await self._carry(packed, **transport)} if post else sent

    async def _carry(
        self,
        packed: str,
        socket: int | None = None,
        binary: bool = False,
        url: str | None = None,
        headers: dict[str, str | None] = {},
    ) -> dict[str, Any]:
        if socket is not None:
            await self._sockets[socket].send(packed, binary)
            return {}
        given = {"Content-Type": ENCRYPTED, **headers}
        async with self._session.post(
            url or self._http,
            data=packed.encode(),
            headers=present(**given),
            skip_auto_headers=[name for name, value in given.items() if value is None],
            allow_redirects=False,
        ) as response:
            body = (await response.read()).decode(errors="replace")
            return {
                "status": response.status,
                "headers": {name.lower(): value for name, value in response.headers.items()},
                "body": body,
                **(await self._opened(body) if body else {}),
            }

    async def _opened(self, packed: str) -> dict[str, Any]:
        """What is in an envelope, or why it does not open, and what is attached to a delivery."""
        try:
            opened = await self.library.unpack(packed)
            message = opened["message"]
            if message["type"].endswith("/delivery"):
                attachments = message.get("attachments", [])
                opened["attached"] = [await self._attached(one) for one in attachments]
        except Exception as error:  # whatever the library raises is an answer here
            return {"refused": failure(error)}
        return opened

    async def _attached(self, attachment: Message) -> dict[str, Any]:
        data = attachment["data"]
        if "base64" in data:
            packed = urlsafe_b64decode(data["base64"] + "==").decode()
        else:
            packed = json.dumps(data["json"])
        found = {"id": attachment["id"], "forms": sorted(data), "packed": packed}
        return {**found, **await self._opened(packed)}

    # WebSockets.

    async def open(self, url: str | None = None, headers: dict[str, str] = {}) -> dict[str, Any]:
        """A new WebSocket."""
        self._sockets.append(await Socket.connect(url or self._ws, headers))
        return {"socket": len(self._sockets) - 1}

    async def freeze(self, socket: int, on: bool = True) -> dict[str, Any]:
        """Reads no more from a WebSocket, or goes on; what is sent meanwhile fills the buffers."""
        self._sockets[socket].freeze(on)
        return {}

    async def frames(self, socket: int, count: int = 1, seconds: float = 10) -> dict[str, Any]:
        """What arrived and was not yet taken, opened: less than `count` if no more came."""
        taken = await self._sockets[socket].take(count, seconds)
        frames = [{**frame, **await self._opened(frame["packed"])} for frame in taken]
        return {"frames": frames, "closed": self._sockets[socket].closed}

    async def close(self, socket: int, abort: bool = False) -> dict[str, Any]:
        """Ends a WebSocket."""
        await self._sockets[socket].close(abort)
        return {}


async def main() -> None:
    # A connection per request: a mediator that is restarted would break a kept one.
    connector = TCPConnector(force_close=True)
    async with ClientSession(connector=connector, timeout=TIMEOUT) as session:
        await serve(Client(session).operations())


if __name__ == "__main__":
    asyncio.run(main())

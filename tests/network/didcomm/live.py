"""WebSockets of a client: what arrived is kept, with its time, until it is asked for."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Frame = dict[str, Any]


class Socket:
    """One connection. What comes in is read at once, unless the connection is frozen."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._frames: list[Frame] = []
        self._news = asyncio.Condition()
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str, headers: dict[str, str]) -> "Socket":
        # No pings of our own: a frozen connection has to stay as it is.
        connection = await connect(
            url,
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            close_timeout=5,
            max_size=None,
            max_queue=None,
            proxy=None,
        )
        return cls(connection)

    @property
    def closed(self) -> int | None:
        """The code it was closed with, 1006 where nobody said one; None while it is open."""
        return self._connection.close_code

    async def _read(self) -> None:
        try:
            while True:
                data = await self._connection.recv()
                frame = {"at": time.time(), "kind": "text", "packed": data}
                if isinstance(data, bytes):
                    frame |= {"kind": "binary", "packed": data.decode()}
                async with self._news:
                    self._frames.append(frame)
                    self._news.notify_all()
        except ConnectionClosed:
            async with self._news:
                self._ended = True
                self._news.notify_all()

    async def send(self, packed: str, binary: bool) -> None:
        await self._connection.send(packed.encode() if binary else packed)

    async def take(self, count: int, seconds: float) -> list[Frame]:
        """The oldest frames, as soon as there are `count`, the time is up or the socket ended."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._enough(count), seconds)
        taken, self._frames = self._frames[:count], self._frames[count:]
        return taken

    async def _enough(self, count: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: len(self._frames) >= count or self._ended)

    def freeze(self, frozen: bool) -> None:
        """Reads no more, pings included, as a phone without a network; or goes on."""
        if frozen:
            self._connection.transport.pause_reading()
        else:
            self._connection.transport.resume_reading()

    async def close(self, abort: bool) -> None:
        """Says goodbye, or lets the connection fall without a word."""
        if abort:
            self._connection.transport.abort()
        else:
            await self._connection.close()

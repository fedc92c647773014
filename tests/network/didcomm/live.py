"""WebSockets of a client: what arrived is kept, with its time, until it is asked for."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Frame = dict[str, Any]


class Socket:
    """One connection. What comes in is read at once, or only from the first `take` on."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._frames: list[Frame] = []
        self._news = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None
        self._ended = False

    @classmethod
    async def connect(cls, url: str, headers: dict[str, str], read: bool) -> "Socket":
        # No pings of our own: a socket that is not read has to stay as it is.
        connection = await connect(
            url,
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            close_timeout=5,
            max_size=None,
            proxy=None,
        )
        socket = cls(connection)
        if read:
            socket.read()
        return socket

    @property
    def closed(self) -> int | None:
        """The code it was closed with, 1006 where nobody said one; None while it is open."""
        return self._connection.close_code

    def read(self) -> None:
        """Begins to read, unless that began before."""
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

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
        self.read()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._enough(count), seconds)
        taken, self._frames = self._frames[:count], self._frames[count:]
        return taken

    async def _enough(self, count: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: len(self._frames) >= count or self._ended)

    async def close(self, abort: bool) -> None:
        """Says goodbye, or lets the connection fall without a word."""
        if abort:
            self._connection.transport.abort()
        else:
            await self._connection.close()

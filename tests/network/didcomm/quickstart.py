"""The quickstart of didcomm-messaging, as its authors wrote it, against a running mediator.

    quickstart.py BASE_URL [DID]

BASE_URL is where the mediator's invitation is, whose `from` is taken where no DID is given. Prints
a JSON line for each step and a last one, `{"step": "summary", "ok": ...}`; exit code 0 when all
went well, 1 when not. The mediator must admit whoever comes: one DID asks for mediation, and
another one is registered.
"""

import asyncio
import json
import logging
import sys
import uuid
from typing import Any

from aiohttp import ClientSession
from didcomm_messaging import DIDCommMessaging, quickstart

Message = dict[str, Any]

# How often a message is sent until one comes by the WebSocket, and the seconds between.
ATTEMPTS, PAUSE = 60, 0.3


def report(step: str, **found: Any) -> None:
    print(json.dumps({"step": step, **found}), flush=True)


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


class Inbox:
    """The callback, and what it was called with."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._news = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.texts.append(message["body"]["content"])
        self._news.set()

    async def filled(self, seconds: float) -> bool:
        """Whether a message came before the time was up."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True


async def invitation(base: str) -> str:
    async with ClientSession() as session, session.get(f"{base}/invitation") as response:
        expect(response.status == 200, f"the invitation answers {response.status}")
        return (await response.json(content_type=None))["from"]


async def send(dmp: DIDCommMessaging, sender: str, to: str, content: str, base: str) -> int:
    """A message by the library's own routing. The answer to a forward is 202, which the
    quickstart's own `send_http_message` takes for an error: so the request is made here."""
    message = {
        "type": "https://didcomm.org/basicmessage/2.0/message",
        "typ": "application/didcomm-plain+json",
        "id": str(uuid.uuid4()),
        "body": {"content": content},
        "from": sender,
        "to": [to],
    }
    packed = await dmp.pack(message=message, to=to, frm=sender)
    endpoint = packed.get_endpoint("http")
    expect(endpoint.startswith(base), f"{endpoint} is not at {base}")
    headers = {"Content-Type": "application/didcomm-encrypted+json"}
    async with (
        ClientSession() as session,
        session.post(endpoint, data=packed.message, headers=headers) as response,
    ):
        expect(response.status == 202, f"a forward answers {response.status}")
        expect(await response.read() == b"", "the answer to a forward has a body")
        return response.status


async def run(base: str, mediator: str) -> None:
    did, secrets = quickstart.generate_did()
    report("generate_did", did=did)
    dmp = await quickstart.setup_default(did, secrets)
    report("setup_default")

    relayed = await quickstart.setup_relay(dmp, did, mediator, *secrets)
    expect(relayed is not None, "mediation is denied")
    report("setup_relay", did=relayed)

    friend, friend_secrets = quickstart.generate_did()
    friends = await quickstart.setup_default(friend, friend_secrets)
    for content in ("one", "two"):
        status = await send(friends, friend, relayed, content, base)
        report("send", content=content, status=status)

    inbox = Inbox()
    await quickstart.fetch_relayed_messages(dmp, did, mediator, inbox)
    report("fetch", texts=inbox.texts)
    expect(inbox.texts == ["one", "two"], "the messages did not come in order")

    inbox = Inbox()
    await quickstart.fetch_relayed_messages(dmp, did, mediator, inbox)
    report("fetch_again", texts=inbox.texts)
    expect(inbox.texts == [], "messages come again after they were acknowledged")

    inbox = Inbox()
    task = await quickstart.activate_websocket(dmp, did, mediator, inbox, create_task=True)
    expect(task is not None, "the mediator has no WebSocket")
    report("activate_websocket")
    # The quickstart does not learn when live mode is on: what was sent before that stays in the
    # queue without being pushed, so there are further ones.
    sent = []
    for attempt in range(ATTEMPTS):
        sent.append(f"live {attempt}")
        await send(friends, friend, relayed, sent[-1], base)
        if await inbox.filled(PAUSE):
            break
    report("live", sent=sent, texts=inbox.texts, ended=task.done())
    task.cancel()
    expect(inbox.texts != [], "nothing came by the WebSocket")
    expect(inbox.texts == [text for text in sent if text in inbox.texts], "not what was sent")

    inbox = Inbox()
    await quickstart.fetch_relayed_messages(dmp, did, mediator, inbox)
    report("fetch_after_live", texts=inbox.texts)
    expect(inbox.texts == sent, "what was pushed is not kept until it is acknowledged")


async def main() -> int:
    # What the quickstart catches by itself it only logs.
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    base = sys.argv[1].rstrip("/")
    try:
        await run(base, sys.argv[2] if len(sys.argv) > 2 else await invitation(base))
    except Exception as error:  # whatever the library raises is the result here
        report("summary", ok=False, **{"class": type(error).__name__, "error": str(error)})
        return 1
    report("summary", ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

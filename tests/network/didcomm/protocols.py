"""Messages that a client of a mediator sends, in each version of the protocols."""

import json
import time
import uuid
from base64 import urlsafe_b64encode
from typing import Any

Message = dict[str, Any]

SITE = "https://didcomm.org"
FORWARD = f"{SITE}/routing/2.0/forward"
PING = f"{SITE}/trust-ping/2.0/ping"
QUERIES = f"{SITE}/discover-features/2.0/queries"

# coordinate-mediation: names of the update and of the query.
COORDINATION = {
    "2.0": ("keylist-update", "keylist-query"),
    "3.0": ("recipient-update", "recipient-query"),
}
# The pickup protocol changed its name, and how a client says how many messages it takes.
PICKUP = {
    "3.0": (f"{SITE}/messagepickup/3.0", "limit"),
    "4.0": (f"{SITE}/message-pickup/4.0", "message_count_limit"),
}


def present(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def plaintext(kind: str, body: Any, sender: str | None, to: str | None) -> Message:
    """A message of its own thread."""
    return present(
        id=str(uuid.uuid4()),
        typ="application/didcomm-plain+json",
        type=kind,
        body=body,
        to=[to] if to else None,
        created_time=int(time.time()),
        **{"from": sender},
    )


def mediate_request(version: str) -> str:
    return f"{SITE}/coordinate-mediation/{version}/mediate-request"


def update(version: str) -> str:
    return f"{SITE}/coordinate-mediation/{version}/{COORDINATION[version][0]}"


def query(version: str) -> str:
    return f"{SITE}/coordinate-mediation/{version}/{COORDINATION[version][1]}"


def attachment(packed: str, form: str) -> Message:
    """An attached envelope: as `json`, `base64` (url, unpadded) or `links`, which are no good."""
    if form == "json":
        data: Message = {"json": json.loads(packed)}
    elif form == "base64":
        data = {"base64": urlsafe_b64encode(packed.encode()).rstrip(b"=").decode()}
    elif form == "links":
        data = {"links": ["http://127.0.0.1:9/"], "hash": ""}
    else:
        raise ValueError(f"no form of an attachment: {form}")
    return {
        "id": str(uuid.uuid4()),
        "media_type": "application/didcomm-encrypted+json",
        "data": data,
    }

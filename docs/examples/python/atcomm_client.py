"""A client for encrypted messages between atproto accounts, in one file.

    python atcomm_client.py enroll HANDLE MEDIATOR... [--replace]
    python atcomm_client.py resolve HANDLE-OR-DID [--accept]
    python atcomm_client.py send HANDLE-OR-DID TEXT [--anyway]
    python atcomm_client.py receive

A mediator is a did:web, a host or an origin. Environment: DIRECTORY and PDS (origins; the PDS is
that of the own account), PLC (an origin, the public one unless told otherwise), PASSWORD (an app
password, for `enroll` only), KEYS (the file that keeps keys and pins, made with mode 0600). Answers
are JSON lines on standard output.

../../client-guide.md explains each step, and says what is left out here.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import re
import sys
import time
import uuid
from datetime import datetime, timezone
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import base58
import dag_cbor
import did_peer_2
from aries_askar import Key, KeyAlg
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from didcomm_messaging.crypto.backend.askar import AskarCryptoService, AskarSecretKey
from didcomm_messaging.crypto.backend.basic import InMemorySecretsManager
from didcomm_messaging.packaging import PackagingService
from didcomm_messaging.resolver import DIDResolver

Json = dict[str, Any]

DIRECTORY = os.environ.get("DIRECTORY", "").rstrip("/")
PDS = os.environ.get("PDS", "").rstrip("/")
PLC = os.environ.get("PLC", "https://plc.directory").rstrip("/")
KEYS = os.environ.get("KEYS", "atcomm-keys.json")

COLLECTION = "at.didcomm.keyPackage"
RESOLVE = "at.didcomm.directory.resolveRecipient"
DM = "https://didcomm.at/dm/1.0/message"
FORWARD = "https://didcomm.org/routing/2.0/forward"
COORDINATION = "https://didcomm.org/coordinate-mediation/3.0"
PICKUP = "https://didcomm.org/messagepickup/3.0"
PROBLEM = "https://didcomm.org/report-problem/2.0/problem-report"
PING = "https://didcomm.org/trust-ping/2.0/ping"
ENCRYPTED = "application/didcomm-encrypted+json"
DAY = 24 * 3600
MAX_ANSWER = 8_000_000  # bytes; a delivery has 2 MiB of mail in two forms
MAX_DEPTH = 64  # levels of JSON; the parser fails at about a thousand


class Refused(Exception):
    """Something cannot be had or must not be believed: a name for programs, a reason for people."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


# ---- HTTP, XRPC and DID documents


class NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def http(url: str, body: bytes | None = None, headers: dict[str, str] = {}) -> tuple[int, bytes]:
    try:
        with build_opener(NoRedirects).open(Request(url, body, headers), timeout=30) as response:
            status, answer = response.status, response.read(MAX_ANSWER + 1)
    except HTTPError as error:
        status, answer = error.code, error.read(MAX_ANSWER + 1)
    except (URLError, OSError, ValueError) as error:
        raise Refused("Unreachable", f"{url}: {error}") from None
    if len(answer) > MAX_ANSWER:
        raise Refused("TooLong", url)
    return status, answer


def fetch(url: str, body: Any = None, token: str | None = None) -> bytes:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, answer = http(url, json.dumps(body).encode() if body is not None else None, headers)
    if status == 200:
        return answer
    try:
        error = json.loads(answer)
        name, reason = str(error["error"]), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError):
        name, reason = "UpstreamFailure", f"status {status} of {url}"
    raise Refused(name, reason)


def xrpc(origin: str, method: str, body: Any = None, token: str | None = None, **query: str) -> Any:
    url = f"{origin}/xrpc/{method}" + (f"?{urlencode(query)}" if query else "")
    return json.loads(fetch(url, body, token) or b"{}")


def loads(text: str) -> Any:
    """JSON of which the deepest levels are cut out: one text too deep must not hide the others."""
    kept, at, depth = [], 0, 0
    for found in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', text, re.DOTALL):
        if found[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH:
                kept.append(text[at : found.start()] + "null")
        elif found[0] in "]}":
            if depth == MAX_DEPTH:
                at = found.end()
            depth -= 1
    return json.loads("".join(kept) + text[at:] if depth < MAX_DEPTH else "")


def web_host(did: str) -> str:
    """Host and port of a did:web of atproto, which has no path."""
    host = unquote(did.removeprefix("did:web:"))
    if not re.fullmatch(r"did:web:[^:/]+", did) or not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host):
        raise Refused("UnsupportedDid", f"{did!r} is no did:web of a host")
    return host


def mediator_did(text: str) -> str:
    """A mediator as people name it: by did:web, host or origin."""
    host = re.sub(r"^https?://|/$", "", text.strip()).lower().replace(":", "%3A")
    did = text.strip() if text.strip().startswith("did:") else f"did:web:{host}"
    web_host(did)
    return did


def did_web(did: str) -> Json:
    """The document of a did:web."""
    host = web_host(did)
    scheme = "http" if host.split(":")[0] == "localhost" else "https"
    document = json.loads(fetch(f"{scheme}://{host}/.well-known/did.json"))
    if document.get("id") != did:
        raise Refused("BadDocument", f"the document of {did} is another's")
    return document


# ---- Proofs. Everything here fails where anything is missing.

# First bytes of a did:key's key, and the order of the curve.
CURVES = {
    b"\xe7\x01": (
        ec.SECP256K1(),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    ),
    b"\x80\x24": (
        ec.SECP256R1(),
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
}


def signed_by(did_key: str, data: bytes, signature: bytes) -> bool:
    key = base58.b58decode(did_key.removeprefix("did:key:z"))
    curve, order = CURVES[key[:2]]
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or s > order // 2:  # atproto takes one of the two forms only
        return False
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, key[2:])
    try:
        public.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def unbase64(text: str) -> bytes:
    """Either alphabet, padded or not."""
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def plc_state(did: str, log: list[Json]) -> Json:
    """What a did:plc's log of signed operations says now.

    Not signed are the times of the entries: they are the PLC directory's word, and decide only
    whether a recovery came within its 72 hours.
    """
    chain: list[tuple[str, Json, str, str]] = []  # cid, state, time, who signed it
    for entry in log:
        operation = entry["operation"]
        block = dag_cbor.encode(operation)
        cid = "b" + base32(b"\x01\x71\x12\x20" + hashlib.sha256(block).digest())
        unsigned = dag_cbor.encode({k: v for k, v in operation.items() if k != "sig"})
        state = operation
        if operation["type"] == "create":  # the oldest form
            state = {
                "rotationKeys": [operation["recoveryKey"], operation["signingKey"]],
                "verificationMethods": {"atproto": operation["signingKey"]},
                "alsoKnownAs": [f"at://{operation['handle']}"],
                "services": {"atproto_pds": {"endpoint": operation["service"]}},
            }
        if not chain:  # the DID is the hash of its first operation
            if did != "did:plc:" + base32(hashlib.sha256(block).digest())[:24]:
                raise Refused("BadLog", f"the log is not that of {did}")
            before, allowed = [], state["rotationKeys"]
        else:
            at = [known[0] for known in chain].index(operation["prev"])
            before, allowed = chain[: at + 1], chain[at][1]["rotationKeys"]
            if at + 1 < len(chain):  # a recovery: by a stronger key, and soon enough
                undone = chain[at + 1]
                allowed = allowed[: allowed.index(undone[3])]
                if seconds(entry["createdAt"]) - seconds(undone[2]) > 72 * 3600:
                    raise Refused("BadLog", "a recovery that came too late")
        signature = unbase64(operation["sig"])
        signer = next((key for key in allowed if signed_by(key, unsigned, signature)), None)
        if signer is None or cid != entry["cid"]:
            raise Refused("BadLog", f"operation {cid} is not signed by who may")
        chain = [*before, (cid, state, entry["createdAt"], signer)]
    if not chain or chain[-1][1].get("type") == "plc_tombstone":
        raise Refused("AccountInactive", f"{did} has ended")
    return chain[-1][1]


def identity(did: str, log: list[Json] | None = None) -> tuple[str, str, str]:
    """Signing key, PDS and claimed handle, by the given log or the PLC directory's."""
    if not did.startswith("did:plc:"):
        document = did_web(did)
        methods = {method["id"].split("#")[1]: method for method in document["verificationMethod"]}
        services = {one["id"].split("#")[1]: one["serviceEndpoint"] for one in document["service"]}
        key = "did:key:" + methods["atproto"]["publicKeyMultibase"]
        return key, services["atproto_pds"], claimed_handle(document["alsoKnownAs"])
    if not re.fullmatch(r"did:plc:[a-z2-7]{24}", did):
        raise Refused("DidNotFound", did)
    state = plc_state(did, log or json.loads(fetch(f"{PLC}/{did}/log/audit")))
    pds = state["services"]["atproto_pds"]["endpoint"]
    return state["verificationMethods"]["atproto"], pds, claimed_handle(state["alsoKnownAs"])


def claimed_handle(names: list[str]) -> str:
    return next((name[5:] for name in names if name.startswith("at://")), "handle.invalid")


def read_car(car: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The root and the blocks by their CIDs, each checked against its hash."""
    at, parts = 0, []
    while at < len(car):
        length = shift = 0
        while True:
            byte, at = car[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        parts.append(car[at : at + length])
        at += length
    blocks = {}
    for part in parts[1:]:
        cid, block = part[:36], part[36:]  # CIDv1, dag-cbor, sha-256: 4 bytes and the hash
        if cid != b"\x01\x71\x12\x20" + hashlib.sha256(block).digest():
            raise Refused("BadProof", "a block of the proof is not what its hash says")
        blocks[cid] = block
    return bytes(dag_cbor.decode(parts[0])["roots"][0]), blocks


def find(blocks: dict[bytes, bytes], node: Any, wanted: bytes) -> Any:
    """The link at a path of the tree below `node`, None where the tree shows that there is none."""
    while node is not None:
        content = dag_cbor.decode(blocks[bytes(node)])
        below, path = content["l"], b""
        for entry in content["e"]:
            path = path[: entry["p"]] + entry["k"]
            if path == wanted:
                return entry["v"]
            if path > wanted:
                break
            below = entry["t"]
        node = below
    return None


def prove(car: bytes, did: str, signing_key: str) -> tuple[str, Json]:
    """Revision and key package that a proof shows. NotEnrolled only where it shows the absence."""
    try:
        root, blocks = read_car(car)
        commit = dag_cbor.decode(blocks[root])
        signature = commit.pop("sig")
        if commit["did"] != did or commit["version"] != 3:
            raise Refused("BadProof", "the proof is of another repository")
        if not signed_by(signing_key, dag_cbor.encode(commit), signature):
            raise Refused("BadProof", "the proof is not signed by the account's key")
        link = find(blocks, commit["data"], f"{COLLECTION}/self".encode())
        if link is None:
            raise Refused("NotEnrolled", "proven: the account has no key package")
        return commit["rev"], dag_cbor.decode(blocks[bytes(link)])
    except Refused:
        raise
    except Exception as error:  # a missing block, no CBOR, a field of another type, ...
        raise Refused("BadProof", f"the proof is incomplete or broken: {error!r}") from None


# ---- Envelopes


class Documents(DIDResolver):
    """did:peer:2 out of itself, did:web by fetching it."""

    async def resolve(self, did: str) -> Json:
        return did_peer_2.resolve(did) if did.startswith("did:peer:2") else did_web(did)

    async def is_resolvable(self, did: str) -> bool:
        return did.startswith(("did:peer:2", "did:web:"))


X25519, ED25519 = b"\xec\x01", b"\xed\x01"


def multikey(prefix: bytes, key: Key) -> str:
    return "z" + base58.b58encode(prefix + key.get_public_bytes()).decode()


class Client:
    """An account's keys, its pins, and what it does with them."""

    def __init__(self) -> None:
        self.state: Json = {"pins": {}, "seen": {}, "sent": {}}
        if os.path.exists(KEYS):
            with open(KEYS) as file:
                self.state = json.load(file)
        self.crypto, self.secrets = AskarCryptoService(), InMemorySecretsManager()
        self.packaging: PackagingService = PackagingService()
        if "peer" in self.state:
            self.hold_key()

    @property
    def me(self) -> str:
        return self.state["account"]

    @property
    def peer(self) -> str:
        return self.state["peer"]

    def save(self) -> None:
        """Written down as a whole or not at all."""
        with open(
            os.open(f"{KEYS}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as file:
            json.dump(self.state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{KEYS}.new", KEYS)

    def mint(self) -> None:
        agreement, signing = Key.generate(KeyAlg.X25519), Key.generate(KeyAlg.ED25519)
        keys = multikey(X25519, agreement), multikey(ED25519, signing)
        self.state["peer"] = "did:peer:2.E{}.V{}".format(*keys)
        for name, key in ("agreement", agreement), ("signing", signing):
            secret = base64.urlsafe_b64encode(key.get_secret_bytes())
            self.state[name] = secret.decode().rstrip("=")
        self.hold_key()

    def hold_key(self) -> None:
        pair = Key.from_secret_bytes(KeyAlg.X25519, unbase64(self.state["agreement"]))
        asyncio.run(self.secrets.add_secret(AskarSecretKey(pair, f"{self.peer}#key-1")))

    def message(self, kind: str, to: str, body: Json, **more: Any) -> Json:
        return {
            "id": str(uuid.uuid4()),
            "typ": "application/didcomm-plain+json",
            "type": kind,
            "from": self.peer,
            "to": [to],
            "created_time": int(time.time()),
            "body": body,
            **more,
        }

    def pack(self, message: Json) -> str:
        """Authcrypt where the message names its sender, else anoncrypt."""
        packed = self.packaging.pack(
            self.crypto,
            Documents(),
            self.secrets,
            json.dumps(message).encode(),
            message["to"],
            message.get("from"),
        )
        return asyncio.run(packed).decode()

    def open(self, packed: str) -> tuple[Json, str | None]:
        """The plaintext, and the did:peer or did:web that provably wrote it."""
        sender = None
        for _ in range(2):  # authcrypt, anoncrypt, or an authcrypt in an anoncrypt
            unpacked = self.packaging.unpack(self.crypto, Documents(), self.secrets, packed)
            plaintext, found = asyncio.run(unpacked)
            packed = plaintext.decode()
            if found.sender_kid:
                sender = found.sender_kid.split("#")[0]
            message = loads(packed)
            if sender or "ciphertext" not in message:
                break
        texts = all(isinstance(message.get(name), str) for name in ("id", "type"))
        if not texts or len(message["id"]) > 256 or not isinstance(message.get("body", {}), dict):
            raise Refused("BadMessage", "no plaintext message in the envelope")
        # The library has checked neither of these.
        if sender and message.get("from") != sender:
            raise Refused("Forged", "the message names another sender than its envelope")
        if sender and self.peer not in message.get("to", []):
            raise Refused("Forged", "the message was meant for another reader")
        return message, sender

    # ---- Mediators

    def endpoint(self, mediator: str) -> str:
        """Where a mediator takes messages by HTTP."""
        for service in did_web(mediator)["service"]:
            if service["type"] != "DIDCommMessaging":
                continue
            endpoints = service["serviceEndpoint"]
            for one in endpoints if isinstance(endpoints, list) else [endpoints]:
                uri, keys = (
                    (one, []) if isinstance(one, str) else (one["uri"], one.get("routingKeys"))
                )
                if uri.startswith("http") and not keys:
                    return uri
        raise Refused("Unsupported", f"{mediator} has no endpoint that this program can use")

    def post(self, mediator: str, message: Json) -> bytes:
        packed = self.pack(message).encode()
        status, answer = http(self.endpoint(mediator), packed, {"Content-Type": ENCRYPTED})
        if status not in (200, 202):
            raise Refused("MediatorRefused", f"{mediator}: status {status}: {answer[:200]!r}")
        return answer

    def ask(self, mediator: str, kind: str, body: Json) -> Json:
        """A question to an own mediator, and its answer."""
        question = self.message(kind, mediator, body, return_route="all")
        answer, sender = self.open(self.post(mediator, question).decode())
        if sender != mediator or answer.get("thid", question["id"]) != question["id"]:
            raise Refused("BadAnswer", f"somebody else answers for {mediator}")
        if answer["type"] == PROBLEM:
            raise Refused(answer["body"]["code"], answer["body"].get("comment", ""))
        return answer

    def reach(self, mediator: str) -> None:
        """Makes sure that a mediator takes messages, before others are told to send there."""
        ping = self.message(PING, mediator, {"response_requested": True}, return_route="all")
        answer = self.post(mediator, ping)
        if answer and self.open(answer.decode())[1] != mediator:
            raise Refused("BadAnswer", f"somebody else answers for {mediator}")

    def register(self, mediator: str) -> None:
        """Has the mail kept. `account` lets an atcomm look at the key package at once."""
        grant = self.ask(mediator, f"{COORDINATION}/mediate-request", {"account": self.me})
        if not grant["type"].endswith("/mediate-grant"):
            raise Refused("Denied", f"{mediator} keeps no mail for {self.me}")
        updates = [{"recipient_did": self.peer, "action": "add"}]
        answer = self.ask(mediator, f"{COORDINATION}/recipient-update", {"updates": updates})
        if answer["body"]["updated"][0]["result"] not in ("success", "no_change"):
            raise Refused("Denied", f"{mediator}: {answer['body']}")

    def forward(self, to: str, next: str, packed: str) -> Json:
        attachment = {"id": "1", "media_type": ENCRYPTED, "data": {"json": json.loads(packed)}}
        return self.message(FORWARD, to, {"next": next}, attachments=[attachment])

    def deliver(self, packed: str, peer: str, mediators: list[str]) -> str:
        """Hands an envelope to the first of the recipient's mediators that takes it."""
        for number, theirs in enumerate(mediators[:8]):
            shared = theirs in self.state["mediators"]
            for own in [theirs] if shared else self.state["mediators"]:
                try:
                    self.endpoint(theirs)  # there is one, and it wants no further wraps
                    outer = self.forward(theirs, peer, packed)
                    if not shared:
                        del outer["from"]  # the recipient's mediator does not learn who writes
                        outer = self.forward(own, theirs, self.pack(outer))
                    self.post(own, outer)
                except Exception as error:  # whatever their documents make the libraries raise
                    print(error, file=sys.stderr)
                    continue
                left = mediators[number + 1 :]
                self.state["sent"][outer["id"]] = {"packed": packed, "peer": peer, "left": left}
                return theirs
        raise Refused("Undeliverable", "no mediator takes the message")

    # ---- Whom one writes to, and who wrote

    def resolve(self, actor: str) -> Json:
        """What an account has published, verified here; see the guide for what remains open."""
        did = actor
        if not actor.startswith("did:"):  # the own PDS, and not the directory, says whose it is
            did = xrpc(PDS, "com.atproto.identity.resolveHandle", handle=actor)["did"]
        try:
            view = xrpc(DIRECTORY, RESOLVE, actor=did, proof="true")
        except Refused as refused:
            if refused.name == "NotEnrolled":  # it has to show that
                url = f"{DIRECTORY}/xrpc/at.didcomm.directory.getProof?{urlencode({'did': did})}"
                prove(fetch(url), did, identity(did)[0])
                raise Refused("LyingDirectory", "the account has a key package") from None
            raise
        proof, pin = view["proof"], self.state["pins"].get(did)
        known = pin is not None and pin["peer"] == view["peer"]["did"]
        # The log in the answer may lack its end: with people who are new we ask the PLC directory.
        key, pds, handle = identity(did, proof.get("plcLog") if known else None)
        rev, record = prove(unbase64(proof["car"]["$bytes"]), did, key)
        if not known:  # an old proof is a proof, too: only the PDS knows the newest
            query = urlencode({"did": did, "collection": COLLECTION, "rkey": "self"})
            try:
                newest = prove(fetch(f"{pds}/xrpc/com.atproto.sync.getRecord?{query}"), did, key)
                rev, record = max((rev, record), newest, key=lambda found: found[0])
            except Refused as refused:
                if refused.name in ("NotEnrolled", "BadProof"):
                    raise
                print(f"not confirmed by the account's PDS: {refused}", file=sys.stderr)
        if pin and pin["key"] == key and rev < pin["rev"]:
            raise Refused("RolledBack", "the proof is older than one seen before")
        try:
            named = xrpc(PDS, "com.atproto.identity.resolveHandle", handle=handle)["did"]
        except Refused:
            named = None
        if not (record["did"].startswith("did:peer:2.") and isinstance(record["mediators"], list)):
            raise Refused("InvalidKeyPackage", "no did:peer:2, or no mediators")
        found = {
            "did": did,
            "handle": handle if named == did else "handle.invalid",
            "peer": record["did"],
            "mediators": record["mediators"],
            "changed": pin is not None and pin["peer"] != record["did"],
            "ambiguous": view["peer"]["ambiguous"],
        }
        if not found["changed"]:
            self.state["pins"][did] = {**(pin or {}), "peer": found["peer"], "rev": rev, "key": key}
        else:
            pin.setdefault("changedAt", time.time())
        self.save()
        return found

    def accept(self, found: Json) -> None:
        """A changed key is the account's from now on."""
        pin = self.state["pins"][found["did"]]
        before = {"peer": pin["peer"], "until": pin.pop("changedAt") + 7 * DAY}
        pin.update(peer=found["peer"], previous=before)
        self.save()

    def attribute(self, message: Json, sender: str | None) -> Json:
        """Who wrote a message: the outcome, with the account only where it is shown to be so."""
        body = message.get("body", {})
        claimed, meant = body.get("senderDid"), body.get("recipientDid", self.me)
        if meant != self.me:
            return {"outcome": "misdirected", "meant": str(meant)}
        if sender is None:
            return {"outcome": "anonymous"}
        if claimed is None:
            return {"outcome": "unattributed"}
        if not str(claimed).startswith(("did:plc:", "did:web:")):
            return {"outcome": "unverified", "claimed": str(claimed), "reason": "no account's DID"}
        for again in (False, True):
            try:
                if again:  # a key that was just rotated must not look like a fraud
                    xrpc(DIRECTORY, "at.didcomm.directory.refresh", {"did": claimed})
                found = self.resolve(claimed)
            except Exception as error:  # answers that are no answers raise anything
                revoked = isinstance(error, Refused) and error.name == "NotEnrolled"
                outcome = "revoked" if revoked else "unverified"
                result = {"outcome": outcome, "claimed": claimed, "reason": str(error)}
                continue
            who = {"account": claimed, "handle": found["handle"]}
            if found["peer"] == sender:
                return {"outcome": "verified", **who, "unaccepted": found["changed"]}
            pin = self.state["pins"][claimed]
            previous = pin.get("previous", {})
            if "changedAt" in pin:
                previous = {"peer": pin["peer"], "until": pin["changedAt"] + 7 * DAY}
            if previous.get("peer") == sender and time.time() < previous["until"]:
                result = {"outcome": "verifiedPrevious", **who}
            else:
                result = {"outcome": "mismatch", "claimed": claimed}
        return result

    # ---- Commands

    def enroll(self, handle: str, mediators: list[str], replace: bool) -> None:
        mediators = [mediator_did(one) for one in mediators]
        login = {"identifier": handle, "password": os.environ["PASSWORD"]}
        session = xrpc(PDS, "com.atproto.server.createSession", login)
        did, token = session["did"], session["accessJwt"]
        if self.state.get("account", did) != did:
            raise Refused("OtherAccount", f"{KEYS} belongs to {self.me}")
        if "peer" not in self.state:
            self.mint()
        for mediator in mediators:  # before anything is written
            self.reach(mediator)
        self.state.update(account=did, mediators=mediators)
        self.save()  # before anybody can write to the key
        record = {"repo": did, "collection": COLLECTION, "rkey": "self"}
        try:
            old = xrpc(PDS, "com.atproto.repo.getRecord", **record)
        except Refused as refused:
            if refused.name != "RecordNotFound":
                raise
            old = {"cid": None, "value": {"did": self.peer}}
        if old["value"]["did"] != self.peer and not replace:
            raise Refused("OtherKeys", "another device is enrolled; --replace takes its place")
        made = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # What we do not know stays as it is, but for another device's.
        kept = old["value"] if old["value"]["did"] == self.peer else {}
        named = {"$type": COLLECTION, "did": self.peer, "mediators": mediators}
        value = {"createdAt": made, **kept, **named}
        write = {**record, "record": value, "swapRecord": old["cid"]}
        xrpc(PDS, "com.atproto.repo.putRecord", write, token)
        xrpc(DIRECTORY, "at.didcomm.directory.refresh", {"did": did})
        for mediator in mediators:
            self.register(mediator)
        show({"did": did, "peer": self.peer})

    def send(self, actor: str, text: str, anyway: bool) -> None:
        if len(text.encode()) > 10_000:
            raise Refused("TooLong", "the text is longer than 10,000 bytes")
        found = self.resolve(actor)
        if found["changed"]:
            raise Refused("ChangedKey", f"{actor} has a new key; ask them, then resolve --accept")
        if found["ambiguous"] and not anyway:
            raise Refused("Ambiguous", "several accounts publish this key; --anyway sends")
        body = {"text": text, "senderDid": self.me, "recipientDid": found["did"]}
        message = self.message(DM, found["peer"], body)
        taken = self.deliver(self.pack(message), found["peer"], found["mediators"])
        self.save()
        show({"id": message["id"], "to": found["did"], "handle": found["handle"], "by": taken})

    def receive(self) -> None:
        failures = []
        for mediator in self.state["mediators"]:
            try:
                self.receive_from(mediator)
            except Exception as error:  # the others may have mail
                failures.append(f"{mediator}: {error!r}")
        if failures:
            raise Refused("NotAllReceived", "; ".join(failures))

    def receive_from(self, mediator: str) -> None:
        handled: set[str] = set()
        while True:
            answer = self.ask(mediator, f"{PICKUP}/delivery-request", {"limit": 20})
            waiting = [one for one in answer.get("attachments") or [] if isinstance(one, dict)]
            waiting = [one for one in waiting if isinstance(one.get("id"), str)]
            if not answer["type"].endswith("/delivery") or not waiting:
                break
            ids = [one["id"] for one in waiting]
            if handled.issuperset(ids):
                raise Refused("NotForgotten", f"{mediator} delivers what was acknowledged")
            for one in waiting:
                self.take(one)
            # Only now that everything is shown and written down may the mediator forget it.
            self.ask(mediator, f"{PICKUP}/messages-received", {"message_id_list": ids})
            handled.update(ids)

    def take(self, attachment: Json) -> None:
        """One attachment of a delivery. Nothing in it may stop the others from being read."""
        try:
            answer = self.read(attachment)
        except Exception as error:  # the libraries raise what they like
            # Acknowledged like the others, or it would come first for ever; this line is its trace.
            reason = str(error)[:300]
            answer = {"outcome": "rejected", "delivery": attachment["id"], "reason": reason}
        if answer is not None:
            show(answer)
        long_ago = time.time() - 30 * DAY
        self.state["seen"] = {k: at for k, at in self.state["seen"].items() if at > long_ago}
        self.save()

    def read(self, attachment: Json) -> Json | None:
        """What there is to show of an envelope; nothing of one that was shown before."""
        data = attachment["data"]
        base = data.get("base64")
        message, sender = self.open(unbase64(base).decode() if base else json.dumps(data["json"]))
        body, key = message.get("body", {}), f"{sender} {message['id']}"
        about = str(message.get("pthid"))
        sent = self.state["sent"].get(about)
        if message["type"] == PROBLEM and sent and sender in self.state["mediators"]:
            # Our mediator gave up on theirs: only we can wrap the message for the next one.
            del self.state["sent"][about]
            try:
                return {"resent": self.deliver(sent["packed"], sent["peer"], sent["left"])}
            except Refused as refused:
                return {"undelivered": about, "reason": str(refused)}
        if message["type"] != DM or not isinstance(body.get("text"), str):
            raise Refused("Unsupported", f"a message of type {message['type']}, without a text")
        if sender and key in self.state["seen"]:
            return None
        self.state["seen"][key] = time.time()
        result = self.attribute(message, sender)
        return {**result, "text": body["text"], "from": sender, "id": message["id"]}


def show(answer: Json) -> None:
    # Half of a surrogate pair is no character, and other programs read no line that has one.
    whole = re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(answer, ensure_ascii=False))
    # Escaped by JSON: nothing that somebody wrote can steer a terminal.
    print(json.dumps(json.loads(whole)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Encrypted messages between atproto accounts.")
    commands = parser.add_subparsers(dest="command", required=True)
    enroll = commands.add_parser("enroll", help="publish a key, and have mail kept")
    enroll.add_argument("handle")
    enroll.add_argument("mediators", nargs="+")
    enroll.add_argument("--replace", action="store_true", help="of a key package that is there")
    resolve = commands.add_parser("resolve", help="what an account has published")
    resolve.add_argument("actor")
    resolve.add_argument("--accept", action="store_true", help="a changed key")
    send = commands.add_parser("send", help="write to an account")
    send.add_argument("actor")
    send.add_argument("text")
    send.add_argument("--anyway", action="store_true", help="also where others might read it")
    commands.add_parser("receive", help="take what waits")
    arguments = vars(parser.parse_args())
    command, client = arguments.pop("command"), Client()
    try:
        for name in ("DIRECTORY", "PDS", *(["PASSWORD"] if command == "enroll" else [])):
            if not os.environ.get(name):
                raise Refused("Usage", f"{name} is not set; see the head of this file")
        if command in ("send", "receive") and "mediators" not in client.state:
            raise Refused("Usage", f"{KEYS} holds no key; enroll first")
        if command == "resolve":
            found = client.resolve(arguments["actor"])
            if arguments["accept"] and found["changed"]:
                client.accept(found)
            show(found)
        else:
            getattr(client, command)(**arguments)
    except Exception as error:  # answers that are no answers raise anything
        sys.exit(str(error) if isinstance(error, Refused) else repr(error))


if __name__ == "__main__":
    main()

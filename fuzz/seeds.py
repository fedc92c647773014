"""Writes the first inputs of every fuzz target into corpus/, from the fixtures: seeds.py"""

import base64
import hashlib
import json
import pathlib

TOP = pathlib.Path(__file__).resolve().parent
FIXTURES = TOP.parent / "fixtures"


def write(target, content):
    folder = TOP / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def read(name):
    return json.loads((FIXTURES / name).read_text())


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def blocks(car):
    """The blocks of a CAR by their hash; nothing where it cannot be read."""
    found = {}
    length, at = varint(car, 0)
    at += length
    while at < len(car):
        length, at = varint(car, at)
        section = car[at : at + length]
        found[section[4:36]] = section[36:]
        at += length
    return found


def below_commit(car, root):
    """The tree and record of a CAR as the target `proof` takes them: root first, each block behind
    its length, and links as numbers of blocks."""
    found = blocks(car)
    order, queue = [], [root]
    while queue:
        digest = queue.pop(0)
        if digest in order or digest not in found:
            continue
        order.append(digest)
        queue += [other for other in found if other in found[digest]]
    if not order or len(order) > 32:
        return b""
    out = b""
    for digest in order:
        block = found[digest]
        for number, other in enumerate(order):
            block = block.replace(other, bytes([number]) * 32)
        if len(block) > 0xFFFF:
            return b""
        out += len(block).to_bytes(2, "big") + block
    return out


def proofs():
    for car in sorted((FIXTURES / "proof").glob("*.car")):
        content, about = car.read_bytes(), json.loads(car.with_suffix(".json").read_text())
        write("proof", content)
        try:
            root = base64.b32decode(about["data"][1:].upper() + "=" * (-len(about["data"][1:]) % 8))
            write("proof", below_commit(content, root[4:]))
            if about.get("cid"):
                cid = about["cid"][1:]
                record = base64.b32decode(cid.upper() + "=" * (-len(cid) % 8))[4:]
                write("key_package", blocks(content)[record])
        except (KeyError, IndexError, TypeError, ValueError):
            continue  # what is wrong with it is the point of the fixture


def documents():
    for name in ("valid", "invalid", "four"):
        for one in read(f"did-peer/{name}.json"):
            write("did_peer", one["did"])
    for document in sorted((FIXTURES / "did-documents").glob("*.json")):
        write("did_document", document.read_bytes())
    logs = read("plc/logs.json")
    for one in logs.values() if isinstance(logs, dict) else logs:
        write("plc_log", json.dumps(one["log"]))


def streams():
    for frame in sorted((FIXTURES / "frames").glob("*.bin")):
        write("frame", frame.read_bytes())
    collection = {"rev": "3l3", "collection": "at.didcomm.keyPackage", "rkey": "self"}
    start = {"did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "time_us": 1725911162329308}
    for more in (
        {"kind": "commit", "commit": {**collection, "operation": "create", "record": {"did": "x"}}},
        {"kind": "commit", "cursor": 7, "commit": {**collection, "operation": "delete"}},
        {"kind": "identity", "identity": {"handle": "alice.example.com", "seq": 1}},
        {"kind": "account", "account": {"active": False, "status": "deactivated"}},
        {"kind": "sync", "sync": {"rev": "3l3"}},
    ):
        write("jetstream", json.dumps({**start, **more}))


def messages():
    foreign = read("didcomm/affinidi/messages.json")["messages"]
    for one in read("didcomm/appendix-c/messages.json") + foreign:
        write("envelope", json.dumps(one["message"]))
    plain = read("didcomm/appendix-c/plaintext.json")
    write("envelope", json.dumps(plain))
    write("protocol", json.dumps(plain))
    doc = "https://didcomm.org/"
    for kind, body in (
        ("routing/2.0/forward", {"next": "did:peer:2.x"}),
        ("coordinate-mediation/2.0/mediate-request", {}),
        ("coordinate-mediation/3.0/mediate-grant", {"routing_did": ["did:web:m.example.com"]}),
        ("coordinate-mediation/2.0/keylist-update", {"updates": [{"recipient_key": "did:key:x", "action": "add"}]}),
        ("coordinate-mediation/3.0/recipient-update", {"updates": [{"recipient_did": "did:peer:2.x", "action": "remove"}]}),
        ("coordinate-mediation/3.0/recipient-query", {"paginate": {"limit": 5, "offset": 0}}),
        ("coordinate-mediation/3.0/recipient", {"dids": [{"recipient_did": "did:peer:2.x"}], "pagination": {"count": 1, "offset": 0, "remaining": 0}}),
        ("messagepickup/3.0/delivery-request", {"limit": 10, "recipient_did": "did:peer:2.x"}),
        ("message-pickup/4.0/delivery-request", {"message_count_limit": 10}),
        ("messagepickup/3.0/messages-received", {"message_id_list": ["1", "2"]}),
        ("messagepickup/3.0/live-delivery-change", {"live_delivery": True}),
        ("messagepickup/3.0/status", {"message_count": 7, "longest_waited_seconds": 3600, "newest_received_time": 1658085169}),
        ("messagepickup/3.0/delivery", {"recipient_did": "did:peer:2.x"}),
        ("trust-ping/2.0/ping", {"response_requested": True}),
        ("discover-features/2.0/queries", {"queries": [{"feature-type": "protocol", "match": "https://didcomm.org/*"}]}),
        ("discover-features/2.0/disclose", {"disclosures": [{"feature-type": "protocol", "id": doc, "roles": ["x"]}]}),
        ("report-problem/2.0/problem-report", {"code": "e.p.xfer", "comment": "{1}", "args": ["x"], "escalate_to": "mailto:a@b"}),
        ("out-of-band/2.0/invitation", {"goal_code": "x", "goal": "y", "accept": ["didcomm/v2"]}),
    ):
        attachments = [{"id": "1", "data": {"json": {"protected": "x"}}}, {"id": "2", "data": {"base64": "e30"}}]
        message = {"id": "1", "type": doc + kind, "from": "did:peer:2.a", "to": ["did:peer:2.b"], "body": body}
        write("protocol", json.dumps(message))
        write("protocol", json.dumps({**message, "attachments": attachments, "return_route": "all"}))
        write("protocol", base64.urlsafe_b64encode(json.dumps(message).encode()))


def others():
    for query in (
        "actor=alice.example.com",
        "actor=did:plc:ewvi7nxzyoun6zhxrhs64oiz&proof=true",
        "proof=false&actor=%40Alice.Example.com",
        "did=did:web:localhost%3A3000&limit=50&cursor=7",
        "actor=DID:PLC:ewvi7nxzyoun6zhxrhs64oiz&actor=x",
    ):
        write("xrpc", query)
    for alg, aud in (("ES256K", "did:web:dir.example.com"), ("ES256", "did:web:dir.example.com#atcomm_directory")):
        claims = {"iss": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "aud": aud, "exp": 1800000060, "iat": 1800000000}
        claims |= {"lxm": "at.didcomm.directory.getProof", "jti": "00"}
        parts = [json.dumps({"typ": "JWT", "alg": alg}).encode(), json.dumps(claims).encode(), bytes(64)]
        write("service_token", ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts))
    # A backup of two accounts with keys of nobody, made by this program: its document, and the file.
    for seed in sorted((TOP / "seeds").iterdir()):
        write(seed.name.split("-")[0], seed.read_bytes())


for make in (proofs, documents, streams, messages, others):
    make()

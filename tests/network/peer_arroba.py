#!/usr/bin/env python3
"""A PDS of another implementation: the arroba package, in memory.

usage: peer_arroba.py --plc http://localhost:2582 --port 2586 --token T [--handle erin.peer.test ...]

Makes one did:plc per handle, serves the repositories and the firehose on
loopback and prints one JSON line when ready. Records are written with the
ordinary com.atproto.repo.putRecord / deleteRecord and `Authorization: Bearer T`.
Ends with its standard input, so that it never outlives who started it.
"""
import argparse
import json
import os
import sys
import threading

parser = argparse.ArgumentParser()
parser.add_argument('--plc', required=True)
parser.add_argument('--port', type=int, required=True)
parser.add_argument('--token', required=True)
parser.add_argument('--handle', action='append', default=[])
args = parser.parse_args()


def end_with_stdin():
    while os.read(0, 4096):
        pass
    # Nothing is worth saving, and the server's threads do not end by themselves.
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()

# The package reads these when it is imported.
os.environ.update(PLC_HOST=args.plc.removeprefix('http://').rstrip('/'),
                  PDS_HOST=f'localhost:{args.port}',
                  REPO_TOKEN=args.token, REPO_PASSWORD=args.token)

import lexrpc.flask_server  # noqa: E402
import requests  # noqa: E402
from arroba import did as arroba_did, firehose, server  # noqa: E402
from arroba import xrpc_identity, xrpc_repo, xrpc_server, xrpc_sync  # noqa: E402, F401 (they register themselves)
from arroba.repo import Repo  # noqa: E402
from arroba.storage import MemoryStorage  # noqa: E402
from flask import Flask, request  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

url = f'http://localhost:{args.port}'


def post_plain(target, **kwargs):
    """The package always speaks https to its directory; ours is plain http."""
    return requests.post(target.replace('https://', 'http://', 1), timeout=10, **kwargs)


def on_event(data=None, lost_seq=None):
    if lost_seq:
        firehose.mark_seq_lost(lost_seq)
    else:
        firehose.send_events()


server.storage = MemoryStorage()
app = Flask('peer')


@app.get('/.well-known/atproto-did')
def well_known():
    repo = server.storage.load_repo(request.host.split(':')[0])
    return (repo.did, 200, {'Content-Type': 'text/plain'}) if repo else ('', 404)


lexrpc.flask_server.init_flask(server.server, app)

accounts = []
for handle in args.handle:
    plc = arroba_did.create_plc(handle, pds_url=url, post_fn=post_plain)
    Repo.create(server.storage, plc.did, handle=handle, callback=on_event,
                signing_key=plc.signing_key, rotation_key=plc.rotation_key)
    accounts.append({'handle': handle, 'did': plc.did})

firehose.start()
http = make_server('127.0.0.1', args.port, app, threaded=True)
print(json.dumps({'url': url, 'ws': f'ws://localhost:{args.port}/xrpc/com.atproto.sync.subscribeRepos',
                  'token': args.token, 'accounts': accounts}), flush=True)
sys.stdout.close()
http.serve_forever()

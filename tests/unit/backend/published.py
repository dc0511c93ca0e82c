"""An identity provider as the tests need it: key pairs, tokens signed with them, and a server that publishes a JWKS."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

SOON = datetime(2100, 1, 1, tzinfo=UTC)


@cache
def private_key(name):
    """``rsa-…`` and ``ec-…`` give keys of that kind, the same for the same name."""
    if name.startswith("ec"):
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if name == "rsa-small" else 2048)


def jwk(name, *, key=None, **changes):
    """The public key of that name as a JWK with the name as its kid."""
    key = key or private_key(name).public_key()
    algorithm = (
        ECAlgorithm if isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)) else RSAAlgorithm
    )
    entry = {**algorithm.to_jwk(key, as_dict=True), "kid": name, **changes}
    return {field: value for field, value in entry.items() if value is not None}


def jwks(*names):
    return {"keys": [jwk(name) for name in names]}


def signed(name, *, key=None, algorithm=None, headers=None, **claims):
    """An Authorization header with a token of user 1, signed with the key of that name."""
    algorithm = algorithm or ("ES256" if name.startswith("ec") else "RS256")
    claims = {"sub": "1", "exp": SOON, **claims}
    token = jwt.encode(claims, key or private_key(name), algorithm=algorithm, headers={"kid": name, **(headers or {})})
    return {"Authorization": f"Bearer {token}"}


class Provider:
    """Publishes ``content``, an object or raw bytes, and counts how often it was asked; ``open`` lets it answer."""

    def __init__(self, content):
        self.content = content
        self.asked = 0
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.url = ""

    def answer(self, handler):
        self.asked += 1
        self.reached.set()
        self.open.wait(timeout=30)
        body = self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()
        handler.send_response(self.status)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def provider(content):
    found = Provider(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/jwks"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.open.set()
        server.shutdown()
        thread.join()
        server.server_close()

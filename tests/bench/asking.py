"""A request as bytes, written once: what asks has then nothing to do but send it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from http.client import HTTPResponse

from tests.bench.questions import FIRST_SERIAL, SERIAL

TIMEOUT_SECONDS = 120


class Refused(AssertionError):
    """An answer that is not a 200."""


@dataclass(frozen=True)
class Request:
    """One request; ``SERIAL`` may stand anywhere in target and body."""

    target: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def template(self) -> str:
        """The request as it goes over the wire, with ``SERIAL`` still in it."""
        length = {"Content-Length": str(len(self.body.encode()))} if self.body else {}
        headers = {"Host": "127.0.0.1", **self.headers, **length}
        lines = [f"{'POST' if self.body else 'GET'} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", self.body])

    def repeated(self) -> Request:
        """The same request with one and the same number each time."""
        return Request(_numbered(self.target, FIRST_SERIAL), _numbered(self.body, FIRST_SERIAL), self.headers)

    def ask(self, port: int, serial: int = FIRST_SERIAL) -> bytes:
        """Body of the answer, on a connection of its own. Raises Refused, or OSError."""
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(_numbered(self.template(), serial).encode())
            answer = HTTPResponse(connection)
            answer.begin()
            body = answer.read()
        if answer.status != 200:
            raise Refused(f"{self.target[:200]} on port {port}: {answer.status} {body[:500].decode(errors='replace')}")
        return body


def _numbered(text: str, serial: int) -> str:
    return text.replace(SERIAL, str(serial))

"""A parameter's text, read from left to right; what doesn't fit is a 400 that names the place."""

from __future__ import annotations

import re

from backend.api.problems import ApiError, bad_parameter

_BARE = re.compile(r'[^,.:()"]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


class Scanner:
    """The text of a parameter, and how far it was read; ``value`` is which of several it is, from 1."""

    def __init__(self, parameter: str, text: str, *, value: int | None = None) -> None:
        self.parameter = parameter
        self.text = text
        self.position = 0
        self._value = value

    @property
    def done(self) -> bool:
        """Whether all of it was read."""
        return self.position == len(self.text)

    def take(self, token: str) -> bool:
        """Read this token if it is next."""
        found = self.text.startswith(token, self.position)
        if found:
            self.position += len(token)
        return found

    def until(self, stops: str) -> str:
        """Read up to the next of these characters, or to the end; may be nothing."""
        start = self.position
        found = re.compile(f"[{re.escape(stops)}]").search(self.text, start)
        self.position = found.start() if found else len(self.text)
        return self.text[start : self.position]

    def rest(self) -> str:
        """Read to the end; may be nothing."""
        start, self.position = self.position, len(self.text)
        return self.text[start:]

    def spaces(self) -> None:
        """Read past spaces, which mean nothing around names."""
        while self.take(" "):
            pass

    def name(self, expected: str) -> str:
        """Read a name: in double quotes, else up to one of ``,.:()``. Raises ApiError when there is none."""
        self.spaces()
        if self.at('"'):
            start = self.position
            name = self.quoted()
            if not name:
                raise self.fail(expected, at=start)
            self.spaces()
            return name
        match = _BARE.match(self.text, self.position)
        if match is None:
            raise self.fail(expected)
        self.position = match.end()
        return match[0].strip(" ")

    def at(self, token: str) -> bool:
        """Whether this token is next."""
        return self.text.startswith(token, self.position)

    def quoted(self) -> str:
        """Read text in double quotes, in which a backslash makes the next character plain. Raises ApiError."""
        match = _QUOTED.match(self.text, self.position)
        if match is None:
            raise self.fail("a closing double quote", at=len(self.text))
        self.position = match.end()
        return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)

    def expect(self, token: str, expected: str | None = None) -> None:
        """Read this token. Raises ApiError when it isn't next."""
        if not self.take(token):
            raise self.fail(expected or repr(token))

    def fail(self, expected: str, *, at: int | None = None) -> ApiError:
        """The error that something else was expected here, or ``at`` an earlier place."""
        position = self.position if at is None else at
        return bad_parameter(
            self.parameter,
            expected=expected,
            came=self.text[position:] or None,
            position=position + 1,
            value=self._value,
        )

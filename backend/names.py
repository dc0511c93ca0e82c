"""Which names datasets and columns can have, so that they mean one thing in every place they go to.

A dataset's is the name of a file, a segment of a URL, a table and a label; a column's stands in SQL, in files of every
format and in URLs. Why these rules: ``deploy/decisions/0018-types.md``.
"""

from __future__ import annotations

import string
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

MAX_BYTES = 240
"""Of a dataset's name: ``tmp_<name>.parquet`` is a file name of up to 255 bytes, ``<name>.parquet`` Linux's name of a
copy in memory, of up to 249."""

_SEPARATORS = "/\\"
_WILDCARDS = "*?["
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def folded(name: str) -> str:
    """The name as DuckDB tells it from others: A is a, but Ä is not ä, nor is é in one character é in two."""
    return name.translate(_LOWER)


def unfit_datasets(names: Iterable[str]) -> dict[str, str]:
    """Those of the names that datasets of one snapshot can't have, and why, with a way out."""
    names = list(names)
    # Stricter than DuckDB: a host's file system may ignore more than it does.
    unfit = _alike(names, lambda name: unicodedata.normalize("NFC", name).casefold())
    for name in names:
        if why := _unfit_dataset(name):
            unfit[name] = why
    return {name: f"{why}; give the model another name, or an alias" for name, why in unfit.items()}


def unfit_columns(names: Iterable[str]) -> dict[str, str]:
    """Those of the names that columns of one dataset can't have, and why, with a way out."""
    names = list(names)
    unfit = _alike(names, folded)
    for name in names:
        if not name:
            unfit[name] = "it has no character"
        elif "\0" in name or not _encodes(name):
            unfit[name] = "SQL has no way to write it"
    return {
        name: f"no column can be called {name!r}: {why}; rename it in the model (SELECT … AS …)"
        for name, why in unfit.items()
    }


def _unfit_dataset(name: str) -> str | None:
    if not name:
        return "its name has no character"
    if found := [
        letter for letter in name if letter in _SEPARATORS + _WILDCARDS or unicodedata.category(letter) == "Cc"
    ]:
        return f"its name has {found[0]!r}, which file names, patterns or URLs read as something else"
    if name.startswith("."):
        return "its name begins with a dot, as those of hidden files and of directories above do"
    if not _encodes(name):
        return "its name is no valid Unicode"
    if len(name.encode()) > MAX_BYTES:
        return (
            f"its name has {len(name.encode())} bytes in UTF-8, more than the {MAX_BYTES} that a file name has room for"
        )
    return None


def _encodes(name: str) -> bool:
    """Whether it is text: what Python makes of file names that aren't UTF-8 is none."""
    return not any(unicodedata.category(letter) == "Cs" for letter in name)


def _alike(names: list[str], key: Callable[[str], str]) -> dict[str, str]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return {
        name: f"{', '.join(map(repr, group))} are one name where case is ignored"
        for group in groups.values()
        if len(group) > 1
        for name in group
    }

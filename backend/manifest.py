"""What a snapshot says of itself: its ``manifest.json`` as typed records."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backend.errors import SnapshotCorrupt
from backend.names import folded

FILE_NAME = "manifest.json"
USER_COLUMN = "user_id"
# The checksum is the last of the file, and of the text that there would be without it.
_END = "\n}"
_CHECKSUM = ',\n "sha256": "'
_AFTER_CHECKSUM = '"\n}\n'


@dataclass(frozen=True)
class Column:
    """One column of a mart: its name, DuckDB type (``DECIMAL(12,2)``) and description."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class MartSpec:
    """A mart as the dbt project declares it, before anything was built.

    ``code`` identifies the SQL it is built by and ``sources`` names the source tables it is built from, so that a
    partial build can tell which of its parent's marts are still good. ``scope`` names the column that says whose row it
    is: any but the default was asked for by name, and the mart must have it.
    """

    name: str
    label: str
    description: str
    columns: tuple[Column, ...]
    code: str = ""
    sources: tuple[str, ...] = ()
    scope: str = USER_COLUMN

    @property
    def user_column(self) -> str | None:
        """The column that says whose row it is; None when the mart belongs to everybody."""
        scope = folded(self.scope)
        return next((column.name for column in self.columns if folded(column.name) == scope), None)


@dataclass(frozen=True)
class Mart(MartSpec):
    """A mart as it lies in a snapshot: row count, size in bytes, SHA-256 of the file, and when it was built."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    built_at: datetime = datetime.min  # noqa: DTZ901 - always given; a default only because MartSpec has some

    @property
    def spec(self) -> MartSpec:
        """The declaration this mart was built from."""
        return MartSpec(self.name, self.label, self.description, self.columns, self.code, self.sources, self.scope)


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``.

    ``source`` maps each source table to the fingerprint of its rows at the one moment that all marts were built
    from; it is empty when a publisher has no such notion. ``state`` maps the files that the next build goes on from, by
    their path below the snapshot's ``state/``, to their SHA-256.
    """

    id: str
    parent: str | None
    created_at: datetime
    marts: dict[str, Mart]
    run_id: str = ""
    source: dict[str, str] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text of ``manifest.json``; ``sha256`` in it is that of all the rest.

        A default ``scope`` or ``state`` is left out, for readers from before there was a choice.
        """
        data = dict(vars(self))
        data["marts"] = [
            {**vars(mart), "columns": [vars(column) for column in mart.columns]} for mart in self.marts.values()
        ]
        for entry in (data, *data["marts"]):
            for name, default in (("scope", USER_COLUMN), ("state", {})):
                if entry.get(name) == default:
                    del entry[name]
        # Not indented, which json does in Python, and takes longer over than all else that publishing a thousand takes.
        rest = json.dumps(data, default=datetime.isoformat, ensure_ascii=False).removesuffix("}")
        return rest + _CHECKSUM + _sha256(rest + _END) + _AFTER_CHECKSUM

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest in the file ``path``. Raises SnapshotCorrupt when it is missing or not what was written."""
        try:
            return cls._from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SnapshotCorrupt(
                f"reading the manifest {path} failed: {type(error).__name__}: {error}",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
            ) from error

    @classmethod
    def _from_json(cls, text: str) -> Manifest:
        rest, _, checksum = text.rpartition(_CHECKSUM)
        if checksum != _sha256(rest + _END) + _AFTER_CHECKSUM:
            raise ValueError("its checksum says that it was changed")
        data: dict[str, Any] = json.loads(rest + _END)
        marts = {}
        for entry in data["marts"]:
            entry["columns"] = tuple([_column(**column) for column in entry["columns"]])
            entry["sources"] = tuple(entry.get("sources", ()))
            entry["built_at"] = datetime.fromisoformat(entry["built_at"])
            marts[entry["name"]] = Mart(**entry)
        return cls(**{**data, "marts": marts, "created_at": datetime.fromisoformat(data["created_at"])})


@functools.lru_cache(maxsize=10_000)  # marts have many columns in common
def _column(name: str, type: str, description: str = "") -> Column:  # noqa: A002 - what Column calls it
    return Column(name, type, description)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def label_for(mart: str) -> str:
    """A name for people: ``fct_transactions`` gives ``Transactions``, ``agg_daily_balance`` ``Daily balance``."""
    stem = mart.split("_", 1)[1] if mart.startswith(("dim_", "fct_", "agg_")) else mart
    words = stem.replace("_", " ").strip() or mart
    return words[0].upper() + words[1:]

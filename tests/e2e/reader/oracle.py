"""What a snapshot has to answer, from a copy of its files that was compared with its manifest.

Nothing of the backend is used, nor DuckDB: Arrow reads the files, so that an error of theirs can't hide itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any

import docker
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .queries import ALL_ROWS, Query, Read

_COPIES = 6  # snapshots in memory


class NotPublished(Exception):
    """No snapshot of that id was published."""


class Tampered(Exception):
    """What was published is not what its manifest says."""


@dataclass(frozen=True)
class HostDirectory:
    """Snapshots below ``$PARQUET_DIR`` as this machine sees it."""

    root: Path

    def files(self, snapshot: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / "snapshots" / snapshot).iterdir()}


@dataclass(frozen=True)
class InContainer:
    """Snapshots on a volume, copied out of a container that mounts it at ``root``."""

    container: str
    root: str

    def files(self, snapshot: str) -> dict[str, bytes]:
        engine = docker.from_env()
        try:
            chunks, _ = engine.containers.get(self.container).get_archive(f"{self.root}/snapshots/{snapshot}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                members = [member for member in archive.getmembers() if member.isfile()]
                return {Path(m.name).name: archive.extractfile(m).read() for m in members}
        except docker.errors.NotFound as error:
            raise FileNotFoundError(str(error)) from error
        finally:
            engine.close()


class Copy:
    """One snapshot's content. Raises NotPublished or Tampered."""

    def __init__(self, source: HostDirectory | InContainer, snapshot: str) -> None:
        try:
            files = source.files(snapshot)
            self.manifest = json.loads(files.pop("manifest.json"))
        except (FileNotFoundError, KeyError) as error:
            raise NotPublished(f"{snapshot} is no published snapshot: {error}") from error
        self.marts = {mart["name"]: mart for mart in self.manifest["marts"]}
        self._tables: dict[str, pa.Table] = {}
        self._files = files
        if self.manifest["id"] != snapshot or set(files) != {f"{name}.parquet" for name in self.marts}:
            raise Tampered(f"{snapshot} holds {sorted(files)}, its manifest is of {self.manifest['id']}")
        for name, mart in self.marts.items():
            content = files[f"{name}.parquet"]
            rows = pq.ParquetFile(io.BytesIO(content)).metadata.num_rows
            if (hashlib.sha256(content).hexdigest(), len(content), rows) != (
                mart["sha256"],
                mart["bytes"],
                mart["rows"],
            ):
                raise Tampered(f"{name} of {snapshot} is not what its manifest says")

    def table(self, mart: str) -> pa.Table:
        if mart not in self._tables:
            self._tables[mart] = pq.read_table(io.BytesIO(self._files[f"{mart}.parquet"]))
        return self._tables[mart]

    def visible(self, mart: str, user: int) -> pa.Table:
        table = self.table(mart)
        if user == ALL_ROWS or "user_id" not in table.column_names:
            return table
        return table.filter(pc.equal(table["user_id"], user))

    def dataset(self, mart: str, user: int) -> dict[str, Any]:
        described = self.marts[mart]
        return {
            "id": mart,
            "name": described["label"],
            "description": described["description"].strip(),
            "columns": [{**column, "description": column["description"].strip()} for column in described["columns"]],
            "row_count": self.visible(mart, user).num_rows,
        }

    def answer(self, query: Query, user: int) -> dict[str, Any]:
        """Columns, rows on the wire, and whether there is a next page."""
        table = self.visible(query.dataset, user)
        for column, text in query.filters:
            table = table.filter(pc.equal(table[column], text))
        if query.order:
            # Indices are stable: ties stay in the mart's order.
            keys = [_order(term) for term in query.order]
            if any(table[name].null_count for name, _ in keys):
                raise NotImplementedError(f"order by a column with NULLs: {query.order}")
            table = table.take(pc.sort_indices(table, sort_keys=keys))
        names = list(query.select) or table.column_names
        page = table.select(names).slice(query.offset, query.limit)
        types = {column["name"]: column["type"] for column in self.marts[query.dataset]["columns"]}
        return {
            "columns": [{"name": name, "type": types[name]} for name in names],
            "rows": [dict(zip(names, row, strict=True)) for row in zip(*map(_wire, page.columns), strict=True)],
            "more": table.num_rows > query.offset + query.limit,
        }


def _order(term: str) -> tuple[str, str]:
    name, _, descending = term.partition(".")
    return name, "descending" if descending == "desc" else "ascending"


def _wire(column: pa.ChunkedArray) -> list[Any]:
    """The column's values as an answer that was parsed has them."""
    return [_value(value) for value in column.to_pylist()]


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat()
        text = text.rstrip("0") if "." in text else text  # DuckDB shows as many digits of a second as there are
        return text + ("+00:00" if value.tzinfo else "")
    return value.isoformat() if isinstance(value, date) else value


class Oracle:
    """Copies of the snapshots that answers name, made when the first of them comes in."""

    def __init__(self, source: HostDirectory | InContainer) -> None:
        self._source = source
        self._copies: OrderedDict[str, Copy] = OrderedDict()

    def snapshot(self, snapshot: str) -> Copy:
        """Raises NotPublished or Tampered."""
        if snapshot not in self._copies:
            self._copies[snapshot] = Copy(self._source, snapshot)
            if len(self._copies) > _COPIES:
                self._copies.popitem(last=False)
        self._copies.move_to_end(snapshot)
        return self._copies[snapshot]


def compare(what: str, found: Any, expected: Any) -> Iterator[str]:
    """To the digit and the type: 1.50 is not 1.5, and 1 is not true."""
    if repr(found) == repr(expected):
        return
    if isinstance(found, list) and isinstance(expected, list):
        same = takewhile(lambda pair: repr(pair[0]) == repr(pair[1]), zip(found, expected, strict=False))
        at = sum(1 for _ in same)
        yield (
            f"{what}: {len(found)} where the snapshot has {len(expected)}, the first that differs is number {at}: "
            f"{found[at : at + 1]} instead of {expected[at : at + 1]}"
        )
    else:
        yield f"{what} is {found!r}, in the snapshot {expected!r}"


def answers_as_published(oracle: Oracle, read: Read, snapshot: str | None, answer: Mapping[str, Any]) -> Iterator[str]:
    """The answer is what the snapshot that it names has to answer, and nothing else."""
    if snapshot is None:
        yield "no snapshot is named"
        return
    try:
        copy = oracle.snapshot(snapshot)
    except (NotPublished, Tampered) as error:
        yield str(error)
        return
    if read.kind == "dataset":
        yield from compare("dataset", answer, copy.dataset(read.queries[0].dataset, read.user))
        return
    yield from compare("last_refresh", answer["last_refresh"], copy.manifest["created_at"])
    if read.kind == "listing":
        yield from compare(
            "datasets", answer["datasets"], [copy.dataset(name, read.user) for name in sorted(copy.marts)]
        )
        return
    results = answer["results"] if read.kind == "batch" else [answer]
    yield from compare("datasets asked", [r["dataset"] for r in results], [q.dataset for q in read.queries])
    for query, result in zip(read.queries, results, strict=False):
        expected = copy.answer(query, read.user)
        yield from compare(f"columns of {query.dataset}", result["columns"], expected["columns"])
        yield from compare(f"rows of {query.dataset}", result["rows"], expected["rows"])
        yield from compare(f"next page of {query.dataset}", result["next"] is not None, expected["more"])

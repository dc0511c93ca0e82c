"""The store's own look at what a build wrote, before any of it is published."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

import duckdb

from backend.checksum import file_sha256
from backend.errors import AuditFailed
from backend.manifest import USER_COLUMN, Column, Mart, MartSpec
from backend.names import unfit_columns, unfit_datasets
from backend.parquet_types import as_kept, changes, losses
from backend.quoting import literal, only, parquet_file, quoted

FINGERPRINT = "count(*) || ':' || coalesce(sum(hash(t)), 0)"
"""SQL: content of the rows of a relation ``t``, whatever their order, duplicates counted. The dbt macro
``fingerprint`` says the same."""


@dataclass(frozen=True)
class Written:
    """What a builder wrote: the FINGERPRINT of a mart's rows, and the SHA-256 of the file right after writing it.

    The second one knows about what no scan of the rows comes across, such as statistics that readers skip by.
    """

    fingerprint: str
    sha256: str


def parquet_columns(connection: duckdb.DuckDBPyConnection, path: Path) -> list[Column]:
    """Names and DuckDB types of a Parquet file's columns, in order."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {parquet_file(path)}").fetchall()  # noqa: S608 - quoted
    return [Column(name=row[0], type=row[1]) for row in rows]


def parquet_rows(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """How many rows a Parquet file has, by its footer."""
    # No parameter: to see what kind of value one is, DuckDB imports numpy, and pandas where there is one, which takes
    # longer than the audit.
    sql = f"SELECT num_rows FROM parquet_file_metadata({literal(only(path))})"  # noqa: S608 - quoted
    ((rows,),) = connection.execute(sql).fetchall()
    return int(rows)


def audit_directory(
    directory: Path,
    specs: Sequence[MartSpec],
    *,
    written: Mapping[str, Written],
    linked: Mapping[str, Mart],
    built_at: datetime,
) -> dict[str, Mart]:
    """Check every mart in ``directory`` and describe it.

    A mart must have a name, columns and types that keep what they are wherever they go, be readable to its last row,
    have the declared columns in the declared order, with the types they have in Parquet, the one that was named to say
    whose row it is among them, must not be the one all-NULL row that dbt-duckdb writes for an empty mart, must hold as
    many rows as its footer says and, where ``written`` says what the builder wrote, exactly that. ``linked`` are marts
    taken over from the parent: they were audited when they were built, and must be the same files still, of which those
    are hashed that may have been written to since.

    Raises AuditFailed naming every mart that is not fit, and why.
    """
    marts = {}
    expected = {f"{spec.name}.parquet" for spec in specs}
    others = sorted(set(os.listdir(directory)) - expected)
    problems = [f"{name}: no mart is declared by this name" for name in others]
    unfit = unfit_datasets(spec.name for spec in specs)
    problems += [f"{name!r}: {why}" for name, why in unfit.items()]
    with duckdb.connect(config={"threads": 2}) as connection:
        for spec in specs:
            if spec.name in unfit:
                continue
            path = f"{directory}/{spec.name}.parquet"  # a Path takes longer to make than to look at
            try:
                if mart := linked.get(spec.name):
                    marts[spec.name] = _audit_link(path, spec, mart)
                else:
                    kept = replace(spec, columns=_publishable(spec.columns))
                    marts[spec.name] = _audit_file(connection, Path(path), kept, written.get(spec.name), built_at)
            except _OtherContent as error:
                problems.append(f"{spec.name}: {'; '.join([str(error), *changes(spec.columns)])}")
            except (_Unfit, duckdb.Error, OSError) as error:
                problems.append(f"{spec.name}: {error}")
    if problems:
        raise AuditFailed(
            "the audit refused this build: " + "; ".join(problems),
            hint="nothing was published; fix the model (or build everything, if a partial build), then run again",
        )
    return marts


class _Unfit(Exception):
    pass


class _OtherContent(_Unfit):
    """Also what a builder gets to see whose columns have another type in Parquet: the same values, other hashes."""


def _publishable(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns as Parquet keeps them."""
    if not columns:
        raise _Unfit("it has no columns; a mart needs one, such as count(*) AS n")
    if unfit := unfit_columns(column.name for column in columns):
        raise _Unfit("; ".join(unfit.values()))
    if lost := losses(columns):
        raise _Unfit("; ".join(lost))
    return as_kept(columns)


def _audit_link(path: str, spec: MartSpec, mart: Mart) -> Mart:
    if not (_untouched(path, mart) or (os.path.isfile(path) and file_sha256(Path(path)) == mart.sha256)):
        raise _Unfit("the file taken over from the parent snapshot is not the one that was published")
    if replace(spec, code=mart.code, sources=mart.sources) == mart.spec:  # which was fit when it was built
        return mart
    columns = _publishable(spec.columns)
    _compare_columns(mart.columns, columns)
    _check_scope(spec)
    return replace(mart, label=spec.label, description=spec.description, columns=columns, scope=spec.scope)


def _untouched(path: str, mart: Mart) -> bool:
    """Whether nobody has written to the file since it was audited; of a copy nobody knows.

    A disk that gives back other bytes without that is found by whoever opens the snapshot, and by scrubbing.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    regular = stat.S_ISREG(found.st_mode)
    return regular and found.st_size == mart.bytes and found.st_mtime < mart.built_at.timestamp()


def _audit_file(
    connection: duckdb.DuckDBPyConnection, path: Path, spec: MartSpec, written: Written | None, built_at: datetime
) -> Mart:
    if not path.is_file():
        raise _Unfit(f"{path.name} was not written")
    _compare_columns(parquet_columns(connection, path), spec.columns)
    _check_scope(spec)
    # The fingerprint needs every column of every row, so a damaged page anywhere fails here.
    nothing = " AND ".join(f"{quoted(column.name)} IS NULL" for column in spec.columns)
    scanned, empty, content = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {nothing}), {FINGERPRINT} FROM {parquet_file(path)} AS t"  # noqa: S608
    ).fetchall()[0]
    footer = parquet_rows(connection, path)
    if scanned != footer:
        raise _Unfit(f"{scanned} rows were read, its footer says {footer}")
    if scanned == empty == 1:
        raise _Unfit("its only row is NULL in every column: the sentinel of an empty mart")
    if written is not None and content != written.fingerprint:
        raise _OtherContent(f"its content has fingerprint {content}, dbt meant to write {written.fingerprint}")
    sha256 = file_sha256(path)
    if written is not None and sha256 != written.sha256:
        raise _Unfit(f"the file has SHA-256 {sha256}, it had {written.sha256} when it was written")
    declaration = {field.name: getattr(spec, field.name) for field in fields(MartSpec)}
    return Mart(**declaration, rows=scanned, bytes=path.stat().st_size, sha256=sha256, built_at=built_at)


def _check_scope(spec: MartSpec) -> None:
    """A mart without the default column is everybody's; one without the column that was asked for must not be."""
    types = {column.name: column.type for column in spec.columns}
    if spec.scope not in types and spec.scope != USER_COLUMN:
        raise _Unfit(f"the column {spec.scope!r} is to say whose row it is, and it has only {', '.join(types)}")


def _compare_columns(found: Sequence[Column], declared: Sequence[Column]) -> None:
    def listed(columns: Sequence[Column]) -> list[tuple[str, str]]:
        return [(column.name, column.type) for column in columns]

    if listed(found) != listed(declared):
        texts = [", ".join(" ".join(pair) for pair in listed(columns)) for columns in (found, declared)]
        raise _Unfit(f"its columns are ({texts[0]}), declared are ({texts[1]})")

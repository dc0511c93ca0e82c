"""Faults of the store layer: files in ``building/``, published files, manifests, the pointer."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb

from tests.chaos import marts
from tests.chaos.faults import EITHER, OLDER, UNAVAILABLE, Ended, Fault
from tests.chaos.store_site import StoreSite

FAULTS: list[Fault] = []
Damage = Callable[[Path, random.Random], str]


def fault(name: str, *, full: int, fast: int = 1, **options: object) -> Callable:
    """Put the function below into the matrix."""

    def register(inject: Callable[[StoreSite, random.Random, int], Ended]) -> Callable:
        FAULTS.append(Fault(name, "store", inject, full, fast, **options))
        return inject

    return register


# --- what can befall a file ---------------------------------------------------------------------------------------


def truncated(path: Path, dice: random.Random) -> str:
    length = dice.randrange(path.stat().st_size)
    os.truncate(path, length)
    return f"to {length} bytes"


def bit_flipped(path: Path, dice: random.Random) -> str:
    offset, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
    _flip(path, offset, bit)
    return f"bit {bit} of byte {offset}"


def footer_bit_flipped(path: Path, dice: random.Random) -> str:
    """Schema, statistics and page index: what a scan of the rows may never look at."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    offset, bit = len(content) - 8 - length + dice.randrange(length), dice.randrange(8)
    _flip(path, offset, bit)
    return f"bit {bit} of byte {offset}, in the footer"


def zeroed(path: Path, dice: random.Random) -> str:
    """As if some of it never reached the disk."""
    size = path.stat().st_size
    start = dice.randrange(size)
    length = min(dice.choice([1, 16, 512, 4096]), size - start)
    before = path.read_bytes()
    if not any(before[start : start + length]):
        return bit_flipped(path, dice)
    _rewrite(path, before[:start] + bytes(length) + before[start + length :])
    return f"{length} bytes from {start} zeroed"


def removed(path: Path, _: random.Random) -> str:
    path.unlink()
    return "removed"


def emptied(path: Path, _: random.Random) -> str:
    os.truncate(path, 0)
    return "emptied"


def overwritten(path: Path, dice: random.Random) -> str:
    """In place, by an intact file of other content."""
    other = _other(path, dice)
    _rewrite(path, other.read_bytes())
    other.unlink()
    return "overwritten in place"


def replaced(path: Path, dice: random.Random) -> str:
    """By rename, by an intact file of other content."""
    _other(path, dice).replace(path)
    return "replaced by rename"


def _other(path: Path, dice: random.Random) -> Path:
    other = path.with_name(f"{path.stem}.other")
    with duckdb.connect() as connection:
        marts.write(connection, other, marts.select(path.stem, 1_000_000 + dice.randrange(1000)))
    return other


def _flip(path: Path, offset: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    _rewrite(path, bytes(content))


def _rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(len(content))
        file.write(content)


def _some_mart(directory: Path, dice: random.Random) -> Path:
    return directory / f"{dice.choice(marts.NAMES)}.parquet"


# --- between writing and publishing -------------------------------------------------------------------------------


def _in_building(damage: Damage) -> Callable[[StoreSite, random.Random, int], Ended]:
    def inject(site: StoreSite, dice: random.Random, _: int) -> Ended:
        with site.between_write_and_publish() as (faulty, directory):
            path = _some_mart(directory, dice)
            done = f"{path.name}: {damage(path, dice)}"
        ended = site.ended(faulty)
        return Ended(ended.how, f"{done}: {ended.message}", None)

    return inject


for damage, full, fast in (
    (truncated, 30, 1), (bit_flipped, 40, 2), (footer_bit_flipped, 40, 2), (zeroed, 12, 1), (removed, 4, 1),
    (emptied, 2, 1), (overwritten, 4, 1), (replaced, 4, 1),
):  # fmt: skip
    FAULTS.append(
        Fault(f"file in building/ {damage.__name__.replace('_', ' ')}", "store", _in_building(damage), full, fast)
    )


def _other_columns(change: Callable[[str, random.Random], str]) -> Callable[[StoreSite, random.Random, int], Ended]:
    """A mart whose rows or columns are not those declared; the builder notes them faithfully as what it wrote."""

    def inject(site: StoreSite, dice: random.Random, _: int) -> Ended:
        plan = site.plan(instead={(name := dice.choice(marts.NAMES)): change(name, dice)})
        return site.ended(site.start(plan))

    return inject


def _columns(name: str) -> list[str]:
    return [column.name for column in next(spec for spec in marts.SPECS if spec.name == name).columns]


def column_dropped(name: str, dice: random.Random) -> str:
    return f"SELECT * EXCLUDE ({dice.choice(_columns(name))}) FROM ({{mart}})"


def column_retyped(name: str, dice: random.Random) -> str:
    column = dice.choice(_columns(name))
    kind = dice.choice(["VARCHAR[]", "BLOB", "HUGEINT", "DOUBLE", "DECIMAL(13,2)", "SMALLINT"])
    return f"SELECT * REPLACE (TRY_CAST({column}::VARCHAR AS {kind}) AS {column}) FROM ({{mart}})"


def columns_reordered(name: str, dice: random.Random) -> str:
    columns = _columns(name)
    order = dice.sample(columns, len(columns))
    return f"SELECT {', '.join(order if order != columns else reversed(columns))} FROM ({{mart}})"


def column_added(_: str, dice: random.Random) -> str:
    return f"SELECT *, {dice.randrange(9)} AS one_more FROM ({{mart}})"


def column_renamed(name: str, dice: random.Random) -> str:
    column = dice.choice(_columns(name))
    return f"SELECT * RENAME ({column} AS {column}_2) FROM ({{mart}})"


def all_null_sentinel(name: str, _: random.Random) -> str:
    nothing = ", ".join(f"NULL AS {column}" for column in _columns(name))
    return f"SELECT * FROM ({{mart}}) WHERE false UNION ALL BY NAME SELECT {nothing}"


for change, full in (
    (column_dropped, 6), (column_retyped, 8), (columns_reordered, 6), (column_added, 4), (column_renamed, 4),
    (all_null_sentinel, 6),
):  # fmt: skip
    FAULTS.append(Fault(change.__name__.replace("_", " "), "store", _other_columns(change), full, 1))


@fault("mart missing from the build", full=4)
def mart_missing(site, dice, _):
    return site.ended(site.start(site.plan(instead={dice.choice(marts.NAMES): ""})))


@fault("mart that nobody declared", full=4)
def mart_too_many(site, dice, _):
    with site.between_write_and_publish() as (faulty, directory):
        shutil.copyfile(_some_mart(directory, dice), directory / "fct_surplus.parquet")
    return site.ended(faulty)


@fault("two marts' files swapped", full=4)
def files_swapped(site, _dice, _):
    with site.between_write_and_publish() as (faulty, directory):
        one, other = directory / "fct_in.parquet", directory / "fct_out.parquet"
        one.rename(directory / "held")
        other.rename(one)
        (directory / "held").rename(other)
    return site.ended(faulty)


@fault("empty mart", full=5)
def empty_mart(site, dice, _):
    """No fault at all: a mart of no rows is published as one, never as a row of NULLs."""
    name = dice.choice(marts.NAMES)
    plan = site.plan(instead={name: "SELECT * FROM ({mart}) WHERE false"})
    run = site.start(plan)
    ended = site.ended(run)
    return Ended(ended.how, ended.message, marts.expected(site.marts(plan), empty=(name,)))


# --- what is published --------------------------------------------------------------------------------------------


def _published(damage: Damage) -> Callable[[StoreSite, random.Random, int], Ended]:
    def inject(site: StoreSite, dice: random.Random, _: int) -> Ended:
        path = _some_mart(site.current, dice)
        return Ended("never served", f"{path.name}: {damage(path, dice)}")

    return inject


for damage, full, fast in (
    (truncated, 12, 1), (bit_flipped, 24, 1), (footer_bit_flipped, 12, 1), (zeroed, 8, 1), (removed, 4, 1),
    (overwritten, 8, 1), (replaced, 4, 1),
):  # fmt: skip
    name = damage.__name__.replace("_", " ")
    FAULTS.append(Fault(f"published file {name}", "store", _published(damage), full, fast, cold=OLDER))
    # Beyond the memory's budget the files themselves are read: the one before is served then, never the damage.
    on_disk = f"published file {name}, read from disk"
    FAULTS.append(Fault(on_disk, "store", _published(damage), full // 4, 1, cold=OLDER, warm=OLDER, site="disk"))


@fault("published snapshot's directory removed", full=4, cold=OLDER)
def directory_removed(site, _dice, _):
    shutil.rmtree(site.current)
    return Ended("never served")


@fault("everything in PARQUET_DIR removed", full=4, cold=UNAVAILABLE)
def everything_removed(site, _dice, _):
    for path in site.root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return Ended("never served")


@fault("partial build over a damaged snapshot", full=6, cold=OLDER)
def partial_build_over_damage(site, dice, _):
    damage = dice.choice([bit_flipped, truncated, removed])
    damage(site.current / "agg_months.parquet", dice)
    return site.ended(site.start(site.plan(only=("fct_in",))))


# --- manifests ----------------------------------------------------------------------------------------------------


def manifest_of_another_snapshot(path: Path, dice: random.Random) -> str:
    others = [p for p in path.parent.parent.glob("*/manifest.json") if p != path and p.exists()]
    _rewrite(path, dice.choice(sorted(others)).read_bytes())
    return "of another snapshot"


def manifest_of_another_shape(path: Path, dice: random.Random) -> str:
    data = json.loads(path.read_text())
    how = dice.randrange(6)
    if how == 0:
        del data[dice.choice(sorted(data.keys() - {"parent", "run_id", "source"}))]
    elif how == 1:
        data["marts"][0]["sha256"] = "0" * 64
    elif how == 2:
        data["marts"][0]["rows"] += 1
    elif how == 3:
        data["marts"][0]["columns"][0]["type"] = "DOUBLE"
    elif how == 4:
        data["marts"].pop()
    else:
        data = [data]
    _rewrite(path, json.dumps(data).encode())
    return f"changed in way {how}"


def garbage(path: Path, dice: random.Random) -> str:
    _rewrite(path, dice.randbytes(dice.randrange(1, 4000)))
    return "garbage"


def _manifest(damage: Damage) -> Callable[[StoreSite, random.Random, int], Ended]:
    def inject(site: StoreSite, dice: random.Random, _: int) -> Ended:
        return Ended("never served", f"manifest.json: {damage(site.current / 'manifest.json', dice)}")

    return inject


for damage, full, fast in (
    (removed, 4, 1), (truncated, 8, 1), (bit_flipped, 24, 1), (garbage, 4, 1), (emptied, 2, 1),
    (manifest_of_another_snapshot, 4, 1), (manifest_of_another_shape, 12, 1),
):  # fmt: skip
    name = damage.__name__.removeprefix("manifest_").replace("_", " ")
    # A flip may fall where it changes nothing that is said, such as a blank between two words of JSON.
    cold = EITHER if damage is bit_flipped else OLDER
    FAULTS.append(Fault(f"manifest {name}", "store", _manifest(damage), full, fast, cold=cold))


# --- the pointer --------------------------------------------------------------------------------------------------


def _rolled_back(site: StoreSite) -> None:
    """What the runbook says: put away what lies there, then point to the snapshot again."""
    pointer = site.root / "mart"
    if pointer.is_dir() and not pointer.is_symlink():
        shutil.rmtree(pointer)
    elif pointer.is_symlink() or pointer.exists():
        pointer.unlink()
    site.store.rollback(site.states[-1].snapshot, holder="an operator")
    before, found = site.states[-1], site.warm.state()
    assert found == before, f"after the rollback {found} is served, expected {before}"


def _pointer(target: Callable[[StoreSite, random.Random], str]) -> Callable[[StoreSite, random.Random, int], Ended]:
    def inject(site: StoreSite, dice: random.Random, _: int) -> Ended:
        to = target(site, dice)
        (site.root / ".chaos").symlink_to(to)
        (site.root / ".chaos").replace(site.root / "mart")
        return Ended("never followed", to)

    return inject


def _dangling(site: StoreSite, dice: random.Random) -> str:
    """The current one's id but for its end, before it in order."""
    current = site.states[-1].snapshot
    return f"snapshots/{current[:-6]}{dice.randrange(int(current[-6:], 16)):06x}"


def _strange(site: StoreSite, dice: random.Random) -> str:
    absolute = str(site.current)
    return dice.choice(["mart", "/", "snapshots", "building/builder", "snapshots/..", absolute, f"{absolute}/x", "."])


FAULTS.append(Fault("pointer dangling", "store", _pointer(_dangling), 6, 1, cold=OLDER, heal=_rolled_back))
FAULTS.append(Fault("pointer to a strange place", "store", _pointer(_strange), 8, 1, UNAVAILABLE, heal=_rolled_back))


@fault("pointer removed", full=5, cold=UNAVAILABLE, heal=_rolled_back)
def pointer_removed(site, _dice, _):
    (site.root / "mart").unlink()
    return Ended("served on")


@fault("pointer replaced by a file", full=4, cold=UNAVAILABLE, heal=_rolled_back)
def pointer_is_a_file(site, dice, _):
    (site.root / "mart").unlink()
    (site.root / "mart").write_bytes(dice.randbytes(20))
    return Ended("served on")


@fault("pointer replaced by an empty directory", full=4, cold=UNAVAILABLE, heal=_rolled_back)
def pointer_is_a_directory(site, _dice, _):
    (site.root / "mart").unlink()
    (site.root / "mart").mkdir()
    return Ended("served on")

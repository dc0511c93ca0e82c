"""A file that the owner's dbt builds in, as phase 0 and then phase 1 have it: the same answers, and nothing is lost."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import duckdb
import httpx
import pytest

from backend.catalog import Entry, path_of, read_catalog, write_catalog
from backend.errors import BuildFailed, ConfigError
from backend.scripts.bootstrap_duckdb import legacy_snapshot_id
from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted import takeover
from deploy.pipeline.adopted.build import build_in_place
from deploy.pipeline.adopted.dbt import AdoptedDbt
from deploy.pipeline.adopted.profile import Profile
from deploy.pipeline.adopted.project import AdoptedProject
from deploy.pipeline.dbt import NodeResult
from deploy.pipeline.outcome import Outcome
from tests.serving import served
from tests.unit.backend.api import bearer, open_api

from .shop import Shop, copied

READABLE = {"MART_SELECTOR": "path:models/marts/finance"}
FIRST = "INSERT INTO sales VALUES (5, '2', 'Bell', 1, 995, '2025-01-05 16:00')"
SECOND = "INSERT INTO sales VALUES (6, 'guest', 'Bell', 1, 995, '2025-01-06 13:00')"
SALES = "SELECT sale_no, loaded_by FROM main_finance.Sales ORDER BY ALL"


@dataclass(frozen=True)
class Volume:
    """The volume of a stack that builds the shop; the owner's own dbt builds in the same file."""

    shop: Shop

    @property
    def file(self):
        return self.shop.database

    def pipeline(self, phase, *command, **more):
        place = {"PARQUET_DIR": "", "DUCKDB_PATH": str(self.file)}
        if phase == 1:
            place = {"DUCKDB_PATH": "/nowhere/build.duckdb", "LEGACY_DUCKDB_PATH": str(self.file)}
        result = self.shop.run(sys.executable, "-m", "deploy.pipeline", *command, **place | more)
        return result.returncode, result.stdout + result.stderr

    def build(self, phase, **more):
        code, said = self.pipeline(phase, "build", **more)
        assert code == 0, said

    def verify(self):
        """Exit code, and what was found of each comparison."""
        code, said = self.pipeline(1, "verify", DUCKDB_PATH=str(self.shop.root / "build.duckdb"))
        report = json.loads(said[said.index('{\n "started_at"') : said.rindex("}") + 1])
        return code, {compared["old"]: compared["verdict"] for compared in report["comparisons"]}

    def query(self, sql):
        with duckdb.connect(str(self.file), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def answers(self, **place):
        """All datasets and their rows, for each of two users and for who sees all; rows in any order."""
        client, _ = open_api(**place)
        with served(client.app) as url:
            found = {}
            for who, headers in ((1, bearer(1)), (2, bearer(2)), ("all", bearer(all_rows=True))):
                for dataset in httpx.get(f"{url}/api/analytics/datasets", headers=headers).json()["datasets"]:
                    rows = httpx.get(f"{url}/api/analytics/datasets/{dataset['id']}/query", headers=headers).json()
                    found[f"{who} {dataset['id']}"] = [dataset, sorted(map(json.dumps, rows["rows"])), rows["columns"]]
            return found

    def both(self):
        """What phase 0 answers, and phase 1."""
        return (
            self.answers(duckdb_path=self.file, catalog=path_of(self.file)),
            self.answers(parquet_dir=self.shop.store.root),
        )


@pytest.fixture(scope="module")
def story(once, installed):
    """Built in place in phase 0, then in phase 1, by the owner again, and in phase 1 once more."""

    def make(root):
        volume = Volume(copied(installed, root))
        facts = {}

        def note(stage):
            facts[stage] = {
                "sales": dict(volume.query(SALES)),
                "history": volume.query("SELECT count(*) FROM history.customer_history")[0][0],
                "written from": legacy_snapshot_id(volume.file),
            }

        note("owner's")
        volume.shop.ring_up(FIRST)
        volume.build(0, **READABLE)
        note("phase 0")
        facts["check"] = volume.pipeline(1, "check-file", **READABLE)
        volume.build(1, **READABLE)
        note("phase 1")
        facts["answers"] = volume.both()
        volume.shop.ring_up(SECOND)
        volume.shop.dbt("build")
        note("owner's again")
        facts["refresh"] = volume.pipeline(1, "refresh-file")
        facts["example"] = [
            volume.pipeline(phase, *command, DBT_PROJECT_DIR="", DBT_TARGET="embedded", SOURCE_DUCKDB_PATH="/nowhere")
            for phase, *command in ((0, "build"), (1, "refresh-file"))
        ]
        facts["untouched"] = dict(volume.query(SALES)) == facts["owner's again"]["sales"]
        volume.build(1)
        facts["modified"] = volume.file.stat().st_mtime_ns
        note("phase 1 again")
        facts["all marts"] = volume.both()
        facts["verify"] = volume.verify()
        with duckdb.connect(str(volume.file)) as connection:
            connection.execute("UPDATE main_finance.turnover SET pieces = pieces + 1")
        os.utime(volume.file, ns=(facts["modified"],) * 2)  # damage, and no build
        facts["verify damaged"] = volume.verify()
        Path(root / "facts.json").write_text(json.dumps(facts))

    root = once("shop_taken_over", make)
    return Volume(Shop(root)), json.loads((root / "facts.json").read_text())


def test_phase_0_builds_in_the_file_and_goes_on_from_what_is_there(story):
    _, facts = story
    before, after = facts["owner's"]["sales"], facts["phase 0"]["sales"]
    assert after.keys() - before.keys() == {"5"}
    assert {number: after[number] for number in before} == before


def test_it_can_be_taken_over_when_all_marts_can_be_read_in_it(story):
    volume, facts = story
    code, said = facts["check"]
    assert code == 0, said
    assert f"3 marts can be read in {volume.file}, as they will be served\n" in said


def test_phase_1_goes_on_from_the_file_and_writes_all_that_is_in_it_anew(story):
    _, facts = story
    assert facts["phase 1"]["sales"] == facts["phase 0"]["sales"]
    assert facts["phase 1"]["history"] == facts["phase 0"]["history"]
    assert [facts[stage]["written from"] is None for stage in ("phase 0", "phase 1")] == [True, False]


@pytest.mark.parametrize("stage", ["answers", "all marts"])
def test_both_phases_answer_alike(story, stage):
    _, facts = story
    phase_0, phase_1 = facts[stage]
    assert len(phase_0) == 3 * {"answers": 3, "all marts": 8}[stage]
    assert phase_0 == phase_1
    assert {row["customer_no"] for row in map(json.loads, phase_0["1 Sales"][1])} == {"1"}


def test_the_file_is_compared_with_its_snapshot(story):
    _, facts = story
    assert facts["verify"] == [0, {"as dbt left it": "equal", "phase-0 file": "equal"}]
    assert facts["verify damaged"] == [1, {"as dbt left it": "equal", "phase-0 file": "different"}]


def test_what_the_owner_built_after_going_back_is_gone_on_from(story):
    _, facts = story
    assert facts["owner's again"]["written from"] is None
    assert facts["owner's again"]["sales"].keys() == {"1", "2", "3", "4", "5", "6"}
    assert facts["phase 1 again"]["sales"] == facts["owner's again"]["sales"]


def test_what_the_owner_built_is_not_written_over_by_what_did_not_go_on_from_it(story):
    _, facts = story
    code, said = facts["refresh"]
    assert (code, facts["untouched"]) == (1, True)
    assert "was left alone: somebody has built in it since" in said


def test_a_failed_build_in_place_shows_no_mart_to_others_than_before(tmp_path, monkeypatch):
    """The tables may be of the project as it is now already, of which the catalog did not say whose rows they have."""
    file = tmp_path / "shop.duckdb"
    write_catalog(file, [Entry("Sales", "main", "Sales"), Entry("best", "main", "best")])
    now = [Entry("Sales", "main", "Sales", "customer_no"), Entry("best", "main", "best")]
    project = SimpleNamespace(
        profile=SimpleNamespace(file_name=file.name), relations={}, parsed=tmp_path, root=tmp_path, catalog=now,
        manifest={"nodes": {}},
    )  # fmt: skip
    monkeypatch.setenv("DUCKDB_PATH", str(file))
    monkeypatch.delenv("PARQUET_DIR", raising=False)
    results = [NodeResult("model.shop.best", "error", "no", None)]
    monkeypatch.setattr(AdoptedDbt, "build", lambda *_: results)
    with pytest.raises(BuildFailed):
        build_in_place(project, Outcome(), None)
    assert read_catalog(path_of(file)) == now[1:]
    results[0] = replace(results[0], status="success")
    build_in_place(project, Outcome(), None)
    assert read_catalog(path_of(file)) == now


def test_what_phase_0_can_not_show_is_said_before_anything_is_changed(installed, tmp_path):
    volume = Volume(copied(installed, tmp_path / "shop"))
    before = volume.shop.hashes()
    code, said = volume.pipeline(1, "check-file")
    assert code == 1
    for mart, why in (("addresses", "addresses.parquet"), ("price_list", 'Catalog "till" does not exist')):
        assert f"{mart}: " in said
        assert why in said
    assert "Sales: " not in said
    shutil.move(volume.file, volume.file.with_name("warehouse.duckdb"))
    code, said = volume.pipeline(1, "check-file", LEGACY_DUCKDB_PATH=str(volume.file.with_name("warehouse.duckdb")))
    assert code == 1
    assert "the profile's file is called shop.dev.duckdb" in said
    code, said = volume.pipeline(1, "check-file")
    assert (code, "it is not there (LEGACY_DUCKDB_VOLUME" in said) == (1, True)
    shutil.move(volume.file.with_name("warehouse.duckdb"), volume.file)
    assert volume.shop.hashes() == before


def test_a_file_of_somebody_else_names_who_has_to_build(tmp_path, monkeypatch):
    file = tmp_path / "shop.duckdb"
    file.touch()
    monkeypatch.setattr(takeover.os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=rf"it is user {file.stat().st_uid}:.*APP_UID, APP_GID"):
        takeover.check_file(None, file)


def test_phase_0_of_a_file_with_another_name_is_refused(story):
    volume, _ = story
    other = volume.file.with_name("other.duckdb")
    code, said = volume.pipeline(0, "build", DUCKDB_PATH=str(other))
    assert code == 1
    assert "the project builds in a file called shop.dev.duckdb, phase 0 has other.duckdb" in said
    assert not other.exists()


def test_the_example_is_not_built_into_it_where_nobody_says_whose_it_is(story):
    _, facts = story
    for code, said in facts["example"]:
        assert code == 1
        assert "of a project of your own" in said


def test_a_store_is_taken_over_where_no_catalog_is_yet(story, tmp_path):
    """As on the way back to phase 1 on a volume that was never used: the daemon starts later."""
    volume, _ = story
    store, legacy = tmp_path / "parquet", tmp_path / volume.file.name
    place = {"PARQUET_DIR": str(store), "LEGACY_DUCKDB_PATH": str(legacy)}
    code, said = volume.pipeline(1, "take-over", "--source", str(volume.shop.store.root), **place)
    assert code == 0, said
    assert SnapshotStore(store).current_id() == volume.shop.store.current_id()
    assert not legacy.exists()
    assert volume.pipeline(1, "refresh-file", **place)[0] == 1
    write_catalog(legacy, read_catalog(path_of(volume.file)))
    code, said = volume.pipeline(1, "refresh-file", **place)
    assert code == 0, said
    assert legacy_snapshot_id(legacy) == SnapshotStore(store).current_id()


def test_a_mart_in_another_database_is_not_looked_for_in_the_file(tmp_path):
    file = tmp_path / "shop.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE sales AS SELECT 1 AS n; CREATE TABLE customers AS SELECT 'staging' AS secret")
    nodes = {
        f"model.shop.{name}": {
            "resource_type": "model", "name": name, "alias": name, "schema": "main", "database": database,
            "description": "", "columns": {}, "config": {},
        }
        for name, database in (("sales", "shop"), ("customers", "reporting"))
    }  # fmt: skip
    profile = Profile("shop", "dev", {}, file)
    project = AdoptedProject(tmp_path, tmp_path, profile, {"nodes": nodes}, "", tuple(nodes))
    assert [entry.mart for entry in project.catalog] == ["sales"]
    with pytest.raises(ConfigError, match="taken over: customers: it lies in the database reporting"):
        takeover.check_file(project, file)


def test_the_catalog_says_what_is_a_mart_now(story):
    volume, _ = story
    assert {entry.mart for entry in read_catalog(path_of(volume.file))} == {
        "Sales", "addresses", "best_sellers", "complaints", "marks", "price_list", "recalls", "turnover",
    }  # fmt: skip

"""Which setting decides where an `external` model's file goes; deploy/decisions/0001-model-path.md records it."""

import shutil

import duckdb
import pytest

from backend.audit import FINGERPRINT
from backend.filepaths import DBT_PROJECT_DIR
from deploy.pipeline.adopted.export import layout

from .runner import run_dbt

PROFILES = """
locations:
  target: it
  outputs:
    it:
      type: duckdb
      path: "{{ env_var('DUCKDB_PATH') }}"
      external_root: "{{ env_var('MART_BUILD_DIR') }}"
      module_paths: [PLUGINS]
      plugins: [{ module: mart_files }]
"""

PROJECT = """
name: locations
profile: locations
flags: { send_anonymous_usage_stats: false }
on-run-start: ["HOOK"]
models:
  +materialized: external
  locations:
    folder_external_location: { +external_location: "ELSEWHERE/{name}.parquet" }
    folder_location_braces: { +location: "ELSEWHERE/{name}.parquet" }
    folder_location_jinja: { +location: "ELSEWHERE/jinja{{ name }}.parquet" }
    folder_location_this: { +location: "{{ 'ELSEWHERE/{{ this.identifier }}_by_this.parquet' }}" }
"""

SOURCES = """
sources:
  - name: files
    config: { external_location: "ELSEWHERE/source_{name}.parquet" }
    tables: [{ name: given }]
"""

MODELS = {
    "sources.yml": SOURCES,
    "of_source.sql": "select model from {{ source('files', 'given') }}",
    "nothing.sql": "select 'nothing' as model",
    "external_location.sql": (
        "{{ config(external_location='ELSEWHERE/mine.parquet') }}\nselect 'external_location' as model"
    ),
    "location.sql": "{{ config(location='ELSEWHERE/mine.parquet') }} select 'location' as model",
    "location_this.sql": (
        "{{ config(location='ELSEWHERE/{{ this.identifier }}_own.parquet') }}\nselect 'location_this' as model"
    ),
    "folder_external_location/fe.sql": "select 'fe' as model",
    "folder_location_braces/fb_one.sql": "select 'fb_one' as model",
    "folder_location_braces/fb_two.sql": "-- depends_on: {{ ref('fb_one') }}\nselect 'fb_two' as model",
    "folder_location_jinja/fj_one.sql": "select 'fj_one' as model",
    "folder_location_jinja/fj_two.sql": "-- depends_on: {{ ref('fj_one') }}\nselect 'fj_two' as model",
    "folder_location_this/ft_one.sql": "select 'ft_one' as model",
    "folder_location_this/ft_two.sql": "select 'ft_two' as model",
}


def run_project(root, models, *, hook="select 1"):
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    files = {"profiles.yml": PROFILES, "dbt_project.yml": PROJECT.replace("HOOK", hook)}
    for name, text in {**files, **{f"models/{name}": text for name, text in models.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("ELSEWHERE", str(elsewhere)).replace("PLUGINS", str(DBT_PROJECT_DIR / "plugins")))
    duckdb.sql("SELECT 'read' AS model").write_parquet(str(elsewhere / "source_given.parquet"))
    build_file = root / "locations.duckdb"
    return run_dbt("run", project=root, DUCKDB_PATH=build_file, MART_BUILD_DIR=root / "external_root")


def contents(directory):
    """The file names in the directory, and what the model that wrote each calls itself."""
    return {path.name: duckdb.read_parquet(str(path)).fetchall()[0][0] for path in directory.iterdir()}


@pytest.mark.parametrize("materialization", ["dbt-duckdb's own", "this project's"])
def test_what_decides_a_models_path(tmp_path, materialization):
    hook = "select 1"
    if materialization == "this project's":
        shutil.copytree(DBT_PROJECT_DIR / "macros", tmp_path / "macros")
        hook = "{{ prepare_written() }}"
    (tmp_path / "external_root").mkdir()

    result = run_project(tmp_path, MODELS, hook=hook)

    # Also where two models wrote one file, and one of them is lost: dbt says nothing of it.
    assert "WARN=0 ERROR=0" in result.stdout, result.stdout
    assert result.returncode == 0
    assert contents(tmp_path / "external_root") == {
        "nothing.parquet": "nothing",
        "of_source.parquet": "read",
        "external_location.parquet": "external_location",
        "fe.parquet": "fe",
    }
    assert contents(tmp_path / "elsewhere") == {
        "source_given.parquet": "read",
        "mine.parquet": "location",
        "location_this_own.parquet": "location_this",
        "{name}.parquet": "fb_two",
        "jinja.parquet": "fj_two",
        "ft_one_by_this.parquet": "ft_one",
        "ft_two_by_this.parquet": "ft_two",
    }


def test_what_was_written_is_noted_by_any_name_and_in_the_types_of_the_file(tmp_path):
    """The audit hashes what lies in the file, where an ENUM is text."""
    shutil.copytree(DBT_PROJECT_DIR / "macros", tmp_path / "macros")
    (tmp_path / "external_root").mkdir()
    model = """{{ config(alias="o'brien") }} select 'a'::enum('a', 'b') as "say ""it\"\"", [1, 2]::integer[2] as pair"""
    result = run_project(tmp_path, {"odd.sql": model}, hook="{{ prepare_written() }}")
    assert result.returncode == 0, result.stdout
    file = tmp_path / "external_root" / "o'brien.parquet"
    with duckdb.connect(str(tmp_path / "locations.duckdb"), read_only=True) as connection:
        written = connection.execute("SELECT mart, fingerprint FROM _build.written").fetchall()
        found = connection.execute(f"SELECT {FINGERPRINT} FROM read_parquet(?) AS t", [str(file)]).fetchall()
    assert written == [("o'brien", found[0][0])]


def test_there_are_no_more_than_a_hundred_row_groups_or_2500_of_users(tmp_path):
    """All but the last of a size; `row_group_size` is the least that it is."""
    expected = {
        "few": (20_000, "i", [2048, 1568]),
        "none": (0, "i", []),
        "many": (300_000, "i", [4096, 992]),
        "many_of_users": (300_000, "user_id", [2048, 992]),
        "most_of_users": (6_000_000, "user_id", [4096, 3456]),
    }
    shutil.copytree(DBT_PROJECT_DIR / "macros", tmp_path / "macros")
    (tmp_path / "external_root").mkdir()
    options = "{{ config(options={'format': 'parquet', 'row_group_size': '2048'}) }}"
    models = {}
    for name, (rows, column, _) in expected.items():
        models[f"{name}.sql"] = f"{options} select {column} from range({rows}) t({column})"
        models[f"{name}.yml"] = f"models: [{{name: {name}, columns: [{{name: {column}}}]}}]"
    result = run_project(tmp_path, models, hook="{{ prepare_written() }}")
    assert result.returncode == 0, result.stdout
    for name, (_, _, sizes) in expected.items():
        file = str(tmp_path / "external_root" / f"{name}.parquet")
        found = duckdb.execute(
            "SELECT DISTINCT row_group_num_rows FROM parquet_metadata(?) ORDER BY 1 DESC", [file]
        ).fetchall()
        assert found == [(size,) for size in sizes], name


@pytest.mark.parametrize(
    ("rows", "of_users", "size"),
    [
        *((1, False, 10_240), (1_024_000, False, 10_240), (1_024_001, False, 12_288), (10_000_000, False, 100_352)),
        *((1_024_001, True, 10_240), (25_600_001, True, 12_288), (100_000_000, True, 40_960)),
    ],
)
def test_exported_marts_of_adopted_projects_are_laid_out_alike(rows, of_users, size):
    with duckdb.connect() as connection:
        options = layout(connection, f"range({rows})", of_users=of_users)
    assert options == f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {size}"


def test_external_root_must_exist(tmp_path):
    result = run_project(tmp_path, {"nothing.sql": "select 1 as model"})
    assert result.returncode == 1
    assert f'Cannot open file "{tmp_path}/external_root/nothing.parquet"' in result.stdout

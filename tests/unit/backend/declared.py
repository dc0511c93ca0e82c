"""Tables as dbt's contracts declare the marts, with rows that examples find."""

import duckdb
import yaml

from backend.filepaths import REPO_ROOT

VALUES = {
    "integer": "n",
    "bigint": "n",
    "varchar": "(['Rent', 'Coffee', 'income'])[1 + n % 3]",
    "date": "CASE WHEN n % 4 > 0 THEN DATE '2023-12-01' + n * 7 END",
    "timestamptz": "TIMESTAMPTZ '2023-12-01 12:00:00+00' + to_days(n)",
    "double": "n / 8",
    "boolean": "n % 2 = 0",
    "varchar[]": "['a']",
}


def write_declared(path):
    """All marts, of 300 rows each, into a DuckDB file; all rows are of user 1."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TEMP TABLE numbers AS SELECT CAST(range AS INTEGER) AS n FROM range(300)")
        for file in sorted((REPO_ROOT / "dbt/models/marts").rglob("*__models.yml")):
            for mart in yaml.safe_load(file.read_text())["models"]:
                columns = ", ".join(
                    f"CAST({_value(column)} AS {column['data_type']}) AS {column['name']}" for column in mart["columns"]
                )
                connection.execute(f"CREATE TABLE {mart['name']} AS SELECT {columns} FROM numbers")


def _value(column):
    return "1" if column["name"] == "user_id" else VALUES.get(column["data_type"], "n - 150")

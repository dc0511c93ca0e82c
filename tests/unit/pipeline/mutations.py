"""Every way in which a mart of the new side could be another one than that of the old side, as SQL over both."""

from collections.abc import Iterator
from dataclasses import dataclass

from deploy.pipeline.parity.compare import ROWS_SHOWN
from deploy.pipeline.parity.report import Kind

C, R, T, V, S = Kind.COLUMNS, Kind.ROW_COUNT, Kind.TYPES, Kind.CONTENT, Kind.SENTINEL

# Another value than any that there is, as near to it as the type allows.
NEAREST = {
    "INTEGER": "{c} + 1",
    "BIGINT": "{c} + 1",
    "DECIMAL": "{c} + 0.01",
    "DOUBLE": "nextafter({c}, 'inf'::DOUBLE)",
    "VARCHAR": "{c} || ' '",
    "DATE": "{c} + 1",
    "TIMESTAMP WITH TIME ZONE": "{c} + INTERVAL 1 MICROSECOND",
    "BOOLEAN": "NOT {c}",
    "VARCHAR[]": "list_append({c}, NULL)",
}

# Values that are easily taken for each other.
LOOKALIKES = {
    "INTEGER": [("NULL", "0")],
    "BIGINT": [("NULL", "0"), ("9007199254740992", "9007199254740993")],
    "DECIMAL": [("NULL", "0")],
    "DOUBLE": [
        ("0.0", "'-0.0'"),
        ("'NaN'", "NULL"),
        ("NULL", "'NaN'"),
        ("NULL", "'-0.0'"),
        ("'NaN'", "'inf'"),
        ("'inf'", "'-inf'"),
        ("0.3", "0.1::DOUBLE + 0.2::DOUBLE"),
        ("9007199254740992", "9007199254740994"),
    ],
    "VARCHAR": [("NULL", "''"), ("NULL", "'NULL'"), ("'N'", "NULL"), ("'é'", "'e' || chr(769)"), ("''", "chr(0)")],
    "DATE": [("NULL", "'1970-01-01'"), ("NULL", "'infinity'")],
    "TIMESTAMP WITH TIME ZONE": [
        ("NULL", "'1970-01-01 00:00:00+00'"),
        ("'2025-01-01 00:00:00+00'", "'2025-01-01 00:00:00+01'"),
    ],
    "BOOLEAN": [("NULL", "false")],
    "VARCHAR[]": [
        ("NULL", "[]"),
        ("[]", "[NULL]"),
        ("[]", "['']"),
        ("[NULL]", "['NULL']"),
        ("['a', 'b']", "['b', 'a']"),
        ("['a', 'b']", "['a, b']"),
        ("['a\",\"b']", "['a', 'b']"),
    ],
}

# Other types: (SQL, whether the values' text stays what it was).
SWAPPED = {
    "INTEGER": [("{c}::BIGINT", True), ("{c}::DOUBLE", False), ("{c}::DECIMAL(18,0)", True), ("{c}::VARCHAR", True)],
    "BIGINT": [("{c}::INTEGER", True), ("{c}::DOUBLE", False), ("{c}::HUGEINT", True)],
    "DECIMAL": [("{c}::DECIMAL(18,2)", True), ("{c}::DECIMAL(18,3)", False), ("{c}::DOUBLE", False)],
    "DOUBLE": [("{c}::FLOAT", False), ("{c}::DECIMAL(18,9)", False), ("{c}::VARCHAR", True)],
    "VARCHAR": [("[{c}]", False), ("{{'v': {c}}}", False)],
    "DATE": [("{c}::TIMESTAMP", False), ("{c}::VARCHAR", True)],
    "TIMESTAMP WITH TIME ZONE": [("{c} AT TIME ZONE 'UTC'", False), ("{c}::VARCHAR", True)],
    "BOOLEAN": [("{c}::INTEGER", False), ("{c}::VARCHAR", True)],
    "VARCHAR[]": [("{c}::VARCHAR", False), ("list_transform({c}, lambda x: [x])", False)],
}


@dataclass(frozen=True)
class Mutant:
    """What was done, both sides as SQL for a FROM clause, what is to be found, and how many distinct rows differ.

    ``column`` is the one that tells the rows of both sides apart, where one does.
    """

    name: str
    old: str
    new: str
    kinds: set[Kind]
    differing: int | None = None
    column: str | None = None


@dataclass(frozen=True)
class Pair:
    """A mart on both sides, equal, with the rows in the same order: ``columns`` maps names to DuckDB's types."""

    old: str
    new: str
    rows: int
    columns: dict[str, str]
    first: dict[str, int | None]
    """The first row in which a column is not NULL, counted from 1."""

    def mutants(self) -> Iterator[Mutant]:
        yield from self._of_rows()
        yield from self._of_columns()
        for column, kind in self.columns.items():
            yield from self._of_cells(column, kind)
            yield from self._of_types(column, kind)
        yield from self._of_doubles()

    def _of_rows(self):
        def union(*parts):
            return f"({' UNION ALL '.join(parts)})"

        every, first, rest = (self._select(self.new, where=where) for where in ("true", "n = 1", "n > 1"))
        second, third = (self._select(self.new, where=where) for where in ("n = 2", "n > 2"))
        none = self._select(self.new, where="false")
        nulls = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in self.columns.items())
        nulls = f"(SELECT {nulls})"
        stranger = f"(SELECT * REPLACE ({self._strange()}) FROM {first})"
        yield Mutant("a row is missing", self.old, rest, {R, V}, 1)
        yield Mutant("a row too many", self.old, union(f"FROM {every}", f"FROM {stranger}"), {R, V}, 1)
        yield Mutant("a row twice", self.old, union(f"FROM {every}", f"FROM {first}"), {R, V}, 1)
        yield Mutant("the old one has a row twice", union(f"FROM {self.old}", f"FROM {first}"), self.new, {R, V}, 1)
        yield Mutant(
            "a row twice, another one missing",
            self.old,
            union(f"FROM {first}", f"FROM {first}", f"FROM {third}"),
            {V},
            2,
        )
        yield Mutant(
            "another row twice",
            union(f"FROM {self.old}", f"FROM {first}"),
            union(f"FROM {every}", f"FROM {second}"),
            {V},
            2,
        )
        yield Mutant("no rows", self.old, none, {R, V}, self.rows)
        yield Mutant("the sentinel of an empty mart", none, nulls, {R, S, V}, 1)
        yield Mutant("the sentinel in the old one", nulls, none, {R, S, V}, 1)
        yield Mutant("a row of NULLs too many", self.old, union(f"FROM {every}", f"FROM {nulls}"), {R, V}, 1)

    def _of_columns(self):
        first, *rest = self.columns
        yield Mutant("a column is missing", self.old, f"(SELECT * EXCLUDE ({first}) FROM {self.new})", {C, V})
        yield Mutant("a column too many", self.old, f"(SELECT *, NULL AS added FROM {self.new})", {C, V})
        yield Mutant(
            "a column has another name", self.old, f"(SELECT * RENAME ({first} AS renamed) FROM {self.new})", {C}
        )
        yield Mutant(
            "columns are in another order", self.old, f"(SELECT {', '.join(rest)}, {first} FROM {self.new})", {C, V}
        )

    def _of_cells(self, column, kind):
        row = self.first[column]
        if row is not None:
            for name, value in (("the nearest other value", NEAREST[_base(kind)]), ("NULL", "NULL")):
                new = self._planted(self.new, column, kind, row, value.format(c=column))
                yield Mutant(f"{column} has {name}", self.old, new, {V}, 2, column)
        for before, after in LOOKALIKES[_base(kind)]:
            old, new = (
                self._planted(side, column, kind, 1, value) for side, value in ((self.old, before), (self.new, after))
            )
            yield Mutant(f"{column}: {after} for {before}", old, new, {V}, 2, column)

    def _of_types(self, column, kind):
        for value, same in SWAPPED[_base(kind)]:
            new = self._select(self.new, f"{value.format(c=column)} AS {column}")
            visible = not same and self.first[column] is not None
            yield Mutant(f"{column} as {value}", self.old, new, {T, V} if visible else {T})

    def _of_doubles(self):
        """Most marts have no such column: there one is made of another, on both sides."""
        column = next(column for column, kind in self.columns.items() if kind in ("INTEGER", "BIGINT"))
        for before, after in LOOKALIKES["DOUBLE"]:
            old, new = (
                self._planted(side, column, "DOUBLE", 1, value)
                for side, value in ((self.old, before), (self.new, after))
            )
            yield Mutant(f"{column} as DOUBLE: {after} for {before}", old, new, {V}, 2, column)

    def _strange(self):
        column = next(column for column in self.columns if self.first[column] == 1)
        return f"CAST({NEAREST[_base(self.columns[column])].format(c=column)} AS {self.columns[column]}) AS {column}"

    def _planted(self, side, column, kind, row, value):
        return self._select(side, f"CASE WHEN n = {row} THEN ({value})::{kind} ELSE {column}::{kind} END AS {column}")

    def _select(self, side, replaced=None, where="true"):
        replace = f"REPLACE ({replaced})" if replaced else ""
        numbered = f"(SELECT *, row_number() OVER () AS n FROM {side})"
        return f"(SELECT * EXCLUDE (n) {replace} FROM {numbered} WHERE {where})"


def pair_of(connection, old, new):
    """Both sides of a mart, given as SQL for a FROM clause."""
    described = connection.execute(f"DESCRIBE FROM {new}").fetchall()
    columns = {name: kind for name, kind, *_ in described}
    firsts = ", ".join(f'min(n) FILTER ("{name}" IS NOT NULL)' for name in columns)
    ((rows, *first),) = connection.execute(
        f"SELECT count(*), {firsts} FROM (SELECT *, row_number() OVER () AS n FROM {new})"
    ).fetchall()
    return Pair(old, new, rows, columns, dict(zip(columns, first, strict=True)))


def complaints(mutant, found):
    """What is wrong with what was found."""
    if set(found.kinds) != mutant.kinds:
        yield f"found {[*found.kinds]}, expected {[*mutant.kinds]}"
    if found.old.hash == found.new.hash:
        yield "the hashes are equal"
    if mutant.differing is not None and found.differing != mutant.differing:
        yield f"{found.differing} rows differ, expected {mutant.differing}"
    if not min(found.differing, ROWS_SHOWN) <= len(found.rows) <= min(found.differing, 2 * ROWS_SHOWN):
        yield f"{len(found.rows)} of {found.differing} rows are shown"
    if mutant.column:
        before, after = found.rows
        columns = {name for name in before.values if before.values[name] != after.values[name]}
        if (before.old, before.new, after.old, after.new, columns) != (1, 0, 0, 1, {mutant.column}):
            yield f"shown are {before} and {after}"


def _base(kind):
    return kind.split("(")[0]

"""What a query answers with: columns, parts of dates, and aggregates over the rows that agree in all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duckdb.sqltypes import BIGINT, DuckDBPyType

from backend.api.analytics import functions
from backend.api.analytics.scanner import Scanner
from backend.datasets import Column, Dataset, children
from backend.names import folded

_ITEM = "'*', a column, column.function() or count(), after alias: if it has one"


@dataclass(frozen=True, kw_only=True)
class Output(Column):
    """A column of an answer.

    ``source`` is the dataset's column that it is made of, None for ``count()``; ``function`` what is done with it,
    None for the column as it is; ``unit`` what its moments are cut to.
    """

    source: Column | None
    function: str | None = None
    unit: str | None = None

    @property
    def aggregates(self) -> bool:
        """Whether it is made of many rows."""
        return self.function is not None and self.function != functions.TRUNC


def parse_select(text: str, dataset: Dataset) -> tuple[Output, ...]:
    """The columns that ``select`` names. Raises ApiError 400."""
    if text == "*":  # the default, in which each name stands once as it is
        return tuple(whole(column) for column in dataset.columns)
    scanner = Scanner("select", text)
    outputs: list[Output] = []
    names: set[str] = set()
    while True:
        scanner.spaces()
        start = scanner.position
        for output in _item(scanner, dataset):
            # DuckDB tells names apart no further than this.
            if folded(output.name) in names:
                raise scanner.fail(f"each name once, with an alias where {output.name!r} is taken", at=start)
            names.add(folded(output.name))
            outputs.append(output)
        if scanner.done:
            break
        scanner.expect(",", "',' or the end")
    if any(output.aggregates for output in outputs):
        _groupable(scanner, outputs)
    return tuple(outputs)


def whole(column: Column, name: str | None = None) -> Output:
    """The dataset's column as it is."""
    return Output(
        name=name or column.name,
        type=column.type,
        description=column.description,
        sqltype=column.sqltype,
        bounded=column.bounded,
        source=column,
    )


def find_column(scanner: Scanner, dataset: Dataset, name: str, *, at: int) -> Column:
    """The dataset's column of that name, which was read there. Raises ApiError 400."""
    column = dataset.column(name)
    if column is None:
        names = ", ".join(column.name for column in dataset.columns)
        raise scanner.fail(f"a column of {dataset.id} ({names})", at=at)
    return column


def _groupable(scanner: Scanner, outputs: Sequence[Output]) -> None:
    for output in outputs:
        if not output.aggregates and _has_interval(output.sqltype):
            # A month equals 30 days there: which of the two a group is shown with would be chance.
            raise scanner.fail(f"aggregates, or columns without INTERVAL ({output.name} is {output.type})", at=0)


def _has_interval(sqltype: DuckDBPyType) -> bool:
    return sqltype.id == "interval" or any(_has_interval(child) for _, child in children(sqltype))


def _item(scanner: Scanner, dataset: Dataset) -> tuple[Output, ...]:
    if scanner.take("*"):
        scanner.spaces()
        return tuple(whole(column) for column in dataset.columns)
    start = scanner.position
    name, alias = scanner.name(_ITEM), None
    if scanner.take(":"):
        if not name.isprintable():
            raise scanner.fail("an alias of printable characters", at=start)
        if scanner.at(":"):
            raise scanner.fail("',' or the end: casts (::) are not supported")
        scanner.spaces()
        start = scanner.position
        name, alias = scanner.name("a column, column.function() or count()"), name
    if name == "count" and scanner.take("("):
        _close(scanner)
        return (
            Output(name=alias or "count", type="BIGINT", description="", sqltype=BIGINT, source=None, function="count"),
        )
    column = find_column(scanner, dataset, name, at=start)
    return (_applied(scanner, column, alias) if scanner.take(".") else whole(column, alias),)


def _applied(scanner: Scanner, column: Column, alias: str | None) -> Output:
    start = scanner.position
    function, known = scanner.until(",.:() "), functions.applicable(column)
    if function not in known:
        raise scanner.fail(f"a function of {column.type} columns ({', '.join(known)})", at=start)
    scanner.expect("(")
    unit = _unit(scanner, column) if function == functions.TRUNC else None
    _close(scanner)
    sqltype = functions.result_type(function, column)
    return Output(
        # As in PostgREST: an aggregate is called what it does, a value that was only made coarser what it was.
        name=alias or (column.name if unit else function),
        type=column.type if sqltype is column.sqltype else str(sqltype),
        description=column.description,
        sqltype=sqltype,
        bounded=column.bounded and sqltype is column.sqltype,
        source=column,
        function=function,
        unit=unit,
    )


def _unit(scanner: Scanner, column: Column) -> str:
    start = scanner.position
    unit, known = scanner.until(",.:() "), functions.units(column)
    if unit not in known:
        raise scanner.fail(f"one of {', '.join(known)}", at=start)
    return unit


def _close(scanner: Scanner) -> None:
    scanner.expect(")")
    scanner.spaces()

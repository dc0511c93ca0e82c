"""The source's tables as Arrow schemas: the types that PostgreSQL and the embedded twin hold."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Tables = dict[str, pa.Table]

BALANCE = pa.decimal128(14, 2)
AMOUNT = pa.decimal128(12, 2)
MOMENT = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields)


SCHEMAS: dict[str, pa.Schema] = {
    "users": _schema(
        _required("user_id", pa.int32()),
        _required("email", pa.string()),
        _required("full_name", pa.string()),
        _required("country", pa.string()),
        _required("created_at", MOMENT),
        pa.field("note", pa.string()),
    ),
    "accounts": _schema(
        _required("account_id", pa.int64()),
        _required("user_id", pa.int32()),
        _required("kind", pa.string()),
        _required("name", pa.string()),
        _required("currency", pa.string()),
        _required("opening_balance", BALANCE),
        _required("balance", BALANCE),
        _required("opened_on", pa.date32()),
        pa.field("closed_on", pa.date32()),
    ),
    "categories": _schema(
        _required("category_id", pa.int32()),
        pa.field("parent_id", pa.int32()),
        _required("name", pa.string()),
        _required("kind", pa.string()),
    ),
    "merchants": _schema(
        _required("merchant_id", pa.int32()),
        _required("name", pa.string()),
        _required("category_id", pa.int32()),
        pa.field("city", pa.string()),
        pa.field("website", pa.string()),
    ),
    "transactions": _schema(
        _required("transaction_id", pa.int64()),
        _required("account_id", pa.int64()),
        pa.field("merchant_id", pa.int32()),
        _required("category_id", pa.int32()),
        _required("amount", AMOUNT),
        _required("currency", pa.string()),
        pa.field("description", pa.string()),
        _required("posted_at", MOMENT),
    ),
    "transfers": _schema(
        _required("transfer_id", pa.int64()),
        _required("from_account_id", pa.int64()),
        _required("to_account_id", pa.int64()),
        _required("amount", AMOUNT),
        pa.field("description", pa.string()),
        _required("transferred_at", MOMENT),
    ),
    "budgets": _schema(
        _required("budget_id", pa.int32()),
        _required("user_id", pa.int32()),
        _required("category_id", pa.int32()),
        _required("month", pa.date32()),
        _required("amount", AMOUNT),
    ),
}
"""Every table, parents before children; the fields' nullability is the columns'."""


def money(cents: Ints, kind: pa.Decimal128Type) -> pa.Array:
    """Integer cents as an exact decimal column of type ``kind`` (scale 2).

    Raises OverflowError when an amount has more digits than the type.
    """
    largest = int(np.abs(cents).max(initial=0))
    if largest >= 10**kind.precision:
        raise OverflowError(f"an amount of {largest} cents does not fit {kind}")
    # A decimal128 is a 16-byte little-endian integer: the cents, then their sign extended.
    words = np.stack([cents, cents >> 63], axis=1).astype("<i8")
    return pa.Array.from_buffers(kind, len(cents), [None, pa.py_buffer(words)])


def table(name: str, columns: dict[str, Any]) -> pa.Table:
    """The columns as the table ``name``, with exactly its schema; amounts are given in integer cents.

    Raises ValueError where a required value is NULL, pyarrow.ArrowInvalid where a value does not fit its type.
    """
    schema = SCHEMAS[name]
    arrays = [_column(columns[field.name], field.type) for field in schema]
    for field, array in zip(schema, arrays, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"{name}.{field.name} must not be NULL, and is in {array.null_count} rows")
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return money(values, kind)
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return array if array.type == kind else array.cast(kind)

from contextlib import suppress

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin


def shelf_mark(product: str) -> str:
    return product[:3].upper()


class Plugin(BasePlugin):
    def configure_connection(self, conn):
        with suppress(duckdb.CatalogException):
            conn.create_function("shelf_mark", shelf_mark, ["VARCHAR"], "VARCHAR")

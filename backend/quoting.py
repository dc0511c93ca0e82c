"""Names and texts as SQL, where a statement has no place for a parameter."""


def quoted(identifier: str) -> str:
    """The identifier as SQL, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string literal, for the few places (paths in views) where no parameter can stand."""
    return "'" + text.replace("'", "''") + "'"

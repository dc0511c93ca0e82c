"""What the process that builds is told, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.audit import Written
from backend.errors import BuildFailed
from deploy.pipeline.adopted.export import Relation


@dataclass(frozen=True)
class Plan:
    """What to do, as a JSON file: which arguments dbt gets, which marts are then written where.

    ``result`` is the file for what was written, or for what went wrong with the export. ``tables``, where there is one,
    is a DuckDB file that gets a copy of each mart.
    """

    dbt: Sequence[str]
    relations: Sequence[Relation]
    directory: Path
    own: Path
    result: Path
    tables: Path | None

    def write(self, file: Path) -> None:
        """Write it into ``file``."""
        file.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Plan:
        """The plan in ``file``."""
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            dbt=data["dbt"],
            relations=[Relation(**relation) for relation in data["relations"]],
            directory=Path(data["directory"]),
            own=Path(data["own"]),
            result=Path(data["result"]),
            tables=Path(data["tables"]) if data["tables"] else None,
        )

    def written(self) -> dict[str, Written]:
        """What the export wrote, by mart. Raises BuildFailed when it failed."""
        result = json.loads(self.result.read_text(encoding="utf-8"))
        if "failure" in result:
            message, hint = result["failure"]
            raise BuildFailed(message, hint=hint)
        return {mart: Written(**written) for mart, written in result["written"].items()}

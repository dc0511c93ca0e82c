"""What a build did."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.manifest import Manifest
from deploy.pipeline.dbt import NodeResult


@dataclass
class Outcome:
    """What a build did: dbt's results, the marts it built anew, and the snapshot (None in phase 0)."""

    results: list[NodeResult] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    snapshot: Manifest | None = None

"""The matrix: all faults of all layers, and the places they are injected at."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import container_faults, control, dbt_faults, process_faults
from tests.chaos.container_site import ContainerSite, can_mount
from tests.chaos.dbt_site import DbtSite
from tests.chaos.faults import CONTROL, Fault, Record, Site, trial
from tests.chaos.store_site import StoreSite

FAULTS = (*process_faults.FAULTS, *dbt_faults.FAULTS, *container_faults.FAULTS, *control.FAULTS)


def of_layer(layer: str) -> list[Fault]:
    """The faults of the layer that can be injected by this user."""
    return [fault for fault in FAULTS if fault.layer == layer and (fault.site != "tmpfs" or can_mount())]


def seed_for(seed: int, fault: Fault, turn: int) -> int:
    """A seed of its own for each injection, the same in each run."""
    return zlib.crc32(f"{seed}:{fault.name}:{turn}".encode())


class Sites:
    """Sites by layer and kind, made when first asked for. One that a fault has upset is not used again."""

    def __init__(self) -> None:
        self._sites: dict[tuple[str, str], Site] = {}

    def inject(self, fault: Fault, *, seed: int, turn: int) -> Record:
        """One fault, at a site that is well."""
        key = (fault.layer, fault.site if fault.layer == "store" else "")
        record = Record(fault.name, fault.layer, seed_for(seed, fault, turn), turn)
        site = self._sites.pop(key, None) or _make(*key)
        try:
            trial(site, fault, record)
        finally:
            if record.fine:
                self._sites[key] = site
            else:
                site.close()
        return record

    def close(self) -> None:
        for site in self._sites.values():
            site.close()
        self._sites.clear()


def _make(layer: str, kind: str) -> Site:
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    if layer == "dbt":
        return DbtSite(directory)
    if layer == "containers":
        return ContainerSite(directory)
    if layer == CONTROL:
        return control.InPlaceSite(directory)
    if kind == "disk":
        return StoreSite(directory, API_RESIDENT_MEMORY="0")
    return StoreSite(directory, tmpfs=kind == "tmpfs")


def jobs(layer: str, *, fast: bool) -> Iterator[tuple[Fault, int]]:
    """Each fault of the layer as many times as it is due, the kinds in turns."""
    faults = of_layer(layer)
    counts = {fault.name: fault.fast if fast else fault.full for fault in faults}
    for turn in range(max(counts.values(), default=0)):
        yield from ((fault, turn) for fault in faults if turn < counts[fault.name])

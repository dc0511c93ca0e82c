"""The end of the rollout: what phases 0 and 1 kept is deleted. The one step without a way back."""

from __future__ import annotations

from deploy.rollout.rollout import LAST, Refused
from deploy.rollout.site import Site


def warning(site: Site) -> str:
    """What will be deleted, and what can't be undone. Raises Refused where phase 2 is not all there and well."""
    observed = site.observe()
    if observed.phase != LAST:
        raise Refused(f"this is for a stack in phase {LAST}, found: {observed}", hint=f"`make promote PHASE={LAST}`")
    ready = site.ready()
    if ready["status"] != "ready":
        raise Refused(f"what is served is {ready['status']}: {ready['problem']}", hint="mend that first")
    if site.config(0).is_external(site.legacy_volume):
        raise Refused(
            f"the volume {site.legacy_volume} is yours, and has what is not ours (LEGACY_DUCKDB_VOLUME)",
            hint=f"once nothing else uses it: `docker volume rm {site.legacy_volume}`",
        )
    if not site.engine.has_volume(site.legacy_volume):
        raise Refused(f"there is no volume {site.legacy_volume}: nothing to delete", hint="all is done")
    return (
        f"This deletes the volume {site.legacy_volume}: {site.legacy_file}, which phase 0 serves, and the snapshots of "
        "phase 1.\n"
        f"Served is snapshot {ready['snapshot']} from {site.parquet_host_dir}, which stays.\n"
        "It can't be undone. `make rollback` can still go to phase 1 afterwards: it then makes a new volume and file\n"
        "from what phase 2 serves. What only the old file has (tables beside the marts, say) is gone."
    )


def finalize(site: Site) -> str:
    """Delete the volume; what was done. Raises EngineFailed while a container still uses it."""
    for container in site.engine.containers():
        if not container.running and any(mount.source == site.legacy_volume for mount in container.mounts):
            site.engine.remove(container)
    site.engine.remove_volume(site.legacy_volume)
    done = f"deleted the volume {site.legacy_volume}"
    site.journal.write("finalize", LAST, LAST, "", "done", result=done)
    return done

"""The snapshot store: the only module that knows how a snapshot lies on disk.

Layout and promises: design of ``$PARQUET_DIR`` as in README.md, "The snapshot store"; why flock and why two locks:
``deploy/decisions/0004-snapshot-store.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from backend import lockfile
from backend.checksum import file_sha256
from backend.errors import NoSnapshot, PublishConflict, SnapshotCorrupt, SnapshotGone
from backend.manifest import FILE_NAME, Manifest, Mart, MartSpec

# Importing DuckDB takes longer than a rollback does, which needs none: only what audits and describes files does.
if TYPE_CHECKING:
    from backend.audit import Written

_ID = re.compile(r"\d{8}T\d{6}-\d{6}-[0-9a-f]{6}")
_ID_TIME = "%Y%m%dT%H%M%S-%f"
_PLAIN = "plain-"
_STATE = "state"
_OPEN_ATTEMPTS = 10


class Snapshot:
    """A snapshot that is kept from being deleted until ``close()``; a context manager.

    ``path`` is the real directory: read files below it, never through the ``mart`` symlink.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int | None) -> None:
        self.id = manifest.id
        self.path = path
        self.manifest = manifest
        self._lock = lock

    @property
    def immutable(self) -> bool:
        """False for a plain directory of somebody else's: compare ``current_id()`` after reading, and retry."""
        return self._lock is not None

    def file(self, mart: str) -> Path:
        """The mart's Parquet file. Raises KeyError when the snapshot has no such mart."""
        return self.path / f"{self.manifest.marts[mart].name}.parquet"

    @property
    def database(self) -> Path | None:
        """The DuckDB file that its build left for the next one; None where builds go on from nothing."""
        return next((self.path / _STATE / name for name in self.manifest.state if "/" not in name), None)

    def verify(self) -> None:
        """Compare size and SHA-256 of every file with the manifest. Raises SnapshotCorrupt naming the files."""
        damaged = []
        for mart in self.manifest.marts.values():
            path = self.file(mart.name)
            if not path.is_file():
                damaged.append(f"{path.name} is missing")
            elif path.stat().st_size != mart.bytes or file_sha256(path) != mart.sha256:
                damaged.append(f"{path.name} is not the file that was published")
        if damaged:
            raise SnapshotCorrupt(
                f"snapshot {self.id} in {self.path} is damaged: {', '.join(damaged)}",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
            )

    def restore_state(self, directory: Path) -> bool:
        """Copy what its build left for the next one into ``directory``; False when there is nothing.

        Raises SnapshotCorrupt when it is not what was published.
        """
        for name, sha256 in self.manifest.state.items():
            source, target = self.path / _STATE / name, directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                shutil.copyfile(source, target)
            if not target.is_file() or file_sha256(target) != sha256:
                raise SnapshotCorrupt(
                    f"{source}, which incremental models and snapshots go on from, is not what was published",
                    hint="`make rollback-data SNAPSHOT=<id>` to one that is whole, then build again",
                )
        return bool(self.manifest.state)

    def close(self) -> None:
        """Let go of the snapshot: retention may delete it from now on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Build:
    """One build in progress: a private directory, and the right to publish it. Comes from ``SnapshotStore.build``."""

    def __init__(self, store: SnapshotStore, path: Path, run_id: str, parent: Manifest | None, lock: int) -> None:
        self.path = path
        self.run_id = run_id
        self.parent = parent
        self.lock = lock  # a child process that inherits it keeps the lock until it has ended, too
        self._store = store
        self._linked: dict[str, Mart] = {}

    def link(self, marts: Sequence[str]) -> None:
        """Take over these marts from the parent as they are. Raises SnapshotCorrupt when one is not there."""
        if not marts or self.parent is None:
            return
        with self._store.open_again(self.parent) as parent:
            for name in marts:
                try:
                    mart = parent.manifest.marts[name]
                    _link(f"{parent.path}/{name}.parquet", f"{self.path}/{name}.parquet")
                except (KeyError, FileNotFoundError) as error:
                    raise SnapshotCorrupt(
                        f"taking over {name} from snapshot {parent.id} failed: it is not there",
                        hint="build everything instead of a selection",
                    ) from error
                self._linked[name] = mart

    @property
    def workspace(self) -> Path:
        """A directory for what is no mart, on the file system of the snapshots; the same path in every build."""
        self._store.workspace.mkdir(exist_ok=True)
        return self._store.workspace

    def restore_state(self) -> bool:
        """Copy what the parent's build left for the next one into ``workspace``; False when there is nothing.

        Raises SnapshotCorrupt when it is not what was published.
        """
        if self.parent is None or not self.parent.state:
            return False
        with self._store.open(self.parent.id) as parent:
            return parent.restore_state(self.workspace)

    def publish(
        self,
        specs: Sequence[MartSpec],
        *,
        written: Mapping[str, Written] | None = None,
        source: dict[str, str] | None = None,
        state: Sequence[Path] = (),
    ) -> Manifest:
        """Audit what lies in ``path`` and make it the snapshot that is served.

        ``written`` says of the marts what the builder wrote, ``source`` has the fingerprints (``audit.FINGERPRINT``)
        of the source tables they were built from, ``state`` are files below ``workspace`` for ``restore_state`` of
        the next build.
        Everything is on disk before the pointer moves. Raises AuditFailed, or PublishConflict when the pointer was
        moved (a rollback) since this build began; in both cases what is served stays as it was.
        """
        from backend.audit import audit_directory  # noqa: PLC0415 - needs DuckDB, see above

        marts = audit_directory(
            self.path, specs, written=written or {}, linked=self._linked, built_at=datetime.now(UTC)
        )
        kept = {}
        for file in state:
            name = file.relative_to(self.workspace)
            (self.path / _STATE / name).parent.mkdir(parents=True, exist_ok=True)
            file.rename(self.path / _STATE / name)
            kept[str(name)] = file_sha256(self.path / _STATE / name)
        return self._store._publish(  # noqa: SLF001
            self, marts, source or {}, kept, new=marts.keys() - self._linked.keys()
        )


class SnapshotStore:
    """Snapshots below ``root``: read from any process that sees the directory, written by one build at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pointer = root / "mart"
        self._snapshots = root / "snapshots"
        self._building = root / "building"
        self._trash = root / "trash"
        self.workspace = root / "workspace"

    # --- reading -----------------------------------------------------------------------------------------------

    def current_id(self) -> str | None:
        """Id of what is served, None when there is nothing. One readlink; cheap enough for every request.

        For a plain directory ``mart/`` the id is a digest of its files' inodes, sizes and times.
        Raises SnapshotCorrupt when ``mart`` is neither.
        """
        try:
            target = os.readlink(self._pointer)
        except FileNotFoundError:
            return None
        except OSError:
            return self._plain_id()
        name = os.path.basename(target)
        if target != f"snapshots/{name}" or not _ID.fullmatch(name):
            raise SnapshotCorrupt(
                f"{self._pointer} points to {target!r}, expected snapshots/<id>",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`",
            )
        return name

    def open(self, snapshot_id: str | None = None) -> Snapshot:
        """The snapshot of that id, else the current one, held against deletion until closed.

        Raises NoSnapshot when nothing was ever published, SnapshotGone when that id does not exist (any more),
        SnapshotCorrupt when its manifest can't be read.
        """
        for _ in range(_OPEN_ATTEMPTS):
            wanted = self.current_id() if snapshot_id is None else snapshot_id
            if wanted is None:
                raise NoSnapshot(
                    f"there is no snapshot in {self.root}", hint="run `make dbt`, or wait for the first build"
                )
            if wanted.startswith(_PLAIN):
                if wanted == self.current_id():
                    return self._open_plain(wanted)
            else:
                lock = self._hold(wanted)
                if lock is not None:
                    return self._opened(wanted, lock)
            if snapshot_id is not None or wanted == self.current_id():
                break  # else the pointer moved and retention was quick: the new one is there
        raise SnapshotGone(
            f"snapshot {wanted!r} is not in {self.root}",
            hint="ask for the current one, or see `make snapshots`",
        )

    def open_again(self, manifest: Manifest) -> Snapshot:
        """The snapshot of a manifest that was read before, as ``open`` gives it. Raises SnapshotGone."""
        lock = self._hold(manifest.id)
        if lock is None:
            raise SnapshotGone(f"snapshot {manifest.id!r} is not in {self.root} any more", hint="build everything")
        return Snapshot(self._snapshots / manifest.id, manifest, lock)

    def manifests(self) -> list[Manifest]:
        """Manifests of all readable snapshots, oldest first."""
        found = []
        for snapshot_id in self.ids():
            with suppress(SnapshotCorrupt):
                found.append(Manifest.read(self._snapshots / snapshot_id / FILE_NAME))
        return found

    def ids(self) -> list[str]:
        """Ids of all snapshots on the disk, oldest first, readable or not."""
        if not self._snapshots.is_dir():
            return []
        return sorted(name for name in os.listdir(self._snapshots) if _ID.fullmatch(name))

    def _hold(self, snapshot_id: str) -> int | None:
        """A shared lock on the snapshot's directory; None when it is gone, or about to be."""
        if not _ID.fullmatch(snapshot_id):
            return None
        path = self._snapshots / snapshot_id
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except OSError:
            pass
        os.close(lock)
        return None

    def _opened(self, snapshot_id: str, lock: int) -> Snapshot:
        path = self._snapshots / snapshot_id
        try:
            manifest = Manifest.read(path / FILE_NAME)
            if manifest.id != snapshot_id:
                raise SnapshotCorrupt(  # noqa: TRY301 - the lock is let go of below
                    f"the manifest in {path} is that of snapshot {manifest.id}",
                    hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
                )
            return Snapshot(path.resolve(strict=True), manifest, lock)
        except BaseException:
            os.close(lock)
            raise

    def _plain_files(self) -> list[os.DirEntry[str]]:
        with os.scandir(self._pointer) as entries:
            return sorted((e for e in entries if e.name.endswith(".parquet")), key=lambda entry: entry.name)

    def _plain_id(self) -> str | None:
        try:
            stats = [(entry.name, entry.stat()) for entry in self._plain_files()]
        except OSError as error:
            raise SnapshotCorrupt(
                f"{self._pointer} is neither a symlink to a snapshot nor a readable directory: {error.strerror}",
                hint="remove it, then `make rollback-data SNAPSHOT=<id>` or build a new snapshot",
            ) from error
        if not stats:
            return None
        text = repr([(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        return _PLAIN + hashlib.sha256(text.encode()).hexdigest()[:16]

    def _open_plain(self, snapshot_id: str) -> Snapshot:
        from backend import plain  # noqa: PLC0415 - needs DuckDB, see above

        return Snapshot(self._pointer, plain.describe(self._pointer, self._plain_files(), snapshot_id), None)

    # --- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def build(self, run_id: str, *, holder: str, wait: float = 0) -> Iterator[Build]:
        """The right to build, exclusively, until the block ends; what was not published by then is removed.

        ``holder`` names who builds, for whoever has to wait (at most ``wait`` seconds, then LockHeld).
        """
        for directory in (self.root, self._snapshots, self._building):
            directory.mkdir(parents=True, exist_ok=True)
        with self._locked("build.lock", holder, wait) as lock:
            # Whoever holds the lock is the only builder alive, so all that lies here is a dead one's.
            _empty(self._building)
            shutil.rmtree(self.workspace, ignore_errors=True)
            path = self._building / re.sub(r"[^\w.-]", "_", run_id)
            path.mkdir()
            try:
                yield Build(self, path, run_id, self._parent(), lock)
            finally:
                shutil.rmtree(path, ignore_errors=True)
                shutil.rmtree(self.workspace, ignore_errors=True)

    def rollback(self, snapshot_id: str, *, holder: str) -> Manifest:
        """Serve an earlier snapshot again. Raises SnapshotGone, or SnapshotCorrupt when it is not whole."""
        with self._locked("pointer.lock", holder, wait=10), self.open(snapshot_id) as snapshot:
            snapshot.verify()
            self._point_to(snapshot.id)
            return snapshot.manifest

    def take_over(self, source: SnapshotStore, *, holder: str, wait: float = 0) -> Manifest:
        """Copy what another store has and this one lacks, and serve what that one serves, under the same id.

        Files are compared with their checksums as they arrive, and lie here once however many snapshots share them.
        Of the source's snapshots only the current one has to be whole. Raises NoSnapshot, SnapshotCorrupt or OSError;
        then this store serves what it served, and another call goes on where this one ended.
        """
        with self.build("take-over", holder=holder, wait=wait) as build, source.open() as current:
            if not current.immutable:
                raise SnapshotCorrupt(
                    f"{source.root} has a plain directory, not a snapshot", hint="publish a snapshot first: `make dbt`"
                )
            here = {sha256: path for mine in self.manifests() for sha256, path in self._files(mine)}
            for snapshot_id in sorted(set(source.ids()) - set(self.ids())):
                try:
                    with source.open(snapshot_id) as snapshot:
                        self._copy(snapshot, build.path / snapshot_id, here)
                except (SnapshotCorrupt, SnapshotGone):
                    if snapshot_id == current.id:
                        raise
            with self._locked("pointer.lock", holder, wait=10), self.open(current.id) as mine:
                mine.verify()
                if self.current_id() != mine.id:
                    self._point_to(mine.id)
                return mine.manifest

    def _copy(self, snapshot: Snapshot, directory: Path, here: dict[str, Path]) -> None:
        """A snapshot of another store, in ``directory``, then among ours; ``here`` has our files by their checksum."""
        directory.mkdir()
        for mart in snapshot.manifest.marts.values():
            ours, target = here.get(mart.sha256), directory / snapshot.file(mart.name).name
            if ours is not None and ours.is_file() and file_sha256(ours) == mart.sha256:
                os.link(ours, target)
                continue
            if not snapshot.file(mart.name).is_file():
                raise SnapshotCorrupt(
                    f"{snapshot.file(mart.name)} is missing",
                    hint="serve an intact one: `make rollback-data SNAPSHOT=<id>`",
                )
            shutil.copyfile(snapshot.file(mart.name), target)
            target.chmod(0o444)
            _fsync(target)
        self._copy_state(snapshot, directory)
        manifest = directory / FILE_NAME
        manifest.write_text(snapshot.manifest.to_json(), encoding="utf-8")
        manifest.chmod(0o444)
        _fsync(manifest)
        Snapshot(directory, snapshot.manifest, None).verify()
        _fsync(directory)
        directory.rename(self._snapshots / snapshot.id)
        _fsync(self._snapshots)
        here.update(self._files(snapshot.manifest))

    def _copy_state(self, snapshot: Snapshot, directory: Path) -> None:
        for name, sha256 in snapshot.manifest.state.items():
            source, target = snapshot.path / _STATE / name, directory / _STATE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o444)
            if file_sha256(target) != sha256:
                raise SnapshotCorrupt(
                    f"{source} is not the file that was published",
                    hint="serve an intact one: `make rollback-data SNAPSHOT=<id>`",
                )
            _fsync(target)
            _fsync(target.parent)

    def _files(self, manifest: Manifest) -> Iterator[tuple[str, Path]]:
        for mart in manifest.marts.values():
            yield mart.sha256, self._snapshots / manifest.id / f"{mart.name}.parquet"

    def retain(self, *, keep: int, minutes: float) -> list[str]:
        """Delete old snapshots and return their ids.

        Kept are the current one, the ``keep`` newest, those that were replaced less than ``minutes`` ago, and those
        that any reader holds, in whatever process or container.
        """
        with self._locked("pointer.lock", "retention", wait=10):
            current, ids = self.current_id(), self.ids()
            horizon = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime(_ID_TIME)
            replaced_by = dict(pairwise(ids))
            candidates = [i for i in ids[: max(0, len(ids) - keep)] if i != current]
            self._trash.mkdir(exist_ok=True)
            _empty(self._trash)  # of one that was killed while it deleted
            return [i for i in candidates if replaced_by[i] < horizon and self._delete(i)]

    def _delete(self, snapshot_id: str) -> bool:
        path = self._snapshots / snapshot_id
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            trash = self._trash / snapshot_id
            path.rename(trash)  # at once and whole: what is half deleted has no id any more
            shutil.rmtree(trash)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def _parent(self) -> Manifest | None:
        """What a partial build takes marts over from; None where nothing whole is served: build everything then."""
        with suppress(SnapshotCorrupt, SnapshotGone, NoSnapshot), self.open() as current:
            return current.manifest if current.immutable else None
        return None

    def _publish(
        self,
        build: Build,
        marts: dict[str, Mart],
        source: dict[str, str],
        state: dict[str, str],
        *,
        new: AbstractSet[str],
    ) -> Manifest:
        parent_id = build.parent.id if build.parent else None
        with self._locked("pointer.lock", build.run_id, wait=60):
            if build.parent is None:
                found = self._parent()
                current = found.id if found else None
            else:  # its manifest was read before
                current = self.current_id()
            if current != parent_id:
                raise PublishConflict(
                    f"{self._pointer} was moved to {self.current_id()} while run {build.run_id} built on {parent_id}",
                    hint="nothing was published; run the build again",
                )
            snapshot_id, created_at = self._next_id()
            manifest = Manifest(snapshot_id, parent_id, created_at, marts, build.run_id, source, state)
            file = build.path / FILE_NAME
            file.write_text(manifest.to_json(), encoding="utf-8")
            kept = [build.path / _STATE / name for name in sorted(state)]
            for path in (file, *(build.path / f"{name}.parquet" for name in sorted(new)), *kept):
                path.chmod(0o444)
                _fsync(path)
            directories = {parent for path in kept for parent in path.parents if parent.is_relative_to(build.path)}
            for directory in (*directories, build.path):
                _fsync(directory)
            build.path.rename(self._snapshots / snapshot_id)
            _fsync(self._snapshots)
            _fsync(self._building)
            self._point_to(snapshot_id)
            return manifest

    def _next_id(self) -> tuple[str, datetime]:
        """An id that sorts after all there are, even when the clock went back."""
        now = datetime.now(UTC)
        if ids := self.ids():
            newest = datetime.strptime(ids[-1].rsplit("-", 1)[0], _ID_TIME).replace(tzinfo=UTC)
            now = max(now, newest + timedelta(microseconds=1))
        return f"{now.strftime(_ID_TIME)}-{secrets.token_hex(3)}", now

    def _point_to(self, snapshot_id: str) -> None:
        if self._pointer.is_dir() and not self._pointer.is_symlink():
            raise PublishConflict(
                f"{self._pointer} is a plain directory, expected a symlink that this store made",
                hint="move it away; what lies in it is served until then",
            )
        temporary = self.root / ".mart.next"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"snapshots/{snapshot_id}")
        temporary.replace(self._pointer)
        _fsync(self.root)

    def _locked(self, name: str, holder: str, wait: float) -> AbstractContextManager[int]:
        return lockfile.held(self.root / name, holder, wait=wait)


def _link(source: str, target: str) -> None:
    """The file under another name as well. Raises OSError."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

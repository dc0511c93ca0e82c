"""How a bundle lies in its archive: one directory, a checksum for every file, and one for the archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

from backend.checksum import file_sha256
from deploy.bundle.contents import Contents

SUMS = "SHA256SUMS"


def write(directory: Path, contents: Contents) -> Path:
    """Write ``<name>.tar`` and ``<name>.tar.sha256``; the path of the first.

    Neither is there under its name before it is whole.
    """
    archive = directory / f"{contents.name}.tar"
    partial = archive.with_suffix(".partial")
    sums = directory / f".{contents.name}.sums"
    try:
        sums.write_text(
            "".join(f"{file_sha256(path)}  {name}\n" for name, path in sorted(contents.files.items())), encoding="utf-8"
        )
        with tarfile.open(partial, "w") as tar:
            for name, path in sorted({**contents.files, SUMS: sums}.items()):
                tar.add(path, f"{contents.name}/{name}", recursive=False, filter=_nobodys)
        checksum = f"{file_sha256(partial)}  {archive.name}\n"
        partial.rename(archive)
        archive.with_suffix(".tar.sha256").write_text(checksum, encoding="utf-8")
    finally:
        sums.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return archive


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever unpacks it owns it, and no name of this host goes along."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    # A clone made under umask 077 must not yield files that only their owner reads; images.tar was saved as such.
    member.mode |= 0o644 if member.isfile() else 0o755
    return member

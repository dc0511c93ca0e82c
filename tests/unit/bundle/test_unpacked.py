"""What `make bundle` wrote, unpacked: whatever differs from it is refused before anything is installed."""

import platform
import subprocess
import tarfile

import pytest

from backend.filepaths import REPO_ROOT
from deploy.bundle import contents
from deploy.bundle.archive import write
from deploy.rollout.shell import Shell

WHEEL = "bundle/wheels/some.whl"
REFUSED = "the bundle is not what `make bundle` wrote"


@pytest.fixture
def archive(tmp_path):
    """A bundle with the real set-up, and next to nothing to install."""
    made = tmp_path / "made here"
    made.mkdir()
    own = {"machine": platform.machine(), "python": "3.99", "wheels/some.whl": "a wheel", "images.env": "A_IMAGE=a:b"}
    files = {name: REPO_ROOT / name for name in ("requirements.lock", "deploy/setup.sh")}
    files |= {str(path.relative_to(REPO_ROOT)): path for path in (REPO_ROOT / "deploy/setup").glob("*.sh")}
    for name, text in own.items():
        path = made / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
        files[f"bundle/{name}"] = path
    (made / "machine").chmod(0o600)
    return write(made, contents.Contents("a-bundle", files))


@pytest.fixture
def unpacked(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "un packed", filter="data")
    return tmp_path / "un packed" / "a-bundle"


def set_up(directory, step="venv", **environment):
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(directory), **environment}
    return subprocess.run(
        ["deploy/setup.sh", step], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_what_was_written_is_taken_and_a_python_that_it_has_no_packages_for_is_named(unpacked):
    done = set_up(unpacked)
    assert "comparing the bundle with its checksums" in done.stdout
    assert REFUSED not in done.stderr
    assert "expected Python 3.99" in done.stderr


def test_one_changed_byte_is_refused_by_name_and_nothing_is_installed(unpacked):
    changed = unpacked / WHEEL
    changed.write_bytes(changed.read_bytes().replace(b"w", b"W", 1))
    done = set_up(unpacked)
    assert done.returncode == 1
    assert REFUSED in done.stderr
    assert f"{WHEEL}: FAILED" in done.stderr
    assert not (unpacked / ".venv").exists()


def test_a_missing_file_is_refused_by_name(unpacked):
    (unpacked / WHEEL).unlink()
    done = set_up(unpacked)
    assert done.returncode == 1
    assert REFUSED in done.stderr
    assert WHEEL in done.stderr


@pytest.mark.parametrize("file", ["deploy/setup/images.sh", "requirements.lock"])
def test_the_repositorys_own_files_are_compared_too(unpacked, file):
    with (unpacked / file).open("a") as text:
        text.write("#")
    assert f"{file}: FAILED" in set_up(unpacked).stderr


def test_another_kind_of_machine_is_refused(unpacked, tmp_path):
    (tmp_path / "uname").write_text("#!/bin/sh\necho vax\n")
    (tmp_path / "uname").chmod(0o755)
    done = set_up(unpacked, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 1
    assert f"this bundle is for {platform.machine()}, and this host is vax" in done.stderr


@pytest.fixture
def engine(tmp_path):
    """A ``docker`` that only notes what it is asked, and has an image once something was loaded."""
    docker = tmp_path / "tools/docker"
    docker.parent.mkdir()
    docker.write_text(
        f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\n'
        f'case "$1" in load) touch "{tmp_path}/loaded" ;; image) test -e "{tmp_path}/loaded" ;; esac\n'
    )
    docker.chmod(0o755)
    return docker


def test_its_images_are_loaded_once_after_they_were_compared_and_nothing_is_pulled_or_built(unpacked, engine, tmp_path):
    path = f"{engine.parent}:/usr/bin:/bin"
    first, second = (set_up(unpacked, "images", PATH=path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "comparing the bundle with its checksums" in first.stdout
    assert "comparing" not in second.stdout
    asked = (tmp_path / "asked").read_text().splitlines()
    look = "image inspect a:b"
    assert asked == [look, "load --quiet --input bundle/images.tar", look]
    assert "A_IMAGE=a:b\n" in (unpacked / ".cache/images.env").read_text()


def test_changed_images_are_not_loaded(unpacked, engine, tmp_path):
    (unpacked / WHEEL).write_text("another")
    done = set_up(unpacked, "images", PATH=f"{engine.parent}:/usr/bin:/bin")
    assert done.returncode == 1
    assert REFUSED in done.stderr
    assert "load" not in (tmp_path / "asked").read_text()


def test_the_archive_has_its_own_checksum_and_names_nobody_of_this_host(archive):
    beside = subprocess.run(
        ["sha256sum", "--check", f"{archive.name}.sha256"], cwd=archive.parent, capture_output=True, check=False
    )
    assert beside.returncode == 0
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert all(member.mode & 0o044 == 0o044 for member in members)
    assert [path for path in archive.parent.iterdir() if path.name.startswith(".")] == []


def test_a_bundle_holds_what_git_has_and_no_secret_setting_or_data():
    names = set(contents._checkout(Shell()))
    assert names >= {"INSTALL.md", "Makefile", "compose/base.yaml", "deploy/setup.sh", "requirements.lock"}
    private = (".env", "secrets/", "data/", "dist/", ".cache/", ".venv/", ".git/")
    assert [name for name in names if name.startswith(private) and name != ".env_example"] == []

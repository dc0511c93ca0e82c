"""`make bundle` here, INSTALL.md there: on a host whose engine is empty, and which has no way to any network.

That host is an engine of its own, in a network namespace that has nothing but ``lo``, with a directory of its own. So
nothing can be pulled, and no build can fetch a package, nor is any image there but those of the archive.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backend.filepaths import REPO_ROOT

from .stack import wait_for

NEEDED = ("dockerd", "unshare", "nsenter", "setpriv", "ip", "make")
MINUTE = 60
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


class Host:
    """An engine in a network namespace of its own; ``home`` is all that it keeps."""

    def __init__(self, home):
        self.home = home
        self.log = home / "dockerd.log"
        # It ends with this process, even when that is killed.
        start = 'ip link set lo up && exec setpriv --pdeathsig TERM dockerd "$@"'
        places = {"data-root": "data", "exec-root": "run", "pidfile": "pid"}
        options = [f"--{name}={home / place}" for name, place in places.items()]
        with self.log.open("w") as log:
            self.dockerd = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", start, "sh", *options, f"--host=unix://{home}/engine"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *command, check=True, timeout=10 * MINUTE):
        """There, with nothing in the environment that says how this host is set up."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.dockerd.pid}/ns/net", *command],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "DOCKER_HOST": f"unix://{self.home}/engine",
                 "SOURCE_SCALE": "0.01"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def answers(self):
        assert self.dockerd.poll() is None, self.log.read_text()[-3000:]
        return self.run("docker", "version", check=False).returncode == 0

    def end(self):
        for container in self.run("docker", "ps", "--all", "--quiet", check=False).stdout.split():
            self.run("docker", "rm", "--force", "--volumes", container, check=False)
        self.dockerd.send_signal(signal.SIGTERM)
        self.dockerd.wait(timeout=MINUTE)


@pytest.fixture(scope="module")
def host():
    missing = [program for program in NEEDED if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"unknown: an engine in a network namespace needs root and {', '.join(missing) or 'no more'}")
    # Short: the engine's sockets are in it, and their paths may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="offline-"))
    made = Host(home)
    try:
        wait_for(made.answers, "the engine without a network answers", seconds=MINUTE, details=made.log.read_text)
        yield made
    finally:
        made.end()
        subprocess.run(["rm", "-rf", "--one-file-system", home], check=True)


@pytest.fixture(scope="module")
def installed(host):
    """The directory of the bundle there, once INSTALL.md was followed to the letter."""
    subprocess.run([sys.executable, "-m", "deploy.bundle", host.home], cwd=REPO_ROOT, check=True, capture_output=True)
    (script,) = re.findall(
        r"^```bash\n(.*?)^```", (REPO_ROOT / "deploy/bundle/INSTALL.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "make up PHASE=2" in script
    host.run("bash", "-euo", "pipefail", "-c", script)
    (directory,) = (path for path in host.home.glob("parquet-marts-*") if path.is_dir())
    return directory


def test_it_serves_real_data_on_a_host_that_has_no_network(host, installed):
    assert host.run("ip", "route").stdout.count("default") == 0
    ready = json.loads(host.run(sys.executable, "-c", ASK, "http://127.0.0.1:8000/health/ready").stdout)
    assert ready["status"] == "ready"
    assert ready["snapshot"] in host.run("make", "-s", "-C", installed, "snapshots").stdout
    assert host.run("make", "-s", "-C", installed, "status").stdout.startswith("Phase: 2\n")


def test_every_container_is_of_an_image_of_the_bundle_and_no_other_image_is_there(host, installed):
    named = set(re.findall(r"=(.+)", (installed / "bundle/images.env").read_text()))
    there = host.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(there) == sorted(named)
    run = set(host.run("docker", "ps", "--all", "--format", "{{.Image}}").stdout.split())
    assert run == named


def test_it_has_a_bill_of_materials_of_every_image_and_no_secret(installed):
    named = set(re.findall(r"=(.+)", (installed / "bundle/images.env").read_text()))
    bills = [json.loads(path.read_text()) for path in (installed / "bundle/sbom").iterdir()]
    assert {bill["metadata"]["component"]["name"] for bill in bills} == named
    sums = (installed / "SHA256SUMS").read_text()
    assert "  bundle/images.tar\n" in sums
    assert not re.search(r"  (\.env|secrets/|data/)", re.sub(r"  \.env_example\n", "", sums))


def test_setting_it_up_again_takes_nothing_and_goes_on(host, installed):
    assert "comparing" not in host.run("make", "-s", "-C", installed, "setup", "images").stdout

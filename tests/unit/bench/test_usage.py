import subprocess
import sys

from tests.bench import usage

HOLDER = "import os, sys; os.write(os.memfd_create('x'), bytes({size})); print('there', flush=True); sys.stdin.read()"


def test_a_file_in_memory_counts_though_it_is_not_mapped():
    peaks = []
    for size in (0, 50_000_000):
        command = [sys.executable, "-c", HOLDER.format(size=size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "there\n"
            with usage.measured([process.pid]) as used:
                pass
            process.communicate("")
        peaks.append(used.peak_bytes)
    assert 49_000_000 < peaks[1] - peaks[0] < 60_000_000

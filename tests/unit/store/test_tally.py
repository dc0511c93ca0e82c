import errno
import json

import pytest

from backend import tally

NONE = {"started": 0, "published": 0, "test_failed": 0, "audit_refused": 0, "failed": 0}


def test_each_event_is_counted(tmp_path):
    assert tally.read(tmp_path) == {}
    for event in (tally.STARTED, tally.PUBLISHED, tally.STARTED, tally.FAILED):
        tally.add(tmp_path, event)
    assert tally.read(tmp_path) == {**NONE, "started": 2, "published": 1, "failed": 1}
    assert [path.name for path in tmp_path.iterdir()] == [tally.FILE_NAME]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff"),
        *(b'{"started": "many"}', b'{"started": []}', b'{"started": true}', b'{"started": -1}', b'{"started": 1.5}'),
        *(b'{"started": Infinity}', b'{"started": 1%s}' % (b"0" * 400), b'{"started": 1%s}' % (b"0" * 5000)),
    ],
)
def test_a_damaged_file_is_logged_and_counted_anew(tmp_path, caplog, content):
    (tmp_path / tally.FILE_NAME).write_bytes(content)
    assert tally.read(tmp_path) == {}
    assert str(tmp_path / tally.FILE_NAME) in caplog.text
    tally.add(tmp_path, tally.STARTED)
    assert tally.read(tmp_path) == {**NONE, "started": 1}


def test_what_an_older_or_newer_version_counted_is_read(tmp_path):
    (tmp_path / tally.FILE_NAME).write_text(json.dumps({"started": 3, "exploded": 1}))
    assert tally.read(tmp_path) == {**NONE, "started": 3}


@pytest.mark.parametrize("fails", ["write_text", "replace"])
def test_where_nothing_can_be_written_it_is_logged_and_nothing_is_left(tmp_path, monkeypatch, caplog, fails):
    tally.add(tmp_path, tally.STARTED)

    def full(path, *_, **__):
        if fails == "write_text":
            path.touch()  # as much as a full disk takes
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tally.Path, fails, full)
        tally.add(tmp_path, tally.PUBLISHED)
    assert "No space left on device" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [tally.FILE_NAME]
    assert tally.read(tmp_path) == {**NONE, "started": 1}


def test_a_directory_that_is_not_there_is_no_error(tmp_path, caplog):
    tally.add(tmp_path / "missing", tally.STARTED)
    assert "counting a build" in caplog.text

"""The page's and the reference's files, as a browser gets them. What they do is in tests/page."""

import hashlib
import re

import pytest

from backend.filepaths import PAGE_DIR, REPO_ROOT

from .api import assert_error

OWN = sorted(path for path in PAGE_DIR.iterdir() if path.is_file())
DOCUMENTS = ("/", "/docs")
VENDORED = [PAGE_DIR / "vendor", REPO_ROOT / "tests" / "page" / "vendor"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_may_only_use_what_comes_from_here(client, path):
    response = client.get(path)
    assert response.headers["content-type"].startswith("text/html")
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    for own in ("script-src", "style-src", "connect-src"):
        assert policy.pop(own) == "'self'"
    assert policy.pop("img-src") == "'self' data:"
    assert policy == {"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", [*DOCUMENTS, "/page/main.js", "/page/style.css", "/page/vendor/uPlot.iife.min.js"])
def test_files_are_what_they_are_called_and_asked_for_only_once(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", response.headers["etag"])


@pytest.mark.parametrize("path", DOCUMENTS)
def test_all_that_a_document_names_is_there(client, path):
    named = re.findall(r'(?:src|href)="(/page/[^"]*)"', client.get(path).text)
    assert len(named) >= 4
    for file in named:
        assert client.get(file).status_code == 200, file


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/nothing.js", "/page/vendor", "/page/../pages.py", "/page/%2e%2e/pages.py", "/page//etc/hosts"],
)
def test_there_is_nothing_else(client, path):
    assert_error(client.get(path), 404, "not_found")


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_no_file_of_ours_names_another_server_or_markup_made_of_data(file):
    text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert re.findall(r"https?:|//\w+\.|innerHTML|insertAdjacentHTML|eval\(| style=| on\w+=\"", text) == []


@pytest.mark.parametrize("directory", VENDORED, ids=str)
def test_other_peoples_files_are_as_they_were_published(directory):
    listed = dict(
        re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (directory / "README.md").read_text(), re.MULTILINE)
    )
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    del files["README.md"]
    assert files == listed

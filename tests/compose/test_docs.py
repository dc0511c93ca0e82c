"""What the documents and the error hints tell people to type is there."""

import re

import pytest

from backend.filepaths import REPO_ROOT

SPEAKING = [
    path
    for pattern in ("*.md", ".env_example", "compose/*", "backend/**/*.py", "deploy/**/*")
    for path in sorted(REPO_ROOT.glob(pattern))
    if path.is_file() and path.suffix in ("", ".md", ".py", ".sh", ".yaml", ".sql")
]
MAKEFILE = (REPO_ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))


def test_every_make_target_that_is_named_exists():
    named = {
        (target, path.relative_to(REPO_ROOT))
        for path in SPEAKING
        for target in re.findall(r"`make (?:-s )?([a-z0-9-]+)|^make ([a-z0-9-]+)", path.read_text(), re.MULTILINE)
        for target in target
        if target
    }
    assert {target for target, _ in named} >= {"demo", "up", "test", "secrets", "token", "snapshots", "rollback-data"}
    assert {(target, path) for target, path in named if target not in TARGETS} == set()


def test_every_target_is_listed_by_help():
    assert set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE)) == TARGETS


@pytest.mark.parametrize("document", [path for path in SPEAKING if path.suffix == ".md"], ids=lambda path: path.name)
def test_every_link_and_decision_that_is_named_exists(document):
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / link).exists(), link
    for decision in re.findall(r"deploy/decisions/(\d{4}-[\w-]+\.md)", text):
        assert (REPO_ROOT / "deploy/decisions" / decision).exists(), decision

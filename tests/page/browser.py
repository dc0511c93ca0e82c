"""Debian's Chromium, headless, and tabs in which nothing may go wrong unseen. Fixtures for a ``conftest.py``."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from backend.filepaths import REPO_ROOT

SCREENSHOTS = REPO_ROOT / "tests" / "e2e" / "output" / "page"
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds, on a machine that others use as well
expect.set_options(timeout=PATIENCE)
REPORT_VIOLATIONS = """
    addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
        console.error(`policy: ${violatedDirective} ${blockedURI}`));
"""


@pytest.fixture(scope="module")  # Playwright keeps an event loop in this thread, which another module may not want
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("there is no Chromium: deploy/setup.sh browser installs it, or says how to")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium):
    """``open_tab(site, **options)``: a new visitor's tab. It ends the test if a script failed, the page's own policy
    was violated, or anything was asked of another host."""
    visitors, wrong = [], []

    def opened(site, **options):
        visitor = chromium.new_context(base_url=site.url, **options)
        visitors.append(visitor)
        visitor.add_init_script(REPORT_VIOLATIONS)
        visitor.set_default_timeout(PATIENCE)
        visitor.on("request", lambda request: wrong.append(request.url) if elsewhere(site, request.url) else None)
        visitor.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
        visitor.on("weberror", lambda error: wrong.append(str(error.error)))
        return visitor.new_page()

    yield opened
    for visitor in visitors:
        visitor.close()
    assert wrong == []


def elsewhere(site, url):
    return urlsplit(url).netloc != urlsplit(site.url).netloc and urlsplit(url).scheme not in ("data", "blob")


def is_wrong(message):
    # Answers that are errors are what some tests are about.
    return message.type == "error" and not message.text.startswith("Failed to load resource")

"""The browser of this machine, for what prints or tests the book.

Playwright drives Debian's ``chromium``, or what the environment variable
CHROMIUM names. Nothing is downloaded.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
MISSING = "no browser: install chromium, or name one by CHROMIUM"


def find_browser() -> str | None:
    """Return the path of a browser, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """Start a browser, without a window."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=FLAGS + ["--no-sandbox"] * as_root,
        )
        yield browser
        browser.close()

"""A browser for the tests of the site and of the interactive figures.

Playwright drives the browser of the machine: Debian's ``chromium``, or what
the environment variable CHROMIUM names. Nothing is downloaded.
"""

import functools
import os
import shutil
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def find_browser() -> str | None:
    """Return the path of a browser, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")  # Playwright's loop must end with the module
def browser() -> Iterator[Browser]:
    """Start one browser; without one, skip, or fail where CI is set."""
    path = find_browser()
    if path is None:
        missing = "no browser: install chromium, or name one by CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=path,
            args=FLAGS + ["--no-sandbox"] * as_root,
        )
        yield running
        running.close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line on stderr for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free loopback port; yield its address."""
    handler = functools.partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Watch:
    """Block what leaves the machine, and note all that goes wrong."""

    def __init__(self, page: Page) -> None:
        self.problems: list[str] = []
        page.route("**/*", self._stay_here)
        page.on("requestfailed", lambda r: self._note("failed", r.url))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("console", self._hear)
        page.on("response", self._answer)

    def _note(self, kind: str, what: str) -> None:
        self.problems.append(f"{kind}: {what}")

    def _stay_here(self, route) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")):
            route.continue_()
        else:
            self._note("leaves the machine", url)
            route.abort()

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self._note("console", message.text)

    def _answer(self, response) -> None:
        if response.status >= 400:
            self._note(f"status {response.status}", response.url)

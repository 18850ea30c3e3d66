"""A browser for the tests of the site and of the interactive figures."""

import functools
import os
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page

from autograder.browser import MISSING, find_browser, running


@pytest.fixture(scope="module")  # Playwright's loop must end with the module
def browser() -> Iterator[Browser]:
    """Start one browser; without one, skip, or fail where CI is set."""
    program = find_browser()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with running(program) as started:
        yield started


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

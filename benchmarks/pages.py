"""Open every page of the built site; record what a reader waits for.

Build the site first, then run it from the root of the repository:
python benchmarks/pages.py

For each page, on a first visit: the bytes that come over the wire as a host
sends them (text gzipped), the milliseconds of script until the page is idle,
the time of the first paint, and how far the layout jumped (cumulative layout
shift; 0.1 and less is called good).
"""

import json
from pathlib import Path

from playwright.sync_api import Browser
from rich.console import Console
from rich.table import Table

from autograder.browser import find_browser, running
from contextlab.recorded import made_by
from tests.browsing import serve
from tests.test_site import PAGES, weight

SITE = Path("_build/html")
RECORD = Path(__file__).with_suffix(".json")
LOADED = """() => ({
  paths: [location, ...performance.getEntriesByType("resource")
    .map((entry) => new URL(entry.name))].map((url) => url.pathname),
  paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
})"""
SHIFT = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def visit(browser: Browser, address: str, path: str) -> dict:
    """Open one page with an empty cache and measure it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(SHIFT)
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto(f"{address}{path}.html", wait_until="networkidle")
    metrics = {
        metric["name"]: metric["value"]
        for metric in session.send("Performance.getMetrics")["metrics"]
    }
    loaded = page.evaluate(LOADED)
    shift = page.evaluate("window.shift")
    context.close()
    return {
        "page": path,
        "kib": round(
            sum(weight(SITE, name) for name in set(loaded["paths"])) / 1024
        ),
        "script_ms": round(1000 * metrics["ScriptDuration"]),
        "first_paint_ms": round(loaded["paint"]),
        "layout_shift": round(shift, 4),
    }


if __name__ == "__main__":
    with running(find_browser()) as browser:
        address = next(serving := serve(SITE))
        visit(browser, address, PAGES[0])  # the browser's own start
        rows = [visit(browser, address, path) for path in PAGES]
        serving.close()
    table = Table("page", "KiB", "script, ms", "first paint, ms", "shift")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    record = {"made": made_by("benchmarks/pages.py"), "rows": rows}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

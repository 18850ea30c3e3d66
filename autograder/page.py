"""What the book's pages need besides their text.

- the interactive figures, each in a classic script: a page opened from a
  file may not import modules;
- the fonts of the text, within a stylesheet;
- one download button, for the notebook of the reader, and doors that open it;
- a link to each exercise, beside its number;
- at the foot of a page that runs code, when and with what it was computed;
- chapters that have the number of their file: ``02-attention`` is chapter 2;
- the theme's icons as its font alone: the same as a script are 1.5 MB;
- no Thebe, which Jupyter Book puts on every page even where it is off.
"""

import re
import subprocess
from base64 import b64encode
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx_external_toc.collectors import (
    TocTreeCollectorWithStyles as TocCollector,
)

from autograder import publish
from contextlab import widgets

FIGURES = "figures"  # the folder of their scripts, among the static files
FIGURE = re.compile(r'<div class="contextlab-figure" data-widget="(\w+)"')
# The theme's own script sets the theme late, after a flash of light in the
# dark. Fonts come late too, when lines stand already, and would move them.
BEFORE_FIRST_PAINT = """{
  const page = document.documentElement.dataset;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (!["light", "dark"].includes(page.theme))
    page.theme = dark ? "dark" : "light";
  for (const face of document.fonts)
    if (face.family.includes("Source")) face.load();
}"""
FONT_FACE = """@font-face {{
  font-family: "{family}";
  font-weight: {weight};
  font-style: {style};
  src: url(data:font/woff2;base64,{data}) format("woff2");
}}
"""
FONTS = {  # file: family, weight, style
    "source-serif": ("Source Serif", "200 900", "normal"),
    "source-serif-italic": ("Source Serif", "200 900", "italic"),
    "source-sans": ("Source Sans", "200 900", "normal"),
    "source-code": ("Source Code", "200 900", "normal"),
    "icons": ("Font Awesome 6 Free", "900", "normal"),
}
SAME_ID = re.compile('<section id="(?:exercise|solution)-content">')
EXERCISE = re.compile(
    r'<div class="exercise admonition" id="([^"]+)">\s*'
    r'<p class="admonition-title">.*?(?=</p>)',
    re.DOTALL,
)
PERMALINK = (
    r'\g<0><a class="headerlink" href="#\1" '
    'title="Link to this exercise">#</a>'
)
NUMBER_BY_PLACE = TocCollector.assign_section_numbers
CHAPTER_NUMBER = re.compile(r"(?:^|/)(\d\d)-[^/]*$")


def write_figures(app: Sphinx) -> None:
    """Write the figures' scripts and stylesheet among the static files."""
    if app.builder.format != "html":
        return
    write_static(app, f"{FIGURES}/on_page.js", widgets.on_page_script())
    for name in widgets.NAMES:
        body = widgets.module(name).replace("export default", "return")
        script = f"contextlab.figures.{name} = (() => {{\n{body}}})();\n"
        write_static(app, f"{FIGURES}/{name}.js", script)
    write_static(app, "figure.css", widgets.style())


def write_static(app: Sphinx, name: str, text: str) -> None:
    """Write a static file of the site."""
    path = Path(app.outdir, "_static", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def prepare_first_paint(app: Sphinx) -> None:
    """Give the first paint its theme, and its fonts within a stylesheet.

    Fonts that arrive later make lines jump, and a preload of them fails on
    pages opened from a file.
    """
    if app.builder.format != "html":
        return
    faces = []
    for name, (family, weight, style) in FONTS.items():
        font = Path(app.confdir, "book", "_static", "fonts", f"{name}.woff2")
        data = b64encode(font.read_bytes()).decode()
        faces.append(
            FONT_FACE.format(
                family=family, weight=weight, style=style, data=data
            )
        )
    write_static(app, "fonts.css", "".join(faces))
    app.add_css_file("fonts.css", priority=100)
    app.add_js_file(None, body=BEFORE_FIRST_PAINT, priority=1)


def finish_page(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], *_: Any
) -> None:
    """Give the page its figures and its download button."""
    body = context.get("body", "")
    # ARIA has given up this role, which Sphinx still writes.
    body = body.replace("doc-biblioentry", "listitem")
    body = SAME_ID.sub("<section>", body)
    context["body"] = EXERCISE.sub(PERMALINK, body)
    if figures := sorted(set(FIGURE.findall(body))):
        for name in ("on_page", *figures):  # not deferred: the body needs them
            app.add_js_file(f"{FIGURES}/{name}.js", priority=400)
        app.add_css_file("figure.css")
    context["header_buttons"] = [
        button
        for button in context.get("header_buttons", [])
        if button.get("label") != "download-buttons"
    ]
    home = app.config.repository
    if CHAPTER_NUMBER.search(pagename):
        url = context["pathto"](f"_sources/{pagename}.ipynb", resource=True)
        context["header_buttons"] += [
            download_button(url),
            open_button(publish.doors(pagename, home)),
        ]
    context["body"] += foot(app, pagename, home)


def download_button(url: str) -> dict[str, str]:
    """Return the theme's description of the button."""
    return {
        "type": "link",
        "url": url,
        "icon": "fas fa-download",
        "text": "Notebook",
        "tooltip": "Download this chapter as a notebook, without the answers",
        "label": "download-notebook",
    }


def open_button(doors: dict[str, str]) -> dict[str, Any]:
    """Return the theme's description of a menu of places."""
    tooltips = {"JupyterLab": "In a JupyterLab started beside the notebooks"}
    return {
        "type": "group",
        "icon": "fas fa-rocket",
        "tooltip": "Open this chapter's notebook",
        "label": "open-notebook",
        "buttons": [
            {
                "type": "link",
                "url": url,
                "icon": "fas fa-play",
                "text": name,
                "tooltip": tooltips.get(
                    name, f"On {name}, without the answers"
                ),
                "label": f"open-in-{name.lower()}",
            }
            for name, url in doors.items()
        ],
    }


def foot(app: Sphinx, pagename: str, home: str) -> str:
    """Say when and with what a page was computed, and where to mend it."""
    if pagename not in app.env.found_docs:
        return ""
    said = []
    done = NbMetadataCollector.get_exec_data(app.env, pagename)
    if done and done["runtime"] is not None:
        day = datetime.fromtimestamp(done["mtime"], tz=UTC)
        said.append(
            f"The cells of this page ran on {day:%d %B %Y}, in "
            f"{done['runtime']:.0f} s, with Python {python_version()} and "
            f"PyTorch {version('torch')}, from {commit(app, pagename)}."
        )
    path = Path(app.env.doc2path(pagename)).relative_to(app.srcdir)
    if home:
        said.append(
            f'<a href="{home}/edit/main/{path.as_posix()}">Edit this page</a>'
        )
    return f'<p class="computed">{" ".join(said)}</p>' if said else ""


def commit(app: Sphinx, pagename: str) -> str:
    """Name the commit that last changed what a page is made of."""
    files = sorted(
        {app.env.doc2path(pagename)}
        | {
            str(Path(app.srcdir, path))
            for path in app.env.dependencies[pagename]
        }
    )
    asked = ["git", "log", "-1", "--format=commit %h", "--", *files]
    try:
        ended = subprocess.run(
            asked, cwd=app.srcdir, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "a copy without its history"
    return ended.stdout.strip() or "files that are in no commit yet"


def number_by_file(
    collector: TocCollector, env: BuildEnvironment
) -> list[str]:
    """Assign numbers by place, then put the file's for the first."""
    before = env.toc_secnumbers
    NUMBER_BY_PLACE(collector, env)
    after = env.toc_secnumbers
    for docname, numbers in after.items():
        if match := CHAPTER_NUMBER.search(docname):
            renumber(env, docname, numbers, int(match[1]))
    return [name for name in after if after[name] != before.get(name)]


def renumber(
    env: BuildEnvironment, docname: str, numbers: dict, chapter: int
) -> None:
    """Put ``chapter`` for the first number of all sections of a page."""
    for anchor, (_, *rest) in numbers.items():
        numbers[anchor] = (chapter, *rest)
    for reference in env.tocs[docname].findall(nodes.reference):
        if reference.get("secnumber"):
            reference["secnumber"] = list(numbers[reference["anchorname"]])
    env.titles[docname]["secnumber"] = list(numbers[""])


def leave_out_thebe(app: Sphinx) -> None:
    """Take away what sphinx-thebe would add, its script on a CDN too."""
    for event, listeners in app.events.listeners.items():
        app.events.listeners[event] = [
            listener
            for listener in listeners
            if listener.handler.__module__ != "sphinx_thebe"
        ]
    app.registry.css_files[:] = [
        (name, attributes)
        for name, attributes in app.registry.css_files
        if name != "sphinx-thebe.css"
    ]


def leave_out_icons(app: Sphinx, exception: Exception | None) -> None:
    """Empty the script of icons: the theme's stylesheet draws them too."""
    script = Path(app.outdir, "_static", "scripts", "fontawesome.js")
    if exception is None and script.exists():
        script.write_text("// The stylesheet draws the icons.\n", "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is above."""
    leave_out_thebe(app)
    TocCollector.assign_section_numbers = number_by_file
    app.connect("builder-inited", write_figures)
    app.connect("builder-inited", prepare_first_paint)
    app.connect("build-finished", leave_out_icons)
    app.connect("html-page-context", finish_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

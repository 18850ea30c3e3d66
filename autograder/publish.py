"""Where readers of a page can take its notebook, and the files for that.

The built site is all that has to be published, as the branch ``gh-pages`` of a
repository on GitHub: Colab and Binder open the notebooks that lie in it.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from autograder.chapters import ROOT, Chapter
from autograder.release import BUNDLE, bundle, student_packages

BRANCH = "gh-pages"
SOURCES = "_sources"
COLAB = "colab"  # the folder of the notebooks that set up Colab
# Colab has the large packages, in versions of its own.
ON_COLAB = {"ipywidgets", "jupyterlab", "matplotlib", "numpy", "torch"}
ABOUT_COLAB = (
    "**On Colab.** Run the next cell once. It fetches what the course's "
    "notebooks import. Colab has a PyTorch of its own, so that some digits "
    "may differ from the book's."
)
SET_UP_COLAB = """\
!wget -q {archive}
!unzip -qo {name} && cp -r {bundle}/* .
%pip install -q {packages}"""
SET_UP_BINDER = f"""\
#!/usr/bin/env bash
set -e
python -m zipfile -e {SOURCES}/{BUNDLE}.zip .
"""


def repository() -> str:
    """Return the address of the repository on GitHub, or nothing.

    GitHub's workflows say it in these variables; so can you.
    """
    name = os.environ.get("GITHUB_REPOSITORY", "")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{name}" if name else ""


def write(
    outdir: Path, chapters: Iterable[tuple[str, Chapter]], home: str
) -> None:
    """Write what readers of the site can take away.

    Args:
        outdir: the built site.
        chapters: the name of each chapter's page, and the chapter.
        home: the repository's address, or nothing.
    """
    sources = outdir / SOURCES
    written = []
    for docname, chapter in chapters:
        written.append(sources / f"{docname}.ipynb")
        jupytext.write(chapter.for_student(), written[-1], fmt="ipynb")
    with TemporaryDirectory() as folder:
        archive = bundle(written, Path(folder))
        shutil.copy(archive, sources / archive.name)
        requirements = Path(folder, BUNDLE, "requirements.txt").read_text()
    binder = outdir / ".binder"
    binder.mkdir(exist_ok=True)
    binder.joinpath("requirements.txt").write_text(requirements)
    binder.joinpath("postBuild").write_text(SET_UP_BINDER)
    binder.joinpath("postBuild").chmod(0o755)
    outdir.joinpath(".nojekyll").touch()  # GitHub would leave out _sources
    colab = sources / COLAB
    shutil.rmtree(colab, ignore_errors=True)
    if home:
        colab.mkdir()
        for path in written:
            _write_for_colab(path, colab / path.name, home)


def _write_for_colab(student: Path, path: Path, home: str) -> None:
    """Put before a student's notebook the cell that fetches its imports."""
    notebook = nbformat.read(student, as_version=4)
    name = f"{BUNDLE}.zip"
    set_up = SET_UP_COLAB.format(
        archive=f"{home}/raw/{BRANCH}/{SOURCES}/{name}",
        name=name,
        bundle=BUNDLE,
        packages=" ".join(sorted(set(student_packages(ROOT)) - ON_COLAB)),
    )
    cells = [new_markdown_cell(ABOUT_COLAB), new_code_cell(set_up)]
    notebook.cells[:0] = cells
    nbformat.write(notebook, path)


def doors(docname: str, home: str) -> dict[str, str]:
    """Return the places where a chapter's notebook opens, by name.

    Args:
        docname: the name of the chapter's page.
        home: the repository's address, or nothing: then it is not published,
            and opens in the reader's own JupyterLab alone.
    """
    notebook = f"{Path(docname).name}.ipynb"
    found = {"JupyterLab": f"http://localhost:8888/lab/tree/{notebook}"}
    if home:
        owner = home.split("/", 3)[-1]
        found["Colab"] = (
            f"https://colab.research.google.com/github/{owner}/blob/{BRANCH}"
            f"/{SOURCES}/{COLAB}/{notebook}"
        )
        found["Binder"] = (
            f"https://mybinder.org/v2/gh/{owner}/{BRANCH}"
            f"?urlpath=lab/tree/{BUNDLE}/{notebook}"
        )
    return found

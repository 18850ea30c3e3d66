"""What a published site lets a reader open elsewhere is there."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest

from autograder import publish
from autograder.chapters import find

HOME = "https://github.com/somebody/windows"
CHAPTER = find("attention")
PAGE = f"book/{CHAPTER.stem}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Write what readers take away, as at the end of a build."""
    folder = tmp_path_factory.mktemp("site")
    folder.joinpath("_sources", "book").mkdir(parents=True)
    publish.write(folder, [(PAGE, CHAPTER)], HOME)
    return folder


def test_a_repository_is_known_by_githubs_variables(monkeypatch):
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/windows")
    assert publish.repository() == HOME
    monkeypatch.delenv("GITHUB_REPOSITORY")
    assert publish.repository() == ""
    assert list(publish.doors(PAGE, "")) == ["JupyterLab"]


def test_colab_opens_a_notebook_that_fetches_its_imports(site):
    url = urlsplit(publish.doors(PAGE, HOME)["Colab"])
    place = "/github/somebody/windows/blob/gh-pages/"
    assert url.netloc == "colab.research.google.com"
    assert url.path.startswith(place)
    notebook = nbformat.read(site / url.path.removeprefix(place), as_version=4)
    nbformat.validate(notebook)
    about, set_up, *rest = notebook.cells
    assert "Colab" in about.source
    assert [c.source for c in rest] == [
        c.source for c in CHAPTER.for_student().cells
    ]
    archive = set_up.source.split()[2]
    raw = f"{HOME}/raw/gh-pages/"
    assert archive.startswith(raw)
    assert (site / archive.removeprefix(raw)).is_file()
    assert "anywidget" in set_up.source
    assert "torch" not in set_up.source


def test_binder_unpacks_the_notebook_that_it_opens(site):
    url = urlsplit(publish.doors(PAGE, HOME)["Binder"])
    assert url.path == "/v2/gh/somebody/windows/gh-pages"
    (place,) = parse_qs(url.query)["urlpath"]
    subprocess.run(
        [site / ".binder" / "postBuild"],
        cwd=site,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        check=True,
    )
    opened = site / place.removeprefix("lab/tree/")
    assert opened.is_file()
    assert (opened.parent / "contextlab" / "checks.py").is_file()
    pins = (site / ".binder" / "requirements.txt").read_text()
    assert "torch==" in pins
    assert "nbgrader" not in pins


def test_github_serves_what_begins_with_an_underscore(site):
    assert (site / ".nojekyll").is_file()


def test_a_site_that_is_not_published_offers_no_colab(tmp_path):
    tmp_path.joinpath("_sources", "book").mkdir(parents=True)
    publish.write(tmp_path, [(PAGE, CHAPTER)], "")
    assert (tmp_path / "_sources" / f"{PAGE}.ipynb").is_file()
    assert not (tmp_path / "_sources" / "colab").exists()

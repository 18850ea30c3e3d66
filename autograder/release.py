"""Release chapters: nbgrader's assignments, and a bundle to hand out.

All is made in a folder beside and moved into place at the end: what is wrong
with a chapter is said before anything is written.
"""

import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment

from autograder.chapters import ROOT, Chapter
from autograder.course import Course, last_error
from autograder.errors import CourseError

BUNDLE = "student-bundle"
NOT_BUNDLED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
NAME = re.compile(r"[A-Za-z0-9._-]+")


class CellsChangedError(CourseError):
    """A chapter that was handed in already has other cells now."""


def release(course: Course, chapters: list[Chapter]) -> None:
    """Write the chapters' notebooks and bundle all that are released.

    Releasing anew replaces what was released and leaves the submissions and
    the grades as they are.

    Raises:
        CourseError: if a chapter can't be filled, if ``requirements.txt``
            lacks a pin, or if submissions forbid the change.
    """
    filled = {chapter: chapter.for_grader() for chapter in chapters}
    student_requirements(ROOT)  # says now if a pin is missing
    for chapter, notebook in filled.items():
        _check_cells_are_kept(course, chapter, notebook)
    course.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=course.root, prefix=".release-") as folder:
        beside = Path(folder)
        for chapter, notebook in filled.items():
            _generate(course, chapter, notebook, beside)
        for chapter in chapters:
            for step in ("source", "release"):
                new = beside / step / chapter.name
                _replace(course.folder(step, chapter), new)
        released = sorted(course.root.glob("release/*/*.ipynb"))
        bundle(released, beside).replace(course.root / f"{BUNDLE}.zip")
        _replace(course.root / BUNDLE, beside / BUNDLE)
    with course.gradebook() as gradebook:
        course.set_due_dates(gradebook)
        gradebook.db.commit()


def student_requirements(root: Path) -> str:
    """Pin what ``pyproject.toml`` says that a notebook needs.

    The pins are those of ``requirements.txt``, which pins everything.
    """
    pins = root / "requirements.txt"
    if not pins.is_file():
        raise CourseError(
            f"{pins} is missing; the students' requirements are taken from it"
        )
    lines = pins.read_text(encoding="utf-8").splitlines()
    needed = student_packages(root)
    for name in needed:
        if name not in map(_package, lines):
            raise CourseError(
                f"{pins} has no pin of {name!r}, which pyproject.toml needs; "
                f"add a line '{name}==…'"
            )
    kept = [x for x in lines if x.startswith("--") or _package(x) in needed]
    return "\n".join([*kept, ""])


def student_packages(root: Path) -> list[str]:
    """Return the packages that a notebook needs, as pyproject.toml says."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return [_package(line) for line in project["dependencies"]]


def _package(requirement: str) -> str:
    """Return the name of a package as all spellings of it are compared."""
    found = NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _check_cells_are_kept(
    course: Course, chapter: Chapter, notebook: NotebookNode
) -> None:
    """Refuse what nbgrader refuses, before anything is written.

    Once there are submissions, their points belong to the cells of the
    notebook: none may appear, disappear or change its name.
    """
    if not course.has_gradebook():
        return
    new = {(chapter.stem, name) for name in _grade_ids(notebook)}
    with course.gradebook() as gradebook:
        known = {a.name: a for a in gradebook.assignments}
        assignment = known.get(chapter.name)
        if not assignment or not assignment.submissions:
            return
        old = {
            (released.name, cell.name)
            for released in assignment.notebooks
            for cell in released.source_cells
        }
    if old != new:
        names = ", ".join(sorted(name for _, name in old ^ new))
        raise CellsChangedError(
            f"{chapter.path} has other cells than were handed in already "
            f"({names}); take the change back, or release into a new folder "
            "by --course DIR"
        )


def _grade_ids(notebook: NotebookNode) -> Iterable[str]:
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            yield cell.metadata.nbgrader.grade_id


def _generate(
    course: Course, chapter: Chapter, notebook: NotebookNode, beside: Path
) -> None:
    """Run nbgrader's generate_assignment into the folder beside."""
    source = beside / "source" / chapter.name / f"{chapter.stem}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    log = course.convert(
        GenerateAssignment,
        chapter,
        source_directory=f"{beside.name}/source",
        release_directory=f"{beside.name}/release",
    )
    if log:
        raise CourseError(
            f"{chapter.path}: nbgrader can't release it: {last_error(log)}"
        )


def bundle(notebooks: Iterable[Path], folder: Path) -> Path:
    """Put all that a student needs into one new folder, and zip it.

    Args:
        notebooks: the students' notebooks.
        folder: where the folder is made, and ``student-bundle.zip`` beside.

    Returns:
        The archive.
    """
    requirements = student_requirements(ROOT)
    new = folder / BUNDLE
    shutil.copytree(
        ROOT / "contextlab", new / "contextlab", ignore=NOT_BUNDLED
    )
    scale = Path("book", "_data", "scale")
    shutil.copytree(ROOT / scale, new / scale)
    for notebook in notebooks:
        shutil.copy(notebook, new)
    new.joinpath("requirements.txt").write_text(requirements)
    return Path(shutil.make_archive(str(new), "zip", folder, BUNDLE))


def _replace(old: Path, new: Path) -> None:
    """Move a folder into the place of another, which goes with ``new``'s."""
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        old.rename(new.with_name(f"{new.name}.old"))
    new.rename(old)

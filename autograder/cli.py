"""The commands of ``python -m autograder``.

Every command ends with 0 (all is well), 1 (something fell short) or 2 (it was
used wrongly).
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from autograder import show
from autograder.chapters import ROOT, find, select
from autograder.errors import CourseError

app = typer.Typer(
    help="Release, check, grade and explain the exercises of the course.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
errors = Console(stderr=True, soft_wrap=True)

ChapterName = Annotated[
    str, typer.Argument(help="A chapter: attention, 02 or 02-attention.")
]
ChapterNames = Annotated[
    list[str] | None,
    typer.Argument(help="Chapters; all of them if none is named."),
]
CourseFolder = Annotated[
    Path,
    typer.Option(
        "--course", help="The course folder, laid out as nbgrader's."
    ),
]
COURSE = ROOT / "course"
SAMPLE_CLASS = ROOT / "_build" / "sample-class"


def main() -> None:
    """Run a command; a user's mistake is one line, not a traceback."""
    warnings.simplefilter("ignore")  # what libraries say among themselves
    try:
        app()
    except CourseError as error:
        errors.print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(2)


@app.command()
def check(
    chapter: ChapterName,
    notebook: Annotated[
        Path | None,
        typer.Argument(
            help="Your notebook; by default the chapter's, in this folder."
        ),
    ] = None,
    module: Annotated[
        Path | None,
        typer.Option(
            help="A Python file with your answers, instead of a notebook."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.")
    ] = False,
) -> None:
    """Run the checks on your own answers, and name what is wrong.

    Example: `python -m autograder check attention 02-attention.ipynb`
    """
    from autograder.engine import judge

    if notebook and module:
        raise CourseError("name a notebook or --module FILE.py, not both")
    found = find(chapter)
    path = module or notebook or Path(f"{found.stem}.ipynb")
    result = judge(found, path)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        console.print(show.result(result))
    passed = result["points"] == result["max_points"]
    raise typer.Exit(0 if passed else 1)


@app.command()
def gate(chapters: ChapterNames = None) -> None:
    """Prove that each known mistake is caught and each right answer passes.

    Example: `python -m autograder gate attention`
    """
    from autograder.gate import gate as rows_of

    rows = [
        row
        for chapter in track(
            select(chapters or []),
            "At the gate",
            console=errors,
            transient=True,
        )
        for row in rows_of(chapter)
    ]
    console.print(show.gate(rows))
    raise typer.Exit(1 if any(row.problems for row in rows) else 0)


@app.command()
def release(
    chapters: ChapterNames = None, course: CourseFolder = COURSE
) -> None:
    """Make the students' notebooks, and a bundle to hand out.

    Example: `python -m autograder release attention`
    """
    from autograder.course import Course
    from autograder.release import BUNDLE, release

    found = select(chapters or [])
    with errors.status("Releasing"):
        release(Course(course.resolve()), found)
    say(f"Released {', '.join(chapter.name for chapter in found)}")
    say(f"For students: {course / BUNDLE} and {BUNDLE}.zip")


@app.command()
def sample(
    chapters: ChapterNames = None, course: CourseFolder = SAMPLE_CLASS
) -> None:
    """Make up a class of seven students and what they hand in.

    Example: `python -m autograder sample --course _build/sample-class`
    """
    from autograder.course import Course
    from autograder.sample_class import STUDENTS, sample_class

    with errors.status("Handing in"):
        sample_class(Course(course.resolve()), select(chapters or []))
    say(f"Handed in by {', '.join(STUDENTS)}: {course}/submitted")


@app.command()
def grade(
    chapters: ChapterNames = None,
    course: CourseFolder = COURSE,
    force: Annotated[
        bool, typer.Option(help="Grade anew what is graded already.")
    ] = False,
) -> None:
    """Grade what was handed in since the last time.

    A submission that can't be executed scores 0 and the reason is written
    down; the others are graded all the same.

    Example: `python -m autograder grade attention`
    """
    from autograder.course import Course
    from autograder.grading import grade, submissions

    found = submissions(Course(course.resolve()), select(chapters or []))
    todo = [one for one in found if force or not one.is_graded()]
    with progress() as bar:
        for one in bar.track(todo, description="Grading"):
            problem = grade(one)["problem"]
            if problem:
                who = f"{one.student}, {one.chapter.name}"
                errors.print(show.warning(who, problem))
    done = len(found) - len(todo)
    say(f"Graded {len(todo)} submissions, {done} unchanged")


@app.command()
def feedback(
    chapters: ChapterNames = None, course: CourseFolder = COURSE
) -> None:
    """Write a page for each graded student that says what went wrong.

    Example: `python -m autograder feedback attention`
    """
    from autograder.course import Course
    from autograder.feedback import feedback
    from autograder.grading import submissions

    found = submissions(Course(course.resolve()), select(chapters or []))
    graded = [one for one in found if one.executed.is_file()]
    if not graded:
        raise CourseError(
            "nothing is graded; run 'python -m autograder grade'"
        )
    failed = 0
    with progress() as bar:
        for one in bar.track(graded, description="Writing"):
            try:
                feedback(one)
            except CourseError as error:  # the others get their pages
                errors.print(show.warning(one.student, str(error)))
                failed += 1
    say(f"Wrote {len(graded) - failed} pages: {course}/feedback")
    raise typer.Exit(1 if failed else 0)


@app.command()
def report(
    chapters: ChapterNames = None, course: CourseFolder = COURSE
) -> None:
    """Print the table of grades.

    Example: `python -m autograder report attention`
    """
    from autograder.course import Course
    from autograder.report import grades

    for table in grades(Course(course.resolve()), select(chapters or [])):
        console.print(show.grades(table))


def progress() -> Progress:
    """Return a bar for work that takes its time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )


def say(line: str) -> None:
    """Print one line, however long."""
    console.print(line, soft_wrap=True, highlight=False)

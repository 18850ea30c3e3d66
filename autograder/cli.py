"""The commands of ``python -m autograder``.

Every command ends with 0 (all is well), 1 (something fell short) or 2 (it was
used wrongly).
"""

import json
import os
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
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
        text = escape(str(error))
        errors.print(f"[bold red]error:[/] {text}", highlight=False)
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
    from autograder.engine import judge, verdict

    if notebook and module:
        raise CourseError("name a notebook or --module FILE.py, not both")
    found = find(chapter)
    path = module or notebook or Path(f"{found.stem}.ipynb")
    result = judge(found, path)
    if as_json:
        print(json.dumps(verdict(result), indent=2, ensure_ascii=False))
    else:
        console.print(show.result(result))
    passed = result["points"] == result["max_points"]
    raise typer.Exit(0 if passed else 1)


@app.command()
def progress(
    folder: Annotated[
        Path, typer.Argument(help="Where your notebooks are.")
    ] = Path(),
) -> None:
    """Say which exercises you have solved, and what to do next.

    Example: `python -m autograder progress`
    """
    from autograder.progress import progress

    rows = list(
        track(
            progress(folder),
            "Checking",
            total=len(select([])),
            console=errors,
            transient=True,
        )
    )
    console.print(show.progress(rows))


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
    only_new: Annotated[
        bool,
        typer.Option(
            "--only-new/--all",
            help="Leave what was graded and has not changed, or grade anew.",
        ),
    ] = True,
    student: Annotated[
        list[str] | None,
        typer.Option(help="Only this student; may be given several times."),
    ] = None,
    exercise: Annotated[
        str | None,
        typer.Option(help="Grade only this exercise anew, the rest stays."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="How many to judge at a time.")
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Judge on this Dask scheduler's workers instead."),
    ] = None,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe",
            help="Run students' code even where it can't be locked in.",
        ),
    ] = False,
) -> None:
    """Grade what was handed in since the last time.

    Whatever a submission is, it costs itself alone: the others are graded all
    the same, and the table at the end says what was wrong with it. Ctrl-C
    keeps what is done; the next run goes on from there.

    Example: `python -m autograder grade attention --workers 2`
    """
    from autograder.course import Course
    from autograder.engine import FLOOR, LEVELS
    from autograder.grading import grade

    with counter() as bar:
        task = bar.add_task("Grading", total=None)
        batch = grade(
            Course(course.resolve()),
            select(chapters or []),
            students=student,
            exercise=exercise,
            workers=workers,
            cluster=cluster,
            only_new=only_new,
            floor=LEVELS[0] if unsafe else FLOOR,
            on_wait=lambda lock: errors.print(show.waiting(lock)),
            on_progress=lambda done, total: bar.update(
                task, completed=done, total=total
            ),
        )
    if batch.verdicts:
        console.print(show.verdicts(batch))
    graded = batch.total - batch.left
    counted = show.counted(graded, "submission")
    say(f"Graded {counted}, {batch.unchanged} unchanged")
    if batch.left:
        errors.print(show.left(batch))
    if batch.is_interrupted:
        sys.stdout.flush()
        os._exit(1)  # a thread may wait for a verdict that nobody wants
    raise typer.Exit(1 if batch.left else 0)


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

    opened = Course(course.resolve())
    found = submissions(opened, select(chapters or []))
    graded = [one for one in found if one.executed.is_file()]
    if not graded:
        raise CourseError(
            "nothing is graded; run 'python -m autograder grade'"
        )
    with opened.gradebook() as gradebook:
        opened.update_late_penalties(gradebook)
    failed = 0
    with counter() as bar:
        for one in bar.track(graded, description="Writing"):
            try:
                feedback(one)
            except CourseError as error:  # the others get their pages
                errors.print(show.warning(one.student, str(error)))
                failed += 1
    written = show.counted(len(graded) - failed, "page")
    say(f"Wrote {written}: {course}/feedback")
    raise typer.Exit(1 if failed else 0)


@app.command()
def report(
    chapters: ChapterNames = None,
    course: CourseFolder = COURSE,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Where the page goes; by default COURSE/report/CHAPTER.html."
        ),
    ] = None,
) -> None:
    """Say how the class did, here and on a page with pictures.

    *Solved* is the mean share of an exercise's points; *tells apart* is the
    correlation of its points with the rest of a student's points.

    Example: `python -m autograder report attention`
    """
    from autograder.course import Course
    from autograder.report import grades, write_page

    tables = grades(Course(course.resolve()), select(chapters or []))
    if html and len(tables) > 1:
        raise CourseError("--html FILE is one page: name one chapter with it")
    for table in tables:
        console.print(show.grades(table))
    console.print()
    for table in tables:
        page = html or course / "report" / f"{table.chapter.name}.html"
        write_page(table, page)
        say(f"Page: {page}")


class Format(StrEnum):
    """What ``export`` can write."""

    csv = "csv"
    canvas = "canvas"
    moodle = "moodle"


@app.command()
def export(
    chapters: ChapterNames = None,
    course: CourseFolder = COURSE,
    format_: Annotated[
        Format, typer.Option("--format", help="What will read the file.")
    ] = Format.csv,
    to: Annotated[
        Path | None,
        typer.Option(help="The file; by default COURSE/grades….csv."),
    ] = None,
) -> None:
    """Write the grades into a file, for a spreadsheet, Canvas or Moodle.

    Example: `python -m autograder export --format canvas`
    """
    from autograder.course import Course
    from autograder.export import export

    found = select(chapters or [])
    path = export(Course(course.resolve()), found, format_.value, to)
    say(f"Wrote {path}")


@app.command()
def doctor(
    chapters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Chapters whose reference is judged; "
            "the first if none is named."
        ),
    ] = None,
) -> None:
    """Say what this machine can do: how safely it grades, and whether at all.

    Example: `python -m autograder doctor attention`
    """
    from autograder.doctor import examine

    fell_short = False
    for finding in examine(select(chapters or [])[: None if chapters else 1]):
        console.print(show.finding(finding))
        fell_short |= finding.well is False
    raise typer.Exit(1 if fell_short else 0)


def counter() -> Progress:
    """Return a bar for work that takes its time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def say(line: str) -> None:
    """Print one line, however long."""
    console.print(line, soft_wrap=True, highlight=False)

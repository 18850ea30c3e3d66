"""The commands of ``python -m autograder``.

Every command ends with 0 (all is well), 1 (something fell short) or 2 (it was
used wrongly).
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from autograder import show
from autograder.chapters import find, select
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


def main() -> None:
    """Run a command; a user's mistake is one line, not a traceback."""
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

"""Write results for a person at a terminal."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autograder.execution.errors import printable

if TYPE_CHECKING:  # the gate imports torch, which a usage error needn't
    from autograder.doctor import Finding
    from autograder.gate import Row
    from autograder.grading import Batch, Verdict
    from autograder.progress import Progress
    from autograder.report import Grades

BAR = 30  # characters of the longest
# No rules, and columns that stand two spaces apart.
TABLE = {
    "box": SIMPLE,
    "show_edge": False,
    "pad_edge": False,
    "padding": (0, 1, 0, 0),
}


def result(judged: dict) -> RenderableType:
    """Show a student what passed, and for what failed, why."""
    parts: list[RenderableType] = [
        Text(
            f"{judged['chapter']}: {judged['points']} of "
            f"{judged['max_points']} points",
            style="bold",
        )
    ]
    for exercise in judged["exercises"]:
        sign = "[green]✓[/]" if exercise["passed"] else "[red]✗[/]"
        points = f"{exercise['points']}/{exercise['max_points']}"
        parts.append(
            Text.from_markup(f"{sign} {exercise['id']}  [dim]{points}[/]")
        )
        parts += [Padding(text, (0, 0, 0, 4)) for text in _reasons(exercise)]
    parts += [Text(f"• {note}", style="dim") for note in judged["notes"]]
    return Group(*parts)


def finding(found: Finding) -> RenderableType:
    """Show one thing that the doctor has looked at."""
    signs = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]•[/]"}
    head = f"{signs[found.well]} [bold]{escape(found.what)}[/] "
    lines: list[RenderableType] = [
        Text.from_markup(f"{head} {escape(found.says)}")
    ]
    if found.remedy:
        lines.append(Padding(Text(found.remedy), (0, 0, 0, 4)))
    return Group(*lines)


def _reasons(exercise: dict) -> list[Text]:
    failed = [check for check in exercise["checks"] if not check["passed"]]
    reasons = []
    if exercise["diagnosis"]:
        reasons.append(Text(exercise["diagnosis"], style="yellow"))
    messages = {check["message"]: check["name"] for check in reversed(failed)}
    for message, name in reversed(messages.items()):
        reasons.append(Text.from_markup(f"[dim]{name}:[/] {escape(message)}"))
    return reasons


def progress(rows: list[Progress]) -> RenderableType:
    """Show how far somebody has come, and what to do next."""
    table = Table("Chapter", "", "Exercises", "Points", **TABLE)
    table.columns[2].justify = table.columns[3].justify = "right"
    for row in rows:
        exercises, most = row.chapter.exercises, row.chapter.max_points
        blocks = round(10 * row.done / len(exercises))
        table.add_row(
            escape(f"{row.chapter.stem[:2]} {row.chapter.title}"),
            f"[green]{'█' * blocks}[/][dim]{'░' * (10 - blocks)}[/]",
            f"{row.done}/{len(exercises)}",
            f"{row.points:g}/{most:g}",
        )
    open_ = [row for row in rows if row.next]
    if not open_:
        return Group(table, "", Text("All is solved.", style="bold green"))
    first = max(open_, key=lambda row: bool(row.exercises or row.problem))
    return Group(
        table,
        "",
        Text(f"Next, in {first.chapter.title}:", style="bold"),
        Padding(Text(_line(first.next)), (0, 0, 0, 4)),
    )


def gate(rows: list[Row]) -> RenderableType:
    """Show what each answer met at the gate, and count what was caught."""
    tables = []
    for (chapter, exercise), found in groupby(
        rows, key=lambda row: (row.chapter, row.exercise)
    ):
        table = Table("", "Answer", "Caught by", **TABLE)
        for row in found:
            sign = "[red]✗[/]" if row.problems else "[green]✓[/]"
            table.add_row(sign, escape(row.answer), _verdict(row))
        title = Text(f"\n{chapter}.{exercise}", style="bold")
        tables += [title, table]
    wrong = [row for row in rows if not row.right]
    right = [row for row in rows if row.right]
    summary = (
        f"{sum(bool(r.caught_by) for r in wrong)} of {len(wrong)} mistakes "
        f"caught, {sum(not r.problems for r in right)} of {len(right)} right "
        f"answers pass, {sum(bool(r.problems) for r in rows)} problems"
    )
    return Group(*tables, "", Text(summary, style="bold"))


def _verdict(row: Row) -> str:
    """Say what became of an answer, in the column of what caught it."""
    if row.problems:
        return f"[red]{escape('; '.join(row.problems))}[/]"
    if row.right:
        return "[dim]a right answer, passes[/]"
    first, *more = row.caught_by
    return f"{first} +{len(more)}" if more else first


def verdicts(batch: Batch) -> RenderableType:
    """Show what was graded, and say of each what was wrong with it."""
    found = sorted(
        batch.verdicts,
        key=lambda v: (v.submission.chapter.stem, v.submission.student),
    )
    table = Table("Chapter", "Student", **TABLE)
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("What was found")
    for verdict in found:
        points = "–"
        if exercises := verdict.result.get("exercises"):
            got = sum(exercise["points"] for exercise in exercises)
            points = f"{got:g}/{sum(e['max_points'] for e in exercises):g}"
        table.add_row(
            verdict.submission.chapter.name,
            escape(_line(verdict.submission.student)),
            points,
            _findings(verdict),
        )
    return Group("", table, "")


def _findings(verdict: Verdict) -> Text:
    result = verdict.result
    if verdict.failed:
        return Text(f"Not graded: {_line(verdict.failed)}", style="red")
    if result["problem"]:
        return Text(f"Scores 0: {_line(result['problem'])}.", style="yellow")
    lines = [*filter(None, [result["note"]]), *result["flags"]]
    return Text("\n".join(map(_line, lines)))


def _line(text: str) -> str:
    """Return one line, which does nothing to the terminal."""
    return " ".join(printable(text).split())


def counted(n: int, noun: str) -> str:
    """Return a number and what it counts: ``1 page``, ``2 pages``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def waiting(lock: Path) -> RenderableType:
    """Say that another run has to end first."""
    return Text(f"Another run is grading here ({lock}); waiting for its end.")


def left(batch: Batch) -> RenderableType:
    """Say how many submissions are not graded, and what to do."""
    stopped = "Stopped: " if batch.is_interrupted else ""
    some = "1 submission is" if batch.left == 1 else f"{batch.left} are"
    return Text(
        f"{stopped}{some} left; run the same command again to go on",
        style="bold yellow",
    )


def warning(who: str, problem: str) -> RenderableType:
    """Say why somebody's notebook could not be executed."""
    return Text.assemble((f"{_line(who)}: ", "bold yellow"), _line(problem))


def grades(table: Grades) -> RenderableType:
    """Show how a class did: its points, exercises, mistakes, remarks."""
    parts: list[RenderableType] = ["", _points(table)]
    if table.graded:
        parts += ["", _distribution(table), "", _items(table)]
    if table.misconceptions:
        parts += ["", _misconceptions(table)]
    if any(row.remarks for row in table.rows):
        parts += ["", _remarks(table)]
    return Group(*parts)


def _points(table: Grades) -> Table:
    """Show a class's points: a row a student, a column an exercise."""
    title = f"{table.chapter.title} ({table.chapter.name})"
    points = Table(title=title, **TABLE)
    points.add_column("Student", no_wrap=True)
    total = {"Total": table.max_total}
    for name, of in (table.max_points | total).items():
        words = re.sub(r"(?<=_)|(?<=[a-z])(?=[A-Z])", "\n", name)
        points.add_column(
            f"{words}\n/{of:g}",
            justify="right",
            vertical="bottom",
            overflow="fold",
        )
    for row in table.rows:
        got = [*row.points.values(), row.total] if row.points else []
        shown = [f"{x:g}" for x in got] or ["–"] * (len(table.max_points) + 1)
        points.add_row(escape(_line(row.student)), *shown)
    return points


def _distribution(table: Grades) -> Table:
    """Show how many students have how many points."""
    shown = Table("Points from", "Students", "", **TABLE)
    shown.columns[0].justify = shown.columns[1].justify = "right"
    most = max(bar.count for bar in table.distribution)
    for bar in table.distribution:
        length = round(BAR * bar.count / most)
        shown.add_row(f"{bar.low:g}", str(bar.count), "█" * length)
    summary = f"mean {table.mean:.1f}, median {table.median:g}"
    shown.add_row("", "", f"[dim]{summary}[/]")
    return shown


def _items(table: Grades) -> Table:
    """Show how hard each exercise was, and whether it tells apart."""
    shown = Table("Exercise", "Solved", "Tells apart", **TABLE)
    shown.columns[1].justify = shown.columns[2].justify = "right"
    for item in table.items:
        solved, apart = item.difficulty, item.discrimination
        shown.add_row(
            item.name,
            "n/a" if solved is None else f"{solved:.0%}",
            "n/a" if apart is None else f"{apart:.2f}",
        )
    return shown


def _misconceptions(table: Grades) -> Table:
    """Show the named mistakes, and how many students made each."""
    shown = Table("Mistake", "Exercise", "Students", **TABLE)
    shown.columns[2].justify = "right"
    for mistake in table.misconceptions:
        name, students = escape(mistake.name), len(mistake.students)
        shown.add_row(name, mistake.exercise, str(students))
    return shown


def _remarks(table: Grades) -> Table:
    """Show what a teacher should know of single submissions."""
    shown = Table("Student", "What went wrong", **TABLE)
    for row in table.rows:
        if row.remarks:
            remarks = _line("; ".join(row.remarks))
            shown.add_row(escape(_line(row.student)), escape(remarks))
    return shown

"""Write results for a person at a terminal."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # the gate imports torch, which a usage error needn't
    from autograder.gate import Row
    from autograder.report import Grades

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
    return Group(*parts)


def _reasons(exercise: dict) -> list[Text]:
    failed = [check for check in exercise["checks"] if not check["passed"]]
    reasons = []
    if exercise["diagnosis"]:
        reasons.append(Text(exercise["diagnosis"], style="yellow"))
    messages = {check["message"]: check["name"] for check in reversed(failed)}
    for message, name in reversed(messages.items()):
        reasons.append(Text.from_markup(f"[dim]{name}:[/] {escape(message)}"))
    return reasons


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


def warning(who: str, problem: str) -> RenderableType:
    """Say why somebody's notebook could not be executed."""
    return Text.assemble((f"{who}: ", "bold yellow"), problem)


def grades(table: Grades) -> RenderableType:
    """Show a class's points: a row a student, a column an exercise."""
    title = f"{table.chapter.title} ({table.chapter.name})"
    points = Table(title=title, **TABLE)
    points.add_column("Student", no_wrap=True)
    total = {"Total": sum(table.max_points.values())}
    for name, of in (table.max_points | total).items():
        words = re.sub(r"(?<=_)|(?<=[a-z])(?=[A-Z])", "\n", name)
        points.add_column(
            f"{words}\n/{of:g}",
            justify="right",
            vertical="bottom",
            overflow="fold",
        )
    notes = Table("Student", "What went wrong", **TABLE)
    for row in table.rows:
        got = [*row.points.values(), row.total] if row.points else []
        shown = [f"{x:g}" for x in got] or ["–"] * (len(table.max_points) + 1)
        points.add_row(row.student, *shown)
        if row.note:
            notes.add_row(row.student, escape(row.note))
    return Group("", points, "", notes)

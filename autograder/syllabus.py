"""What each chapter holds, and which earlier ones it builds on.

All is read off the chapters themselves, so that nothing of it can be out of
date. The page gives the objectives, which no file knows.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from autograder.chapters import (
    ROOT,
    Chapter,
    chapters,
    find,
    table_of_contents,
)

GIVEN = re.compile(r"^:given:(.+)$", re.MULTILINE)
REFERENCE = re.compile(r"\{ref\}`(?:[^`<]+<)?ch-(\w+)>?`")
PLAN = re.compile(r"(?:Plan|takes)\s+about\s+(\d+)\s+minutes")
BOX = re.compile(
    r"\{exercise\} (?P<title>.+)"
    r"|^Difficulty (?P<difficulty>\d) of 3 .* (?P<minutes>\d+) minutes"
    r"|^:exercise: \w+\.(?P<name>\w+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Entry:
    """A chapter as the syllabus shows it."""

    chapter: Chapter

    @property
    def minutes(self) -> int:
        """Return how long the chapter says that it takes."""
        plan = PLAN.search(self.chapter.text)
        return int(plan[1]) if plan else 0

    @cached_property
    def uses(self) -> list[str]:
        """Name the chapters whose functions this one is given."""
        return self._earlier(
            name.partition(".")[0]
            for line in GIVEN.findall(self.chapter.text)
            for name in line.split()
        )

    @cached_property
    def mentions(self) -> list[str]:
        """Name the other chapters that its text refers back to."""
        named = self._earlier(REFERENCE.findall(self.chapter.text))
        return [name for name in named if name not in self.uses]

    def _earlier(self, names: object) -> list[str]:
        before = [c.name for c in chapters() if c.stem < self.chapter.stem]
        found = set(names)
        return [name for name in before if name in found]

    def exercises(self) -> list[dict[str, str]]:
        """Return title, difficulty, minutes and points of each exercise."""
        points = {e.name: e.max_points for e in self.chapter.exercises}
        found, box = [], {"title": "", "difficulty": "–", "minutes": "–"}
        for match in BOX.finditer(self.chapter.text):
            box |= {k: v for k, v in match.groupdict().items() if v}
            if match["name"]:
                found.append(box | {"points": f"{points[match['name']]}"})
                box |= {"minutes": "–"}  # a second part takes none of its own
        return found


class Course(SphinxDirective):
    """``{course}``: a table of all chapters, and which builds on which."""

    def run(self) -> list[nodes.Node]:
        """Return the table and the figure."""
        entries = list(in_the_book(self).values())
        depend_on(self, entries)
        block = nodes.container(classes=["course-table"])
        rows = [
            f"| {e.chapter.stem[:2]} {link(e.chapter.name)} | {e.minutes} "
            f"| {len(e.chapter.exercises)} | {e.chapter.max_points} |"
            for e in entries
        ]
        hours = sum(e.minutes for e in entries) / 60
        n_exercises = sum(len(e.chapter.exercises) for e in entries)
        points = sum(e.chapter.max_points for e in entries)
        table = [
            "| Chapter | Minutes | Exercises | Points |",
            "| --- | --: | --: | --: |",
            *rows,
            f"| All | {hours:.0f} hours | {n_exercises} | {points} |",
        ]
        parse(self, table, block)
        drawn = nodes.raw("", arcs(entries), format="html")
        caption = nodes.paragraph(
            "",
            "A line leads from a chapter down to one that builds on it. "
            "Thick: the later chapter is given functions of the earlier one. "
            "Thin: its text refers back to it.",
            classes=["arcs-caption"],
        )
        return [block, nodes.container("", drawn, caption, classes=["arcs"])]


class CourseMap(SphinxDirective):
    """``{course-map}``: the parts, their chapters, minutes and what they use.

    Chapter 2 is left out of what they use: nearly all use it.
    """

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        known = {f"book/{c.stem}": Entry(c) for c in chapters()}
        depend_on(self, list(known.values()))
        self.env.note_dependency(str(ROOT / "_toc.yml"))
        lines = []
        for part in table_of_contents()["parts"]:
            files = [chapter["file"] for chapter in part["chapters"]]
            found = [known[file] for file in files if file in known]
            if found:
                lines += [part["caption"], *map(self.line, found), ""]
        block = nodes.container(classes=["course-map"])
        parse(self, lines, block)
        return [block]

    def line(self, entry: Entry) -> str:
        """Write a chapter's line."""
        needs = [find(name).stem[:2] for name in entry.uses]
        needs = [f"{int(number)}" for number in needs if number != "02"]
        after = f", after {' and '.join(needs)}" if needs else ""
        return (
            f": {entry.chapter.stem[:2]} {link(entry.chapter.name)} "
            f"*{entry.minutes} minutes{after}*"
        )


class ChapterEntry(SphinxDirective):
    """``{chapter-entry} attention``: its facts, round the objectives.

    Nothing, as long as the book has no such chapter.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a section: what it builds on, objectives, exercises."""
        known = in_the_book(self)
        entry = known.get(self.arguments[0])
        if entry is None:
            return []
        depend_on(self, [entry])
        uses, mentions = (
            ", ".join(link(name) for name in names if name in known)
            for names in (entry.uses, entry.mentions)
        )
        builds_on = uses or "nothing but Python"
        if mentions:
            builds_on += f"; refers back to {mentions}"
        row = "| `{name}` | {title} | {difficulty} | {minutes} | {points} |"
        rows = [row.format(**exercise) for exercise in entry.exercises()]
        block = nodes.container(classes=["chapter-entry"])
        lines = [
            f"**{entry.chapter.stem[:2]} {link(entry.chapter.name)}**",
            "",
            f"{entry.minutes} minutes · builds on {builds_on}",
            "",
            *self.content,
            "",
            "| Exercise | What it is | Difficulty | Minutes | Points |",
            "| --- | --- | --: | --: | --: |",
            *rows,
        ]
        parse(self, lines, block)
        return [block]


def in_the_book(directive: SphinxDirective) -> dict[str, Entry]:
    """Return the chapters that the table of contents names."""
    pages = {Path(docname).name for docname in directive.env.found_docs}
    return {c.name: Entry(c) for c in chapters() if c.stem in pages}


def parse(
    directive: SphinxDirective, lines: list[str], into: nodes.Element
) -> None:
    """Read lines of MyST as the page's own."""
    source = StringList(lines, source=directive.get_source_info()[0])
    directive.state.nested_parse(source, directive.content_offset, into)


def depend_on(directive: SphinxDirective, entries: list[Entry]) -> None:
    """Have the page read anew when a chapter or its checks change."""
    for entry in entries:
        directive.env.note_dependency(str(entry.chapter.path))
        for path in entry.chapter.sources:
            directive.env.note_dependency(str(path))


def link(name: str) -> str:
    """Refer to a chapter by its title."""
    return f"{{ref}}`ch-{name}`"


STEP, LEFT, TOP = 30, 150, 18  # pixels: of a row, of the names, above them


def arcs(entries: list[Entry]) -> str:
    """Draw the chapters as a column of names, and an arc for each link."""
    row = {e.chapter.name: i for i, e in enumerate(entries)}
    links = [
        (row[name], row[e.chapter.name], kind)
        for e in entries
        for kind in ("mentions", "uses")  # the thick ones on top
        for name in getattr(e, kind)
        if name in row
    ]
    height = 2 * TOP + STEP * (len(entries) - 1)
    reach = 24 + 11 * max((b - a for a, b, _ in links), default=0)
    parts = []
    for a, b, kind in links:  # half an ellipse, the wider the longer
        out, high = 20 + 11 * (b - a), STEP * (b - a)
        parts.append(
            f'<path class="{kind}" d="M{LEFT} {TOP + STEP * a} '
            f'c{out} 0 {out} {high} 0 {high}"/>'
        )
    for name, i in row.items():
        y = TOP + STEP * i
        number = entries[i].chapter.stem[:2]
        parts += [
            f'<circle cx="{LEFT}" cy="{y}" r="4"/>',
            f'<text x="{LEFT - 12}" y="{y + 5}">'
            f"{escape(f'{name} {number}')}</text>",
        ]
    says = "; ".join(
        f"{e.chapter.name} builds on {', '.join(e.uses)}"
        for e in entries
        if e.uses
    )
    return (
        f'<svg viewBox="0 0 {LEFT + reach} {height}" role="img" '
        f'aria-labelledby="arcs-title arcs-desc">'
        f'<title id="arcs-title">Which chapter builds on which</title>'
        f'<desc id="arcs-desc">{escape(says)}.</desc>'
        f"{''.join(parts)}</svg>"
    )

"""Print the corpus: who hands in what, and what that deserves."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.hostile import CASES
from tests.hostile.corpus import EVERYTHING

table = Table("theme", "student", "what it does", "loses", "is told")
for case in CASES:
    loses = [*case.loses, *(f"{n}: gets {x}" for n, x in case.gets.items())]
    words = [
        case.theme,
        repr(case.student)[1:-1],
        case.does,
        "everything" if case.loses == EVERYTHING else ", ".join(loses),
        ", ".join(says.replace("|", " or ") for says in case.says),
    ]
    table.add_row(*map(escape, words))
Console().print(table)

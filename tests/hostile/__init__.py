"""Hostile and broken submissions, and the points that each deserves.

``corpus`` says what a case is, the modules of the five themes hold the cases,
``traps`` and ``ordinary_user`` stand round the run. To see the table::

    python -m tests.hostile
"""

from tests.hostile import broken, cheats, ends, floods, spies
from tests.hostile.corpus import CASES, Case

__all__ = ["CASES", "Case", "broken", "cheats", "ends", "floods", "spies"]

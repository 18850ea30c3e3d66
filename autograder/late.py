"""What it costs to hand in late, for nbgrader and for our own grader."""

import math
from dataclasses import dataclass

from nbgrader.plugins import LateSubmissionPlugin
from traitlets import Float

DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class LatePolicy:
    """Shares of the points that a submission got.

    Attributes:
        per_day: taken off for each day that has begun since the due date.
        at_most: taken off however late it is.
    """

    per_day: float = 0.0
    at_most: float = 1.0

    def penalty(self, score: float, seconds_late: float) -> float | None:
        """Return the points to take off, or None."""
        days = math.ceil(seconds_late / DAY)
        share = min(self.per_day * days, self.at_most)
        return min(round(share * score, 2), score) or None


class LatePenalty(LateSubmissionPlugin):
    """The policy, as the plugin of nbgrader's AssignLatePenalties."""

    per_day = Float(0.0, help=LatePolicy.__doc__).tag(config=True)
    at_most = Float(1.0, help=LatePolicy.__doc__).tag(config=True)

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float | None:
        """Return the points that nbgrader takes off."""
        policy = LatePolicy(self.per_day, self.at_most)
        return policy.penalty(score, total_seconds_late)

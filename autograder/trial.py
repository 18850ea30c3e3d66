"""The trial of one submission: all checks of all exercises, from outside."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from autograder import judging
from autograder.chapters import NOT_WRITTEN, Chapter, Check, Exercise
from autograder.execution.pieces import time_limit
from autograder.execution.wire import (
    DeadlineError,
    GoneError,
    Message,
    WireError,
    well_formed,
)
from autograder.misconceptions import reference
from autograder.outside import (
    CHECK_SECONDS,
    START_SECONDS,
    BrokenError,
    Submission,
    TrustedPeer,
)

IMPORTED = """
def imported_modules():
    import sys
    return [name for name, module in sys.modules.items() if module]
"""


def judge(
    chapter: Chapter, exercises: list[Exercise], submission: Submission
) -> Message:
    """Judge all exercises of a submission."""
    found: list[Message] = []
    problem = ""
    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(submission.start)
        judging.prepare(chapter)
    try:
        starting.result()
    except GoneError as error:
        problem = f"Not judged: {error}."
    for exercise in exercises:
        if problem:
            found.append(failed(exercise, problem))
            continue
        wrong = [e["id"] for e in found if not passes(e)]
        found.append(judge_exercise(chapter, exercise, submission, wrong))
    submission.stop()
    return {"exercises": found, "notes": submission.notes}


def judge_exercise(
    chapter: Chapter,
    exercise: Exercise,
    submission: Submission,
    wrong: list[str],
) -> Message:
    """Run the checks of one exercise, and name the mistake if one fails.

    Args:
        chapter: what is judged.
        exercise: its exercise.
        submission: the student's processes.
        wrong: exercises above that failed: this one gets the reference's.
    """
    name = exercise.name
    if name not in submission.names:
        missing = f"{name} is not defined in what was handed in."
        return failed(exercise, submission.errors.get(name, missing))
    session = Session(chapter, exercise, submission, wrong)
    checks = [session.run(check) for check in exercise.checks]
    diagnosis = session.explain(checks)
    session.close()
    return {"id": name, "checks": checks, "diagnosis": diagnosis}


class Session:
    """The processes in which one exercise is judged: one, if all goes well."""

    def __init__(
        self,
        chapter: Chapter,
        exercise: Exercise,
        submission: Submission,
        wrong: list[str],
        seconds: float = CHECK_SECONDS,
    ) -> None:
        self.chapter = chapter
        self.exercise = exercise
        self.submission = submission
        self.wrong = wrong
        self.most = seconds  # for one check
        self.left = 2 * seconds  # for all checks together
        self.peer: TrustedPeer | None = None

    def run(self, check: Check) -> Message:
        """Run one check; whatever happens is a result."""
        name = self.exercise.name
        seconds = min(self.most, self.left)
        try:
            if seconds <= 0:
                raise DeadlineError
            self.open()  # which has time of its own
            with self._limit(seconds):
                return self._run(check)
        except DeadlineError:
            self.close(kill=True)
            message = (
                f"The checks ran for more than {self.most:g} seconds: is "
                "there an endless loop, or work that grows too fast with the "
                "length of the input?"
            )
        except GoneError:
            how = self.close(kill=True)
            message = f"{name} ended the process that it ran in ({how})."
        except WireError as error:
            self.close(kill=True)
            message = f"What {name} gave back can't be judged: {error}."
        return check.result(passed=False, message=message)

    @contextmanager
    def _limit(self, seconds: float) -> Iterator[None]:
        """Let neither process take longer."""
        start = time.monotonic()
        self.peer.channel.deadline = start + seconds
        try:
            with time_limit(seconds + 1, DeadlineError()):
                yield
        finally:
            self.left -= time.monotonic() - start

    def _run(self, check: Check) -> Message:
        name = self.exercise.name
        self.peer.changed = False
        found = judging.run_check(self.chapter, name, check, self.answer)
        # Else an answer could set its inputs to zero, and what is expected,
        # computed from them afterwards, would be as simple as that.
        if not self.peer.changed:
            return found
        if judging.may_change(self.chapter, name, check):
            return found
        message = (
            f"{found['message']} {name} changes what it is given, which its "
            "caller may still need. Compute a new one, and leave the "
            "arguments as they are."
        )
        return check.result(passed=False, message=message.strip())

    def open(self) -> None:
        """Have a process for the exercise, with the student's answer."""
        if self.peer:
            return
        peer = self.submission.exercise()
        peer.channel.deadline = time.monotonic() + START_SECONDS
        with well_formed():  # no code of the student's has a say in this
            for name in self.wrong:
                peer.define(name, getattr(reference(self.chapter), name))
            self.answer = peer.names(self.exercise.name)
        self.peer = peer

    def explain(self, checks: list[Message]) -> str | None:
        """Name the mistake, if there is one and the answer still runs."""
        messages = [c["message"] for c in checks if not c["passed"]]
        if self.peer is None or not messages:
            return None
        if all(message.endswith(NOT_WRITTEN) for message in messages):
            return None
        try:
            with self._limit(self.most):
                return judging.explain(
                    self.chapter, self.exercise, self.answer
                )
        except (WireError, DeadlineError):
            self.close(kill=True)
            return None

    def close(self, *, kill: bool = False) -> str:
        """Leave the process; end it if it doesn't end by itself."""
        if self.peer is None and not kill:
            return ""
        how = self.submission.finish() if kill else ""
        if self.peer:
            self.peer.channel.close()
        self.peer = None
        return how


def passes(judged: Message) -> bool:
    """Say whether all checks of an exercise have passed."""
    return all(check["passed"] for check in judged["checks"])


def failed(exercise: Exercise, why: str) -> Message:
    """Return an exercise of which no check could be run."""
    checks = [
        check.result(passed=False, message=why) for check in exercise.checks
    ]
    return {"id": exercise.name, "checks": checks, "diagnosis": None}


def rehearse(
    chapter: Chapter, exercises: list[Exercise], submission: Submission
) -> set[str]:
    """Judge the reference, which must pass; return what it has imported.

    Args:
        chapter: what is to be judged.
        exercises: its exercises.
        submission: the reference as a student's submission, and IMPORTED.

    Raises:
        BrokenError: if the reference does not pass on this machine.
    """
    judging.prepare(chapter)
    submission.start()
    modules: set[str] = set()
    for exercise in exercises:
        # Much is imported here that is not imported again.
        session = Session(chapter, exercise, submission, [], START_SECONDS)
        for check in exercise.checks:
            result = session.run(check)
            if not result["passed"]:
                raise BrokenError(
                    f"the reference fails {check.name} here: "
                    f"{result['message']}"
                )
        modules |= set(session.peer.names("imported_modules")())
        session.close()
    submission.stop()
    return modules

"""A ring of ranks: simulated in this process, or of real processes.

Both run the same function, once for each rank, with two arguments besides the
rank's own: ``exchange``, which sends tensors to the next rank and returns
what the previous one has sent, and ``world``, the number of ranks.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from contextlab import shipping
from contextlab.spies import Watch, asleep
from contextlab.training import is_grading

LOOPBACK = {"linux": "lo", "darwin": "lo0"}
LONGEST_START = 180.0  # seconds; importing PyTorch takes two or more
HERE = Path(__file__).resolve().parent


class RankError(RuntimeError):
    """A rank failed, or the ring stands still; the message says which."""


@dataclass(frozen=True)
class Rank:
    """What a rank did.

    Attributes:
        result: what the function returned.
        sends: how often it called ``exchange``.
        sent_bytes: the bytes of all tensors that it sent.
        peak_bytes: the most bytes of tensors that existed at once, of those
            that the function made or received; 0 if it was not weighed.
    """

    result: Any
    sends: int
    sent_bytes: int
    peak_bytes: int


class Exchange:
    """What both kinds of ``exchange`` share: they count.

    Args:
        rank: whose it is.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.sends = 0
        self.sent_bytes = 0

    def count(self, tensors: tuple[Tensor, ...]) -> None:
        """Count a call.

        Raises:
            TypeError: if what is sent is no tensor.
        """
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    "exchange takes tensors, one after the other, as in "
                    f"exchange(k, v); this is {type(tensor).__name__}"
                )
        self.sends += 1
        self.sent_bytes += sum(x.numel() * x.element_size() for x in tensors)


# ------------------------------------------------------------- Simulated ranks
def simulate(
    function: Callable,
    blocks: Sequence[dict[str, Any]],
    *,
    weigh: bool = False,
) -> list[Rank]:
    """Run a function as the ranks of a ring, one after the other.

    A rank that waits for what has not been sent yet is stopped, and run again
    from its start when that has come. So the function may be called several
    times for a rank; the last time counts.

    Args:
        function: is called with what stands in its rank's block, and with
            ``exchange`` and ``world``.
        blocks: for each rank, arguments by their names.
        weigh: whether to measure ``peak_bytes``, which takes its time.

    Raises:
        RankError: if a rank waits for what is never sent, or the ranks don't
            send alike.
    """
    world = len(blocks)
    mail: list[list[tuple[Tensor, ...]]] = [[] for _ in blocks]
    ranks: list[Rank | None] = [None] * world
    waits_for = [0] * world  # of the previous rank's sends, that many
    while None in ranks:
        ready = [
            r
            for r in range(world)
            if ranks[r] is None and len(mail[r - 1]) >= waits_for[r]
        ]
        if not ready:
            _stand_still(mail, ranks)
        for rank in ready:
            exchange = _SimulatedExchange(rank, mail)
            watch = Watch() if weigh else nullcontext()
            ranks[rank] = _run(function, blocks[rank], exchange, world, watch)
            if ranks[rank] is None:
                waits_for[rank] = exchange.sends
    counts = [rank.sends for rank in ranks]
    if len(set(counts)) > 1:
        few = counts.index(min(counts))
        raise RankError(
            f"rank {few} calls exchange {counts[few]} times, another rank "
            f"{max(counts)} times: that one's last block finds nobody who "
            "takes it. All ranks must call it equally often."
        )
    return ranks


def _run(
    function: Callable,
    block: dict[str, Any],
    exchange: "_SimulatedExchange",
    world: int,
    watch: AbstractContextManager[Watch | None],
) -> Rank | None:
    """Run one rank to its end, or until it waits: then return None."""
    try:
        with watch as seen:
            result = function(**block, exchange=exchange, world=world)
    except Exception:
        if exchange.problem:
            raise RankError(exchange.problem) from None
        if not exchange.waits:
            raise
    if exchange.waits:
        return None
    held = seen.held if seen else 0
    return Rank(result, exchange.sends, exchange.sent_bytes, held)


def _stand_still(mail: list, ranks: list) -> None:
    """Say why no rank can go on."""
    for r, rank in enumerate(ranks):
        if rank is None and ranks[r - 1] is not None:
            raise RankError(
                f"rank {r} waits in exchange {len(mail[r])} for rank "
                f"{(r - 1) % len(ranks)}, which calls exchange only "
                f"{len(mail[r - 1])} times. All ranks must call it equally "
                "often, whatever they see."
            )
    raise RankError("all ranks wait for each other")


class _SimulatedExchange(Exchange):
    """Letter boxes instead of a network.

    Args:
        rank: whose it is.
        mail: for each rank, what it has sent.

    Attributes:
        waits: whether it was asked for what is not there yet.
        problem: why what was sent can't be received.
    """

    def __init__(self, rank: int, mail: list) -> None:
        super().__init__(rank)
        self.mail = mail
        self.waits = False
        self.problem = ""

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Send, and return what the previous rank has sent."""
        self.count(tensors)
        own, previous = self.mail[self.rank], self.mail[self.rank - 1]
        with asleep():
            copies = tuple(x.detach().clone() for x in tensors)
        own[self.sends - 1 :] = [copies, *own[self.sends :]]
        if len(previous) < self.sends:
            self.waits = True
            raise WaitingError
        coming = previous[self.sends - 1]
        if _shapes(coming) != _shapes(copies):
            self.problem = (
                f"in exchange {self.sends}, rank {self.rank} sends "
                f"{_shapes(copies)}, but is sent {_shapes(coming)}: all ranks "
                "must send tensors of the same shapes and dtypes"
            )
            raise RankError(self.problem)
        return tuple(x.clone() for x in coming)


class WaitingError(Exception):
    """The previous rank has not come to this exchange yet."""


def _shapes(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(
        f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
        for x in tensors
    )


# ------------------------------------------------------------------ Processes
def launch(
    function: Callable,
    blocks: Sequence[dict[str, Any]],
    *,
    timeout: float = 60.0,
) -> list[Rank]:
    """Run a function as the ranks of a ring, each a process of its own.

    The processes find each other through a file and talk over this machine's
    loopback by ``torch.distributed`` (gloo). Whatever happens, none is left
    when this returns. While an autograder runs the notebook, the ranks are
    simulated instead.

    Args:
        function: as in ``simulate``; its source is sent along, so it may come
            from a cell of a notebook.
        blocks: for each rank, arguments by their names: tensors, numbers and
            texts.
        timeout: seconds, from when all ranks have started, after which a
            ring that is not done is ended.

    Raises:
        RankError: names the rank that failed, with the last lines of its
            traceback, or the ranks that the others wait for.
        ValueError: if the function can't be sent.
    """
    if is_grading():
        return simulate(function, blocks, weigh=True)
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        source = shipping.source(function)
        (folder / "function.py").write_text(source, encoding="utf-8")
        for rank, block in enumerate(blocks):
            torch.save(block, folder / f"{rank}.given")
        processes: list[subprocess.Popen] = []
        try:
            for rank in range(len(blocks)):
                order = (folder, function.__name__, rank, len(blocks))
                processes.append(_start(*order))
            _wait(processes, folder, timeout)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.communicate()
        for rank in range(len(blocks)):
            said = _read(folder / f"{rank}.said").splitlines()
            for line in said:
                print(f"rank {rank}: {line}")
        return [
            Rank(**torch.load(folder / f"{rank}.done", weights_only=True))
            for rank in range(len(blocks))
        ]


def _start(folder: Path, name: str, rank: int, world: int) -> subprocess.Popen:
    """Start the process of a rank; its standard input ends when we do."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
    }
    if sys.platform in LOOPBACK:
        env["GLOO_SOCKET_IFNAME"] = LOOPBACK[sys.platform]
    command = [sys.executable, "-m", "contextlab.rank"]
    with open(folder / f"{rank}.said", "wb") as said:
        return subprocess.Popen(
            [*command, str(folder), name, str(rank), str(world)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=env,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )


def _wait(
    processes: list[subprocess.Popen], folder: Path, timeout: float
) -> None:
    """Wait until all ranks are done, one has failed, or time is up."""
    world = len(processes)
    deadline = time.monotonic() + LONGEST_START
    started = False
    while True:
        codes = [process.poll() for process in processes]
        ended = [
            rank
            for rank, code in enumerate(codes)
            if code is not None and not (folder / f"{rank}.done").exists()
        ]
        if ended:
            time.sleep(0.2)  # let those that it takes along say so, too
            _fail(processes, folder)
        if all(code is not None for code in codes):
            return
        if not started and all(_at(folder, one) for one in range(world)):
            started, deadline = True, time.monotonic() + timeout
        if time.monotonic() > deadline:
            _time_out(world, folder, timeout if started else LONGEST_START)
        time.sleep(0.02)


def _fail(processes: list[subprocess.Popen], folder: Path) -> None:
    """Name the rank that failed first; others fail as it breaks off."""
    failed = []
    for rank, process in enumerate(processes):
        if process.poll() is None or (folder / f"{rank}.done").exists():
            continue
        error = folder / f"{rank}.error"
        when = error.stat().st_mtime_ns if error.exists() else 0
        failed.append((when, rank, process.returncode, _read(error)))
    _, rank, code, text = min(failed)
    if not text:
        said = _read(folder / f"{rank}.said").strip().splitlines()[-3:]
        text = "\n".join([f"it ended by itself, with exit code {code}", *said])
    raise RankError(f"rank {rank} of {len(processes)} failed: {text}")


def _time_out(world: int, folder: Path, timeout: float) -> None:
    """Say where each rank is, those first that the others wait for."""
    places = [_at(folder, one) or "starts" for one in range(world)]
    order = sorted(range(world), key=lambda r: places[r].startswith("waits"))
    said = "; ".join(f"rank {rank} {places[rank]}" for rank in order)
    raise RankError(f"the ring was not done after {timeout:g} s: {said}")


def _at(folder: Path, rank: int) -> str:
    return _read(folder / f"{rank}.at")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""

"""The process of one rank of lab 11, as ``contextlab.scale.ring`` starts it.

Everything that the ranks decide they decide alike: who left the others alone
would let them wait for ever.
"""

import importlib.util
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from contextlab.rank import describe, end_with_parent
from contextlab.ring import Exchange
from contextlab.scale.device import (
    DEVICE,
    DTYPE,
    HAS_GPU,
    extra_bytes,
    once,
    synchronize,
)
from contextlab.scale.flash import relative_error
from contextlab.scale.ring import AHEAD, ALONE, LINK, ORDER, PEER, WAITS

HEADS, WIDTH = (4, 128) if HAS_GPU else (2, 16)
LENGTHS = (
    tuple(2**power for power in (13, 15, 17, 19, 20, 21, 22))
    if HAS_GPU
    else (256, 512)
)
TIMELINE_TO = 2**17  # of longer texts the sends can't be seen
BLOCK_BYTES = 1 << 29 if HAS_GPU else 1 << 20
REPEATS, AT_MOST = 7, 1.5  # seconds
FLASH = SDPBackend.FLASH_ATTENTION
Part = tuple[Tensor, Tensor]  # an output and its log-sum-exp


# ------------------------------------------------------------ What is measured
class Timeline:
    """When this rank computes, and when its blocks travel.

    A GPU does what it is asked for later, so CUDA's events are the clock.
    """

    def __init__(self) -> None:
        self.marks: list[tuple[str, Any, Any]] = []
        self.zero = stamp()

    @contextmanager
    def mark(self, what: str) -> Iterator[None]:
        """Note the beginning and the end of what stands in the block."""
        begin = stamp()
        yield
        self.marks.append((what, begin, stamp()))

    def milliseconds(self) -> list[tuple[str, float, float]]:
        """Return what, from when, until when."""
        synchronize()
        return [
            (what, passed(self.zero, begin), passed(self.zero, end))
            for what, begin, end in self.marks
        ]


def stamp() -> Any:
    """Return this moment of the current stream."""
    if not HAS_GPU:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def passed(begin: Any, end: Any) -> float:
    """Return the milliseconds between two moments."""
    between = begin.elapsed_time(end) if HAS_GPU else 1e3 * (end - begin)
    return round(between, 4)


# --------------------------------------------------------------- The exchange
@cache
def sending() -> Any:
    """Return the stream on which blocks travel: memory is kept for each."""
    return torch.cuda.Stream() if HAS_GPU else None


class RingExchange(Exchange):
    """An exchange between GPUs, on a stream of its own.

    It passes on what a rank has just got. So it can begin with that as soon
    as a block is here, while the rank computes with it: *ahead*.

    Args:
        rank: whose it is.
        world: the number of ranks.
        timeline: notes when blocks travel.
        own: if it sends ahead, the tensors that the rank will send first.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        timeline: Timeline,
        own: tuple[Tensor, ...] = (),
    ) -> None:
        super().__init__(rank)
        self.world, self.timeline = world, timeline
        self.stream = sending()
        self.ahead = bool(own)
        self.coming: tuple[Tensor, ...] = ()
        self.going: tuple[Tensor, ...] = ()
        if HAS_GPU:
            self.stream.wait_stream(torch.cuda.current_stream())
        if self.ahead and world > 1:
            self.begin(own)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Send, and return what the previous rank has sent."""
        self.count(tensors)
        # Who sends something else than what came has to wait for it.
        if list(map(id, tensors)) != list(map(id, self.going)):
            self.ahead = False
        if not self.ahead:
            self.begin(tensors)
        received = self.coming
        if HAS_GPU:
            computing = torch.cuda.current_stream()
            computing.wait_stream(self.stream)
            for tensor in received:
                tensor.record_stream(computing)
        if self.ahead and self.sends < self.world - 1:
            self.begin(received)
        return received

    def begin(self, tensors: tuple[Tensor, ...]) -> None:
        """Let tensors travel; on a GPU this returns at once.

        What travels is kept until the next ones do: its memory must not be
        used for something else.
        """
        if HAS_GPU and not self.ahead:
            self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream) if HAS_GPU else nullcontext():
            coming = tuple(torch.empty_like(x) for x in tensors)
            to, of = (self.rank + 1) % self.world, (self.rank - 1) % self.world
            with self.timeline.mark("sends"):
                transfers = [
                    *(dist.P2POp(dist.isend, x, to) for x in tensors),
                    *(dist.P2POp(dist.irecv, x, of) for x in coming),
                ]
                for work in dist.batch_isend_irecv(transfers):
                    work.wait()
        self.going, self.coming = tensors, coming


# ------------------------------------------------------------------ The blocks
def runs(positions: Tensor) -> list[tuple[int, int, int]]:
    """Cut positions where they don't count up by one.

    Returns:
        For each piece where it begins and ends, and its first position.
    """
    positions = positions.cpu()  # waits for them, and once is enough
    cuts = (positions.diff() != 1).nonzero().flatten() + 1
    begins = [0, *cuts.tolist()]
    firsts = positions[begins].tolist()
    return list(
        zip(begins, [*begins[1:], len(positions)], firsts, strict=True)
    )


def kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Part:
    """Attend by PyTorch's flash kernel, which can return its log-sum-exp."""
    ops = torch.ops.aten
    if HAS_GPU:
        found = ops._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    else:
        found = ops._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal
        )
    return tuple(found[:2])


def merge(output: Tensor, lse: Tensor, other: Tensor, lse_b: Tensor) -> Part:
    """Merge two parts as chapter 5 does, in the first one's memory."""
    share = torch.sigmoid(lse_b - lse)[..., None].to(output.dtype)
    return output.lerp_(other, share), torch.logaddexp(lse, lse_b)


class FlashBlock:
    """``block_attention`` at scale: the same answer, by a fused kernel.

    Args:
        timeline: notes when it computes.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.own: tuple[Tensor | None, list] = None, []

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_positions: Tensor,
        k_positions: Tensor,
        causal: bool = False,
    ) -> Part:
        """Attend to one block of keys; as the chapter's."""
        if self.own[0] is not q_positions:
            self.own = q_positions, runs(q_positions)
        rows = self.own[1]
        keys = rows if k_positions is q_positions else runs(k_positions)
        with self.timeline.mark("computes"):
            parts = [self.piece(q, k, v, row, keys, causal) for row in rows]
            outputs, sums = zip(*parts, strict=True)
            if len(parts) == 1:
                return outputs[0], sums[0]
            whole = torch.cat(outputs, -2)
            return whole, torch.cat(sums, -1)

    def piece(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        row: tuple[int, int, int],
        keys: list[tuple[int, int, int]],
        causal: bool,
    ) -> Part:
        """Let queries that stand side by side attend to a block of keys.

        A piece of keys lies before them all, or it is their own, or hidden.

        Raises:
            ValueError: if it is none of these.
        """
        top, bottom, first = row
        q = q[..., top:bottom, :]
        seen: list[tuple[int, int, bool]] = []
        for left, right, key in keys:
            n_keys, n_queries = right - left, bottom - top
            if not causal or key + n_keys <= first:
                if seen and seen[-1][1:] == (left, False):
                    left = seen.pop()[0]  # side by side: one call for both
                seen.append((left, right, False))
            elif key == first and n_keys == n_queries:
                seen.append((left, right, True))
            elif key < first + n_queries:
                raise ValueError("blocks overlap in part")
        found = None
        for left, right, diagonal in seen:
            block = (part[..., left:right, :] for part in (k, v))
            part = kernel(q, *block, diagonal)
            found = part if found is None else merge(*found, *part)
        if found is None:
            nothing = q.new_full(q.shape[:-1], -math.inf, dtype=torch.float32)
            found = q.new_zeros(*q.shape[:-1], v.shape[-1]), nothing
        return found


# -------------------------------------------------------------------- The rank
class Rank:
    """One rank: what it has, and what it measures together with the others.

    Args:
        rank: its number.
        order: ``world``, ``ways`` and ``seconds``.
        folder: holds the reader's functions, and takes the rows.
    """

    def __init__(self, rank: int, order: dict, folder: Path) -> None:
        self.rank, self.world = rank, order["world"]
        self.ways, self.rows = order["ways"], folder / "rows"
        self.deadline = time.monotonic() + order["seconds"]
        self.module = load(folder.parent / "ring_attention.py")
        self.split = load(folder.parent / "zigzag_split.py").zigzag_split
        self.module.merge_attention = merge
        self.took: dict[str, tuple[int, float]] = {}  # length, seconds
        self.latest: RingExchange  # of the last ring that was run

    def text(self, n: int, chunk: int) -> Tensor:
        """Return q, k and v of one of 2 · world chunks; anybody can make it.

        Shape (3, 1, H, n / 2 / world, D).
        """
        source = torch.Generator(DEVICE).manual_seed(1_000 * n + chunk)
        size = n // (2 * self.world)
        shape = (3, 1, HEADS, size, WIDTH)
        return torch.randn(
            *shape, generator=source, device=DEVICE, dtype=DTYPE
        )

    def tensors(self, n: int, positions: Tensor) -> tuple[Tensor, ...]:
        """Return q, k and v of the tokens at some positions."""
        size = n // (2 * self.world)
        chunks = (positions[::size] // size).tolist()
        parts = [self.text(n, chunk) for chunk in chunks]
        return tuple(
            torch.cat([part[i] for part in parts], -2) for i in range(3)
        )

    def exact(self, q: Tensor, positions: Tensor, n: int) -> Tensor:
        """Return the output of some queries, in float32."""
        chunks = range(2 * self.world)
        scores = torch.cat(
            [q.float() @ self.text(n, c)[1].float().mT for c in chunks], -1
        )
        hidden = torch.arange(n, device=DEVICE) > positions[:, None]
        scores = scores / math.sqrt(WIDTH)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        shares = weights.chunk(len(chunks), -1)
        return sum(
            share @ self.text(n, c)[2].float()
            for c, share in zip(chunks, shares, strict=True)
        )

    def positions(self, what: str, n: int) -> Tensor:
        """Return where this rank's tokens stand in the text."""
        everything = torch.arange(n, device=DEVICE)
        if what == ALONE:
            return everything
        if what == ORDER:
            return everything.chunk(self.world)[self.rank]
        return self.split(everything, self.world, dim=0)[self.rank]

    def alike(self, number: float) -> float:
        """Return the largest number that a rank has."""
        largest = torch.tensor(number, device=DEVICE, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.item()

    def gathered(self, numbers: list[float]) -> list[list[float]]:
        """Return all ranks' numbers."""
        mine = torch.tensor(numbers, device=DEVICE, dtype=torch.float64)
        all_of_them = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(all_of_them, mine)
        return [each.tolist() for each in all_of_them]

    # ---------------------------------------------------------- Ways to attend
    def ring(
        self, what: str, qkv: tuple[Tensor, ...], positions: Tensor
    ) -> Tensor:
        """Run the reader's ring once, by this rank."""
        timeline = Timeline()
        q, k, v = qkv
        own = () if what == WAITS else (k, v, positions)
        exchange = RingExchange(self.rank, self.world, timeline, own)
        self.module.block_attention = FlashBlock(timeline)
        output, _ = self.module.ring_attention(
            q, k, v, positions, exchange, self.world, causal=True
        )
        self.latest = exchange
        return output

    @contextmanager
    def way(self, what: str, n: int) -> Iterator[tuple]:
        """Prepare a way: yields its call, its inputs and its positions."""
        positions = self.positions(what, n)
        with ExitStack() as stack:
            if what == ALONE and self.rank:
                yield (lambda: None), (), positions
                return
            if what in (ORDER, WAITS, AHEAD):
                qkv = self.tensors(n, positions)
                yield (
                    lambda: self.ring(what, qkv, positions),
                    qkv,
                    positions,
                )
                return
            qkv = self.tensors(n, torch.arange(n))
            if HAS_GPU:
                stack.enter_context(sdpa_kernel(FLASH))
            if what == PEER:
                stack.enter_context(sharded(self.world, qkv))
            call = F.scaled_dot_product_attention
            yield lambda: call(*qkv, is_causal=True), qkv, positions

    # --------------------------------------------------------------- Measuring
    def measure(self, what: str, n: int) -> dict[str, Any]:
        """Check a way, then time it; every rank returns the same row."""
        row: dict[str, Any] = {"what": what, "n": n, "gpus": self.world}
        row |= {"heads": HEADS, "width": WIDTH}
        if what == ALONE:
            row["gpus"] = 1
        with self.way(what, n) as (call, inputs, positions):
            times: list[float] = []
            outputs: list[Tensor] = []

            def first() -> None:
                times.append(once(lambda: outputs.append(call())))

            dist.barrier()
            held = extra_bytes(first) + sum(x.nbytes for x in inputs)
            took = self.alike(times[0]) / 1e3
            error = 0.0
            if inputs:
                at = torch.linspace(0, len(positions) - 1, 17).long()
                at = at.to(DEVICE)
                right = self.exact(inputs[0][..., at, :], positions[at], n)
                error = relative_error(outputs[0][..., at, :], right)
            outputs.clear()
            row["error"] = self.alike(error)
            assert row["error"] < 0.02, f"{what} is wrong: {row}"
            repeats = min(REPEATS, int(AT_MOST / took))
            times = times if repeats < 1 else []
            for _ in range(repeats):
                dist.barrier()  # all begin together
                times.append(once(call))
            row["bytes"] = int(self.alike(held))
            row["by_rank"] = self.gathered([round(x, 4) for x in times])
            row["ms"] = [
                max(each) for each in zip(*row["by_rank"], strict=True)
            ]
            if what in (ORDER, WAITS, AHEAD):
                row["sends"] = self.latest.sends
                row["sent"] = self.latest.sent_bytes
                if n <= TIMELINE_TO:
                    row["timeline"] = self.timelines(self.latest.timeline)
        self.took[what] = n, took
        return row

    def timelines(self, timeline: Timeline) -> list[list]:
        """Return what every rank did when, each by its own clock."""
        mine = [[self.rank, *mark] for mark in timeline.milliseconds()]
        theirs: list = [None] * self.world
        dist.all_gather_object(theirs, mine)
        return [mark for marks in theirs for mark in marks]

    def link(self) -> dict[str, Any]:
        """Send a large block round, again and again."""
        numbers = BLOCK_BYTES // DTYPE.itemsize
        block = torch.randn(numbers, device=DEVICE, dtype=DTYPE)
        times = []
        for _ in range(REPEATS + 1):
            dist.barrier()
            exchange = RingExchange(self.rank, self.world, Timeline())
            times.append(once(lambda: exchange(block)))  # noqa: B023
        by_rank = self.gathered(times[1:])
        return {
            "what": LINK,
            "n": BLOCK_BYTES // (2 * HEADS * WIDTH * DTYPE.itemsize),
            "gpus": self.world,
            "bytes": 2 * block.nbytes,
            "sent": block.nbytes,
            "ms": [max(each) for each in zip(*by_rank, strict=True)],
        }

    def too_long(self, what: str, n: int) -> bool:
        """Say whether a way would outlast the time that is left."""
        if what not in self.took:
            return False
        before, seconds = self.took[what]
        expected = 1.1 * seconds * (n / before) ** 2 + 2
        late = time.monotonic() + expected > self.deadline
        return bool(self.alike(float(late)))

    def keep(self, row: dict[str, Any]) -> None:
        """Write a row, by rank 0."""
        if self.rank == 0:
            with open(self.rows, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def work(self) -> None:
        """Check and time all ways, from short texts to long ones."""
        if LINK in self.ways:
            self.keep(self.link())
        ways = [what for what in self.ways if what != LINK]
        for length in LENGTHS:
            n = length - length % (2 * self.world)
            for what in tuple(ways):
                if self.too_long(what, n):
                    ways.remove(what)
                    self.keep({"what": what, "n": n, "end": "our own limit"})
                else:
                    self.keep(self.measure(what, n))


@contextmanager
def sharded(world: int, qkv: tuple[Tensor, ...]) -> Iterator[None]:
    """Let PyTorch deal q, k and v, in a zigzag, and attend by its own ring."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.experimental import context_parallel
    from torch.distributed.tensor.experimental._attention import (
        set_rotate_method,
    )

    set_rotate_method("alltoall")  # block by block; the default gathers
    mesh = init_device_mesh(DEVICE, (world,))
    with context_parallel(
        mesh,
        buffers=list(qkv),
        buffer_seq_dims=[2, 2, 2],
        no_restore_buffers=set(qkv),
    ):
        yield


def load(path: Path) -> Any:
    """Return the module in which a function was sent."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder: Path, rank: int) -> None:
    """Be a rank from start to end."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    order = json.loads((folder / "order").read_text(encoding="utf-8"))
    store = dist.FileStore(str(folder / "store"), order["world"])
    if HAS_GPU:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if HAS_GPU else "gloo",
        store=store,
        rank=rank,
        world_size=order["world"],
        timeout=timedelta(seconds=60),
        device_id=torch.device("cuda", rank) if HAS_GPU else None,
    )
    with torch.no_grad():
        Rank(rank, order, folder).work()
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # closing a ring can take longer than what it did


if __name__ == "__main__":
    place, number = sys.argv[1:]
    try:
        main(Path(place), int(number))
    except BaseException as error:
        said = describe(error, Path(place).parent / "ring_attention.py")
        (Path(place) / f"{number}.error").write_text(said, encoding="utf-8")
        sys.stdout.flush()
        os._exit(1)  # at once: a broken ring can't be closed in order

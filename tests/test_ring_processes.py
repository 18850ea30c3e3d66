"""The ring of chapter 11: simulated, and of real processes."""

import linecache
import math
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from contextlab import ring, shipping
from solutions.ring import ring_attention, zigzag_merge, zigzag_split


@pytest.fixture(autouse=True)
def not_grading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start real processes, whatever runs these tests."""
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.delenv("CONTEXTLAB_GRADING", raising=False)


def in_a_cell(source: str, name: str, **names: object) -> FunctionType:
    """Define a function as a notebook does: in ``__main__``, by its text."""
    file = f"<cell of {name}>"
    lines = textwrap.dedent(source).strip().splitlines(keepends=True)
    lines[-1] += "\n"
    linecache.cache[file] = (len(source), None, lines, file)
    namespace = {"__name__": "__main__", **names}
    exec(compile("".join(lines), file, "exec"), namespace)
    return namespace[name]


def numbers(world: int) -> list[dict[str, Tensor]]:
    """Give each rank its own number."""
    return [{"own": torch.tensor([rank])} for rank in range(world)]


def text(n: int, world: int) -> tuple[list[dict], Tensor]:
    """Deal a causal text in a zigzag; return it, and the right output."""
    torch.manual_seed(0)
    tensors = torch.randn(3, 2, n, 6, dtype=torch.float64)
    right = F.scaled_dot_product_attention(*tensors, is_causal=True)
    parts = [zigzag_split(x, world) for x in tensors]
    positions = zigzag_split(torch.arange(n), world, dim=0)
    blocks = [
        {"q": q, "k": k, "v": v, "positions": own, "causal": True}
        for q, k, v, own in zip(*parts, positions, strict=True)
    ]
    return blocks, right


def alive(pid: int) -> bool:
    """Say whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------ Processes
def test_processes_do_what_the_simulation_does() -> None:
    blocks, right = text(24, 3)
    simulated = ring.simulate(ring_attention, blocks, weigh=True)
    real = ring.launch(ring_attention, blocks)
    output = zigzag_merge([rank.result[0] for rank in real])
    assert torch.allclose(output, right, atol=1e-12)
    for one, other in zip(simulated, real, strict=True):
        assert torch.equal(one.result[1], other.result[1])
        assert one.sends == other.sends == 2
        assert one.sent_bytes == other.sent_bytes
        assert one.peak_bytes == other.peak_bytes


def test_a_function_of_a_cell_takes_along_what_it_uses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    helper = in_a_cell(
        """
        def double(x: Tensor) -> Tensor:
            return FACTOR * x
        """,
        "double",
        FACTOR=2,
        Tensor=Tensor,
    )
    function = in_a_cell(
        '''
        def pass_on(own, exchange, world, *, low=-math.inf):
            """Double what comes."""
            def larger(x):
                return double(x).clamp(min=low)
            print("hello, naïve world")
            own, rest = torch.stack([own, own])
            return larger(*exchange(own))
        ''',
        "pass_on",
        double=helper,
        math=math,
        torch=torch,
        own="not this one: it is an argument",
    )
    ranks = ring.launch(function, numbers(2))
    assert [rank.result.tolist() for rank in ranks] == [[2], [0]]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"rank {rank}: hello, naïve world" for rank in (0, 1)]


PIDS = """
def {name}(own, exchange, world, folder=""):
    (other,) = exchange(own)
    with open(f"{{folder}}/{{int(own)}}", "w") as file:
        file.write(str(os.getpid()))
    {then}
    return exchange(other)
"""


def failing(
    tmp_path: Path, name: str, then: str, world: int = 3, **more: float
) -> str:
    """Launch a ring whose rank 1 fails; return the message.

    No process may be left.
    """
    function = in_a_cell(
        PIDS.format(name=name, then=f"if int(own) == 1: {then}"),
        name,
        os=os,
        time=time,
        sys=sys,
    )
    blocks = [block | {"folder": str(tmp_path)} for block in numbers(world)]
    with pytest.raises(ring.RankError) as raised:
        ring.launch(function, blocks, **more)
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert pids
    assert not any(alive(pid) for pid in pids)
    return str(raised.value)


def test_a_rank_that_raises_is_named(tmp_path: Path) -> None:
    said = failing(tmp_path, "stumble", "raise KeyError('lost')", world=2)
    assert said.startswith("rank 1 of 2 failed: KeyError: 'lost'")
    assert said.endswith(
        "in stumble: if int(own) == 1: raise KeyError('lost')"
    )


def test_a_rank_that_is_gone_is_named(tmp_path: Path) -> None:
    said = failing(tmp_path, "vanish", "os._exit(7)", world=2)
    assert said == ("rank 1 of 2 failed: it ended by itself, with exit code 7")


def test_a_rank_that_leaves_early_is_named(tmp_path: Path) -> None:
    said = failing(tmp_path, "leave", "sys.exit(0)", world=2)
    assert said.startswith("rank 1 of 2 failed: SystemExit: 0")


def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    said = failing(tmp_path, "sleep", "time.sleep(600)", timeout=3)
    assert said.startswith(
        "the ring was not done after 3 s: rank 1 computes, after exchange 1"
    )
    assert "rank 2 waits in exchange 2 for rank 1" in said


def test_a_rank_that_sends_less_is_named(tmp_path: Path) -> None:
    said = failing(tmp_path, "less", "return None", timeout=3)
    assert "rank 1 is done, after 1 exchanges" in said
    assert said.index("rank 1 is done") < said.index("rank 2 waits")


@pytest.mark.skipif(sys.platform == "win32", reason="ends a process by force")
def test_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "starts.py"
    script.write_text(
        "import os, time, torch\n"
        "from contextlab import ring\n"
        "def sleep(own, folder, exchange, world):\n"
        "    with open(f'{folder}/{int(own)}.pid', 'w') as file:\n"
        "        file.write(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "blocks = [{'own': torch.tensor([r]), 'folder': "
        f"{str(tmp_path)!r}}} for r in range(2)]\n"
        "ring.launch(sleep, blocks)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(ring.HERE).parent)}
    process = ring.subprocess.Popen(
        [sys.executable, str(script)], env=environment
    )
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    finally:
        process.kill()
        process.wait()
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(alive(pid) for pid in pids))


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_autograder_starts_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONTEXTLAB_GRADING", "1")
    monkeypatch.setattr(ring.subprocess, "Popen", None)
    blocks, _ = text(8, 2)
    assert [r.sends for r in ring.launch(ring_attention, blocks)] == [1, 1]


def test_what_cannot_be_sent_is_refused_in_a_sentence() -> None:
    weights = torch.ones(3)
    uses = in_a_cell("def f(own):\n    return weights", "f", weights=weights)
    with pytest.raises(ValueError, match="f uses weights, a Tensor of this"):
        shipping.source(uses)

    def within(own):
        return weights

    with pytest.raises(ValueError, match="within can't be sent"):
        shipping.source(within)
    with pytest.raises(ValueError, match="can't be sent"):
        shipping.source(print)
    unknown = {}
    exec("def g(own):\n    return own", unknown)
    with pytest.raises(ValueError, match="the source of g can't be sent"):
        shipping.source(unknown["g"])


# ----------------------------------------------------------------- Simulation
def test_a_simulated_rank_that_waits_in_vain_is_named() -> None:
    def less(own, exchange, world):
        for _ in range(1 if int(own) == 1 else 2):
            (own,) = exchange(own)
        return own

    def more(own, exchange, world):
        for _ in range(3 if int(own) == 1 else 2):
            exchange(own)

    with pytest.raises(ring.RankError, match="rank 1, which calls exchange"):
        ring.simulate(less, numbers(3))
    with pytest.raises(ring.RankError, match="rank 0, which calls exchange"):
        ring.simulate(more, numbers(3))


def test_simulated_ranks_must_send_alike() -> None:
    def unlike(own, exchange, world):
        return exchange(own.expand(1 + int(own)))

    said = r"rank 1 sends int64 \(2,\), but is sent int64 \(1,\)"
    with pytest.raises(ring.RankError, match=said):
        ring.simulate(unlike, numbers(2))
    with pytest.raises(TypeError, match="exchange takes tensors"):
        ring.simulate(lambda own, exchange, world: exchange([own]), numbers(2))


def test_what_is_sent_is_a_copy() -> None:
    def scribble(own, exchange, world):
        (other,) = exchange(own)
        own.zero_()
        other += 5
        (again,) = exchange(other)
        return other, again

    first, second = ring.simulate(scribble, numbers(2))
    assert [x.item() for x in first.result] == [6, 5]
    assert [x.item() for x in second.result] == [5, 6]


def test_a_zigzag_is_what_pytorch_calls_head_and_tail() -> None:
    from torch.distributed.tensor.experimental._context_parallel import (
        _load_balancer,
    )

    balancer = _load_balancer._HeadTailLoadBalancer(24, 3, "cpu")
    right = balancer._generate_indices().flatten()
    got = torch.cat(zigzag_split(torch.arange(24), 3, dim=0))
    assert torch.equal(got, right)

"""The scale labs run here on a CPU, and what a GPU has measured is sound."""

import json
import os
import subprocess
import sys

import matplotlib as mpl
import pytest
import torch

from autograder.chapters import ROOT
from contextlab import scale
from contextlab.ring import RankError
from contextlab.scale import __main__ as command
from contextlab.scale import (
    device,
    flash,
    kvcache,
    mla,
    quadratic,
    ring,
    ring_rank,
    sparse,
    ssm,
)
from solutions.ring import block_attention, zigzag_split

mpl.use("agg")
RECORDS = sorted(scale.DATA.glob("*.json"))


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Let a lab take a second, and write elsewhere."""
    monkeypatch.setattr(quadratic, "FIRST", 64)
    monkeypatch.setattr(flash, "SIZES", ((64, 2), (128, 1)))
    monkeypatch.setattr(mla, "FIRST", 64)
    for lab in (kvcache, sparse, ssm):
        monkeypatch.setattr(lab, "LENGTHS", (128, 256))
    monkeypatch.setattr(scale, "DATA", tmp_path)
    monkeypatch.setattr(device, "limits", lambda: dict.fromkeys(LIMITS, 1e9))


LIMITS = ("copy", "matmul", "memory")


@pytest.mark.parametrize("lab", scale.LABS)
def test_a_lab_runs_on_a_cpu_and_is_shown_as_recorded(
    lab, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["scale", lab, "--save"])
    command.main()
    assert "ms" in capsys.readouterr().out
    record = scale.read(lab)
    assert record["made"]["device"] == device.name()
    assert {"torch", "date", "commit"} <= set(record["made"])
    for row in record["rows"]:
        assert row["n"] > 0
        assert "end" in row or min(row["ms"]) > 0
    scale.show(lab)


def test_an_unknown_lab_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale", "rocket"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    error = capsys.readouterr().err
    assert "rocket" in error
    assert all(lab in error for lab in scale.LABS)


def test_the_latest_result_is_read():
    for date in ("2026-02-01", "2026-01-01"):
        made = {"device": f"card of {date}", "date": date}
        scale.write("flash", {"made": made, "rows": []})
    assert scale.read("flash")["made"]["date"] == "2026-02-01"


def test_no_result_is_an_error():
    with pytest.raises(FileNotFoundError, match="flash"):
        scale.read("flash")


def test_the_end_of_the_memory_is_a_row():
    def too_large():
        raise torch.OutOfMemoryError

    row = device.measure("too large", too_large, n=9)
    assert row == {"what": "too large", "n": 9, "end": "out of memory"}


def test_memory_ends_once_and_the_chunks_go_on():
    def too_large(q, k, v):
        if len(q) > 128:
            raise torch.OutOfMemoryError
        return v

    rows = quadratic.run(too_large, lambda q, k, v: v)
    whole = [row for row in rows if row["what"] == quadratic.WHOLE]
    chunks = [row for row in rows if row["what"] == quadratic.CHUNKS]
    assert [row["n"] for row in whole] == [64, 128, 256]
    assert "end" in whole[-1]
    assert max(row["n"] for row in chunks) > 256
    assert all("ms" in row for row in chunks)


def test_a_wrong_kernel_is_never_timed(monkeypatch):
    wrong = {"wrong": lambda q, k, v: v}
    monkeypatch.setattr(flash, "kernels", lambda: wrong)
    with pytest.raises(AssertionError, match="wrong"):
        list(flash.run())


def test_a_wrong_way_back_is_never_timed(monkeypatch):
    back = {"wrong, backward": lambda q, k, v, grad: lambda: (q, k, v)}
    monkeypatch.setattr(flash, "backward_kernels", lambda: back)
    with pytest.raises(AssertionError, match="wrong, backward"):
        list(flash.run())


def test_what_was_measured_before_a_failure_is_kept(monkeypatch):
    def fails():
        yield {"what": "first", "n": 1, "ms": [1.0]}
        raise AssertionError("the second is wrong")

    kept = []
    monkeypatch.setattr(flash, "run", fails)
    with pytest.raises(AssertionError, match="second"):
        scale.measure("flash", keep=lambda record: kept.append(record))
    assert [row["what"] for row in kept[-1]["rows"]] == ["first"]


def test_the_kernels_are_right_in_triton_s_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("world", [2, 3])
def test_a_ring_of_processes_is_measured(world, monkeypatch):
    monkeypatch.setattr(ring, "world", lambda: world)
    rows = list(ring.run(*command.references("ring")))
    ways = {row["what"] for row in rows}
    assert ways == {ring.LINK, *ring.COLORS} - {ring.PEER}
    for row in rows:
        assert all(ms > 0 for ms in row["ms"])
        assert row["bytes"] > 0
        if row["what"].startswith("ring"):
            assert row["error"] < 1e-5
            assert row["gpus"] == world
            assert row["sends"] == world - 1
            a_token = 2 * 2 * 16 * 4 + 8  # k, v of two heads; its position
            assert row["sent"] == (world - 1) * row["n"] // world * a_token
            done = [(mark[0], mark[1]) for mark in row["timeline"]]
            assert done.count((0, "sends")) == world - 1
            assert done.count((world - 1, "computes")) == world
    ring.draw_timeline(
        {"made": {"device": "", "torch": "", "date": ""}, "rows": rows},
        max(row["n"] for row in rows if row.get("timeline")),
    )


def test_a_wrong_ring_is_never_timed():
    _, split = command.references("ring")
    with pytest.raises(RankError, match="is wrong"):
        list(ring.run(ring_attention, split))


def ring_attention(q, k, v, positions, exchange, world, causal=False):
    """See one's own block alone."""
    for _ in range(world - 1):
        exchange(k, v, positions)
    return q, q[..., 0]


def test_a_ring_that_stands_still_is_ended(monkeypatch):
    monkeypatch.setattr(ring, "START", 0.5)
    monkeypatch.setattr(ring, "start", stand_still)
    with pytest.raises(RankError, match="no row"):
        list(ring.run(*command.references("ring")))
    assert all(process.poll() is not None for process in still)


still = []


def stand_still(*order):
    """Start a process that does nothing."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    still.append(subprocess.Popen(sleep))
    return still


def test_a_block_ahead_is_the_block_that_was_asked_for():
    positions = zigzag_split(torch.arange(24), 2, dim=0)
    attend = ring_rank.FlashBlock(ring_rank.Timeline())
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 24, 8)
    for own in positions:
        parts = [
            attend(q[..., own, :], k[..., keys, :], v[..., keys, :], own, keys,
                   causal=True)
            for keys in positions
        ]  # fmt: skip
        for (got, lse), keys in zip(parts, positions, strict=True):
            given = q[..., own, :], k[..., keys, :], v[..., keys, :]
            right = block_attention(*given, own, keys, causal=True)
            torch.testing.assert_close(got, right[0])
            torch.testing.assert_close(lse, right[1])


def test_a_grader_waits_for_no_lab(monkeypatch):
    monkeypatch.setenv("CONTEXTLAB_GRADING", "1")
    scale.show("flash")  # else: nothing is recorded


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_from_a_gpu_and_within_its_limits(path):
    record = json.loads(path.read_text())
    made, limits = record["made"], record["limits"]
    assert all(made[key] for key in ("driver", "cuda", "triton", "commit"))
    for row in record["rows"]:
        if "end" in row:
            continue
        assert row["bytes"] <= limits["memory"]
        assert len(row["ms"]) >= 1
        assert row.get("error", 0) < 0.02
        if "width" in row:
            most = limits["matmul"] * row.get("gpus", 1)
            assert flash.tflops(row) * 1e12 < most


def test_blocks_of_a_mask_are_those_of_the_library():
    from torch.nn.attention.flex_attention import create_block_mask

    for what, pairs in sparse.masks(640).items():
        ours = sparse.block_mask(pairs, 640)
        theirs = create_block_mask(pairs, None, None, 640, 640, "cpu", 128)
        for part in ("kv_num_blocks", "full_kv_num_blocks"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))
        assert torch.equal(ours.to_dense(), theirs.to_dense()), what


def test_every_lab_is_recorded():
    labs = {path.stem.partition("-")[0] for path in RECORDS}
    assert labs == set(scale.LABS)


def test_students_get_the_records(tmp_path):
    from autograder.release import bundle

    archive = bundle([], tmp_path)
    found = sorted((tmp_path / archive.stem).rglob("_data/scale/*.json"))
    assert [path.name for path in found] == [path.name for path in RECORDS]
    assert found[0].read_text() == RECORDS[0].read_text()
    assert ROOT not in found[0].parents

"""The scale labs run here on a CPU, and what a GPU has measured is sound."""

import json
import sys

import matplotlib as mpl
import pytest
import torch

from autograder.chapters import ROOT
from contextlab import scale
from contextlab.scale import __main__ as command
from contextlab.scale import (
    device,
    flash,
    kvcache,
    mla,
    quadratic,
    sparse,
    ssm,
)

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
        flash.run()


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
            assert flash.tflops(row) * 1e12 < limits["matmul"]


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

"""The capstone's exam: what it asks, what it counts, what it refuses."""

import sys
from dataclasses import replace

import pytest
import torch

from contextlab import capstone, facts, mechanisms, recorded
from contextlab.capstone import Design, Keep, PeekError
from contextlab.tasks import UNKNOWN
from solutions.capstone import design, importance, memory_mask

ALL = Keep(capstone.N_TOKENS)
EVERYTHING = Design((ALL,) * 4, 1)
NEAR = Keep(4)


def test_an_exam_asks_for_what_it_has_told() -> None:
    ids, targets = capstone.exam(6, 3)
    assert ids.shape == targets.shape == (6, capstone.N_TOKENS)
    assert torch.equal(ids, capstone.exam(6, 3)[0])
    assert not torch.equal(ids, capstone.exam(6, 4)[0])
    told = facts.STRIDE * capstone.TOLD
    asked = targets != UNKNOWN
    assert asked.sum(1).tolist() == [capstone.ASKED] * 6
    assert not asked[:, :told].any()
    for row, place in asked.nonzero().tolist():
        first = (ids[row, :told] == ids[row, place]).nonzero()
        assert ids[row, first.item() + 1] == targets[row, place]


@pytest.mark.parametrize("n_kv_heads", capstone.SHARED)
def test_to_keep_everything_is_to_run_the_model(n_kv_heads: int) -> None:
    ids, _ = capstone.exam(2, 0)
    plan = replace(EVERYTHING, n_kv_heads=n_kv_heads)
    logits, n_bytes, _ = capstone.read(plan, ids, memory_mask)
    right, _ = capstone.trained(n_kv_heads)(ids)
    assert (logits - right).abs().max() < 0.1  # kept at 16 bits
    assert (logits.argmax(-1) == right.argmax(-1)).double().mean() > 0.99
    assert n_bytes == 256 * n_kv_heads


def test_windows_and_yarn_are_those_of_the_mechanisms() -> None:
    ids, _ = capstone.exam(2, 1)
    plan = Design((Keep(90), Keep(3), Keep(1), Keep(30)), 2, "yarn")
    logits, _, _ = capstone.read(plan, ids, memory_mask)
    layers = [
        mechanisms.Layer(n_heads=4, n_kv_heads=2, window=keep.window)
        for keep in plan.layers
    ]
    rope = mechanisms.Rope("yarn", scale=4, window=capstone.TRAINED)
    other = mechanisms.redesigned(capstone.trained(2), layers, rope)
    assert (logits - other(ids)[0]).abs().max() < 0.1


def test_entries_that_come_back_are_counted_all_the_while() -> None:
    seen = torch.eye(6, dtype=torch.bool)
    assert capstone.most_held(seen[None, None]) == 1
    seen[5, 0] = True  # it had to be somewhere
    assert capstone.most_held(seen[None, None]) == 2
    seen[4, 5] = True  # the future isn't held, whoever looks at it
    assert capstone.most_held(seen[None, None]) == 2
    assert capstone.most_held(seen.expand(1, 3, 6, 6)) == 6


@pytest.mark.parametrize("bits", capstone.BITS)
def test_rounding_is_off_by_half_a_step(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(50, 16, generator=generator)
    low, high = x.aminmax(dim=-1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    off = (capstone.rounded(x, bits) - x).abs()
    assert (off <= 0.5 * step + 5e-3).all()
    if bits < 8:
        assert len(capstone.rounded(x[:1], bits).unique()) <= 2**bits


def test_a_query_attends_to_what_it_retrieves() -> None:
    generator = torch.Generator().manual_seed(0)
    products = torch.randn(1, 1, 20, 20, generator=generator)
    keep = Keep(3, 6, 2)
    seen = memory_mask(torch.randperm(20, generator=generator).float(), 3, 6)
    used = capstone.retrieved(products, seen[None, None], keep)[0, 0]
    assert not (used & ~seen).any()
    for t in range(20):
        far = seen[t, : max(t - 2, 0)].nonzero()[:, 0]
        best = far[products[0, 0, t, far].argsort(descending=True)[:2]]
        near = range(max(t - 2, 0), t + 1)
        right = sorted({*best.tolist(), *near})
        assert used[t].nonzero()[:, 0].tolist() == right


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": (ALL,) * 3}, "a design has 4 layers"),
        ({"layers": (ALL, ALL, ALL, None)}, "layer 3 should be a Keep"),
        ({"layers": (replace(ALL, bits=3),) * 4}, "layer 0: bits are"),
        ({"layers": (replace(ALL, window=0),) * 4}, "window is a whole"),
        ({"layers": (replace(ALL, memory=1.5),) * 4}, "memory is a whole"),
        ({"layers": (Keep(1, 4, 0),) * 4}, "retrieved is a whole"),
        ({"layers": (Keep(1, 4),) * 4}, "a memory needs an importance"),
        ({"n_kv_heads": 3}, "n_kv_heads is 4, 2 or 1"),
        ({"n_kv_heads": True}, "n_kv_heads is 4, 2 or 1"),
        ({"rope": "alibi"}, "rope is one of"),
        ({"importance": torch.ones(3)}, "a function, which .* not a tensor"),
    ],
)
def test_what_is_no_design_is_refused(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        capstone.checked(replace(EVERYTHING, **change))
    with pytest.raises(ValueError, match="not a dict"):
        capstone.checked(change)


@pytest.mark.parametrize(
    ("score", "error", "says"),
    [
        (lambda q, k, v, w: (q[:, :1, -1:] * k).sum(-1), PeekError, "future"),
        (lambda q, k, v, w: k.flip(2).norm(dim=-1), PeekError, "future"),
        (lambda q, k, v, w: k.norm(dim=-1) / 0, ValueError, "finite"),
        (lambda q, k, v, w: k.norm(dim=-1)[0], ValueError, "of shape"),
        (lambda q, k, v, w: None, ValueError, "None"),
    ],
)
def test_what_is_no_score_is_refused(score, error, says: str) -> None:
    plan = Design((Keep(4, 20), NEAR, NEAR, NEAR), 1, "none", score)
    with pytest.raises(error, match=says):
        capstone.examine(plan, memory_mask, 0, 2)


def test_a_score_comes_from_one_call_alone() -> None:
    """Whoever keeps the questions for the next call finds nothing by it."""
    asked = {}

    def remembers(q, k, v, window):
        known = asked.get("q", torch.zeros_like(q[:, :1, -1:]))
        asked["q"] = q[:, :1, -1:]
        return (known * k).sum(-1)

    def drawn(q, k, v, window):
        return torch.rand(k.shape[:3])

    for score in (remembers, drawn):
        plan = Design((Keep(4, 20), NEAR, NEAR, NEAR), 1, "none", score)
        with pytest.raises(PeekError, match="the second time"):
            capstone.examine(plan, memory_mask, 0, 2)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_future_is_found_at_any_scale(scale: float) -> None:
    before = torch.randn(2, 1, 30).abs() * scale
    news = torch.zeros_like(before)
    news[0, 0, 3] = 0.1 * scale
    assert capstone.moved(before, before + news, 4)
    assert not capstone.moved(before, before + news, 3)
    assert not capstone.moved(before, before * (1 + 1e-7), 30)
    assert capstone.moved(before, before * torch.nan, 30)


def test_a_score_may_use_what_the_window_has_seen() -> None:
    def within(q, k, v, window):
        ahead = torch.nn.functional.pad(k, (0, 0, 0, window - 1))
        return ahead[:, :, window - 1 :].norm(dim=-1)

    plan = Design((Keep(4, 20), NEAR, NEAR, NEAR), 1, "none", within)
    assert capstone.examine(plan, memory_mask, 0, 2).recall < 1
    plan = replace(plan, importance=lambda q, k, v, w: within(q, k, v, w + 1))
    with pytest.raises(PeekError):
        capstone.examine(plan, memory_mask, 0, 2)


def test_the_record_is_what_comes_out() -> None:
    rows = recorded.read("capstone")["rows"]
    known = {row["name"]: row for row in rows if "name" in row}
    row = known["window of 94 in one layer, 4 bits"]
    layers = tuple(Keep(**keep) for keep in row["layers"])
    plan = Design(layers, row["n_kv_heads"], row["rope"])
    found = capstone.examine(plan, memory_mask, 2)
    then = capstone.Result(**row["results"][2])
    assert found.recall == pytest.approx(then.recall, abs=0.02)
    assert (found.kv_bytes, found.flops) == (then.kv_bytes, then.flops)
    assert "layers" not in known["the reference"]  # students have the file


def test_the_reference_is_far_above_the_baseline_on_any_seed() -> None:
    for seed in (41, 42, 43):
        found = capstone.examine(design(), memory_mask, seed)
        assert found.recall > 0.97
        assert not found.over_budget()
        baseline = Design((Keep(94, bits=4), NEAR, NEAR, NEAR), 1, "yarn")
        found = capstone.examine(baseline, memory_mask, seed)
        assert 0.25 < found.recall < 0.45


FILE = """
from contextlab.capstone import Design, Keep
from solutions.capstone import memory_mask
def design():
    return Design((Keep({window}),) * 4, 1, "linear")
"""


def test_the_leaderboard_from_the_command_line(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(capstone, "SEEDS", range(1))
    path = tmp_path / "mine.py"
    for window, over in ((9, False), (99, True)):
        path.write_text(FILE.format(window=window))
        monkeypatch.setattr(sys, "argv", ["capstone", str(path)])
        capstone.main()
        lines = capsys.readouterr().out.splitlines()
        mine = next(line for line in lines if line.startswith("→ mine"))
        assert mine.endswith("over budget") == over
        assert lines[1].startswith("the reference")
    for text, says in (
        ("x = 1", "defines no design"),
        (FILE.format(window=0), "window is a whole"),
    ):
        path.write_text(text)
        with pytest.raises(SystemExit) as stop:
            capstone.main()
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


def test_what_is_over_budget_is_said() -> None:
    assert not capstone.Result(1.0, 10.0, 290_000).over_budget()
    said = capstone.Result(1.0, 10.04, 290_001).over_budget()
    assert said == (
        "10.04 bytes for each token, where 10 are allowed and 290,001 FLOPs "
        "for the last token, where 290,000 are allowed"
    )


def test_ntk_is_the_base_that_chapter_7_gives() -> None:
    from solutions.yarn import ntk_frequencies

    got, factor = capstone.frequencies("ntk")
    right = ntk_frequencies(capstone.WIDTH, capstone.BASE, 4)
    torch.testing.assert_close(got, right.to(got.dtype))
    assert factor == 1


def test_the_reference_needs_its_importance() -> None:
    plan = replace(design(), importance=lambda *x: -importance(*x))
    assert capstone.examine(plan, memory_mask, 0).recall < 0.1

"""Every chapter keeps within a laptop's means, by the record of a run."""

import json

import pytest

from autograder.chapters import ROOT, chapters

MOST_SECONDS = 60  # from a cold kernel, on two cores
MOST_MIB = 4_096
RECORD = ROOT / "benchmarks" / "chapters.json"


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
def test_chapter_is_within_its_budget(chapter):
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    row = next((r for r in rows if r["chapter"] == chapter.name), None)
    assert row, f"{chapter.name}: run python benchmarks/chapters.py"
    assert row["seconds"] <= MOST_SECONDS
    assert row["peak_mib"] <= MOST_MIB

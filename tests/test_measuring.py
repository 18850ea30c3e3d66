"""Tests of what measures a call, and of the spy beneath it."""

import time

import torch

from contextlab.measuring import in_words, peak_bytes, seconds
from contextlab.spies import Watch


def test_the_shortest_of_several_times_is_taken():
    naps = iter([0.2, 0.1, 0.01, 0.1])  # the first isn't timed
    assert 0.01 <= seconds(lambda: time.sleep(next(naps)), repeats=3) < 0.1


def test_the_peak_is_what_exists_at_once():
    def one_after_another():
        for _ in range(3):
            torch.ones(1_000)

    def all_at_once():
        return [torch.ones(1_000) for _ in range(3)]

    assert peak_bytes(one_after_another) == 4_000
    assert peak_bytes(all_at_once) == 12_000


def test_a_view_holds_the_whole_tensor_and_makes_none():
    with Watch() as seen:
        row = torch.ones(10, 100)[:1]
        other = torch.ones(50)
    assert (seen.largest, seen.held) == (4_000, 4_200)
    assert row.numel() + other.numel() == 150


def test_bytes_are_written_in_powers_of_1024():
    assert in_words(512) == "512 bytes"
    assert in_words(64 * 2**30) == "64 GiB"
    assert in_words(1.5 * 2**20) == "1.5 MiB"

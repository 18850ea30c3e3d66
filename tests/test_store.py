"""The store on disk: kills, restarts, damage; facts and the reader."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from contextlab.store import VectorStore, faiss

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (12, 5)
BATCH = 7

# Adds a batch, saves, says so; dies within the call number ``stop`` of
# ``where``: a save that is torn half-way, before a sync, before the rename.
WRITER = """
import io, os, signal, sys
import numpy as np
from contextlab.store import VectorStore
from tests.test_store import WIDTHS, batch

path, where, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

def deadly(call):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == stop:
            if where == "savez":
                whole = io.BytesIO()
                call(whole, **kwargs)
                args[0].write(whole.getvalue()[: whole.tell() // 2])
                args[0].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

if where != "nowhere":
    module = np if where == "savez" else os
    setattr(module, where, deadly(getattr(module, where)))
store = VectorStore(path, *WIDTHS)
while True:
    store.add(*batch(len(store)))
    store.save()
    print(len(store), flush=True)
"""


def batch(first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries from a position on: they are the same every time."""
    drawn = np.random.default_rng(first).normal(size=(BATCH, sum(WIDTHS)))
    keys, values = np.split(drawn.astype(np.float32), [WIDTHS[0]], axis=1)
    return keys, values


def start(path: Path, where: str = "nowhere", stop: int = 0):
    """Start a process that writes to the store without an end."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), where, str(stop)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def assert_whole(path: Path, promised: int) -> int:
    """Assert that a store holds whole batches, and all that was promised."""
    store = VectorStore(path, *WIDTHS)
    n = len(store)
    assert n % BATCH == 0
    assert promised <= n <= promised + BATCH
    for first in range(0, n, BATCH):
        keys, values = batch(first)
        rows = slice(first, first + BATCH)
        assert np.array_equal(store.values[rows], values)
        assert np.array_equal(store.index.reconstruct_n(first, BATCH), keys)
    return n


def test_a_store_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    store = VectorStore(path, *WIDTHS)
    assert len(store) == 0
    for first in (0, BATCH):
        store.add(*batch(first))
    assert not path.exists()
    store.save()
    assert assert_whole(path, 2 * BATCH) == 2 * BATCH
    again = VectorStore(path, *WIDTHS)
    keys, values = batch(BATCH)
    scores, positions = again.search(10 * keys, 1)
    assert positions[:, 0].tolist() == list(range(BATCH, 2 * BATCH))
    assert np.allclose(scores[:, 0], 10 * (keys**2).sum(1), rtol=1e-5)
    assert np.array_equal(again.values[positions[:, 0]], values)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("where", "stop", "saved"),
    [
        ("savez", 1, 0),
        ("savez", 3, 2),
        ("fsync", 3, 1),  # two syncs a save: the file's and the folder's
        ("replace", 2, 1),
        ("fsync", 4, 2),
    ],
)
def test_a_store_survives_a_kill_at_any_step(
    tmp_path: Path, where: str, stop: int, saved: int
) -> None:
    path = tmp_path / "memory.npz"
    writer = start(path, where, stop)
    said = writer.communicate(timeout=60)[0].split()
    assert writer.returncode == -signal.SIGKILL
    assert path.exists() == (saved > 0)
    promised = int(said[-1]) if said else 0
    assert assert_whole(path, promised) == saved * BATCH


def test_a_store_survives_kills_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    dice = random.Random(0)
    promised = 0
    for _ in range(4):
        with start(path) as writer:
            promised = int(writer.stdout.readline())
            time.sleep(0.05 * dice.random())
            writer.kill()
            for line in writer.stdout:  # what it said before
                if line.endswith("\n"):
                    promised = int(line)
        assert_whole(path, promised)


def test_what_is_left_of_a_torn_write_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    store = VectorStore(path, *WIDTHS)
    store.add(*batch(0))
    store.save()
    (tmp_path / "memory.npz.new").write_bytes(path.read_bytes()[:100])
    again = VectorStore(path, *WIDTHS)
    again.add(*batch(BATCH))
    again.save()
    assert_whole(path, 2 * BATCH)
    assert [p.name for p in tmp_path.iterdir()] == ["memory.npz"]


def test_a_damaged_store_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "memory.npz"
    store = VectorStore(path, *WIDTHS)
    store.add(*batch(0))
    store.save()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for damaged in (b"", b"hello", whole[:-30], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"memory\.npz is no store"):
            VectorStore(path, *WIDTHS)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"widths \(12, 5\), not \(12, 6\)"):
        VectorStore(path, 12, 6)
    with pytest.raises(ValueError, match="7 keys, but 6 values"):
        store.add(batch(0)[0], batch(0)[1][:6])


def test_torch_and_faiss_live_in_one_process() -> None:
    code = (
        "import {0}, {1}\n"
        "from contextlab.store import faiss\n"
        "import torch\n"
        "x = torch.randn(400, 64)\n"
        "for _ in range(2):\n"
        "    index = faiss.IndexFlatIP(64)\n"
        "    index.add(x.numpy())\n"
        "    scores, found = index.search(x[:50].numpy(), 3)\n"
        "    right = (x[:50] @ x.T).topk(3)\n"
        "    assert torch.allclose(torch.tensor(scores), right.values,"
        " atol=1e-3)\n"
    )
    free = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    for order in (("torch", "faiss"), ("faiss", "torch")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(*order)],
            cwd=ROOT, env=free, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert faiss.omp_get_max_threads() == 1

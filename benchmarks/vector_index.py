"""Measure what exact and approximate indexes of chapter 13 cost.

Run it from the root of the repository: python benchmarks/vector_index.py
It takes about two minutes of one core.
"""

import time

import numpy as np
from tqdm import tqdm

from contextlab import recorded
from contextlab.store import faiss

WIDTH, K, QUERIES, REPEATS = 64, 10, 200, 5
SIZES = (10_000, 100_000)
NEAR = 0.4  # the spread of a key round its centre, which has 1


def keys(n: int, crowded: bool, seed: int) -> np.ndarray:
    """Draw keys evenly in all directions, or crowded round n / 100 centres."""
    dice = np.random.default_rng(seed)
    drawn = dice.normal(size=(n, WIDTH))
    if crowded:
        centres = np.random.default_rng(7).normal(size=(1_000, WIDTH))
        drawn = centres[dice.integers(1_000, size=n)] + NEAR * drawn
    return drawn.astype(np.float32)


def kinds(n: int) -> dict[str, list[tuple[str, str, int]]]:
    """Return index factory strings, and what to set how far for a search."""
    lists = round(n**0.5)
    return {
        "Flat": [("exact", "", 0)],
        f"IVF{lists},Flat": [
            (f"IVF, {probes} of {lists} lists", "nprobe", probes)
            for probes in (1, 8, 32)
        ],
        "HNSW16": [
            (f"HNSW, effort {effort}", "efSearch", effort)
            for effort in (16, 64, 256)
        ],
    }


def measure(n: int, crowded: bool) -> list[dict]:
    """Build every index on the same keys, and search it one by one."""
    stored, queries = keys(n, crowded, 1), keys(QUERIES, crowded, 2)
    rows, exact = [], None
    for kind, settings in kinds(n).items():
        start = time.process_time()
        index = faiss.index_factory(WIDTH, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(stored)
        index.add(stored)
        build = time.process_time() - start
        n_bytes = faiss.serialize_index(index).nbytes
        for name, setting, value in settings:
            if setting:
                faiss.ParameterSpace().set_index_parameter(
                    index, setting, value
                )
            times = []
            for _ in range(REPEATS):
                start = time.process_time()
                found = [index.search(q[None], K)[1][0] for q in queries]
                times.append((time.process_time() - start) / QUERIES)
            if exact is None:
                exact = found
            hits = [
                len(set(got) & set(right)) / K
                for got, right in zip(found, exact, strict=True)
            ]
            rows.append(
                {
                    "keys": "crowded" if crowded else "even",
                    "n": n,
                    "index": name,
                    "build_seconds": round(build, 3),
                    "bytes": n_bytes,
                    "search_milliseconds": round(1_000 * min(times), 4),
                    "recall": round(float(np.mean(hits)), 4),
                }
            )
    return rows


if __name__ == "__main__":
    plan = [(n, crowded) for n in SIZES for crowded in (False, True)]
    rows = [row for one in tqdm(plan) for row in measure(*one)]
    print(recorded.write("vector_index", "benchmarks/vector_index.py", rows))

"""A vector memory on disk, which survives a restart and a kill.

All that a store holds is one file. A new version is written beside it, forced
to the disk, and put in its place by a rename, which either has happened or
hasn't. So whenever the process is killed, the file is the old version or the
new one, whole.
"""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np

# On macOS, PyTorch and faiss each bring a copy of OpenMP, and two of them in
# one process abort or crash. One thread for faiss is safe everywhere.
if sys.platform == "darwin":
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
import faiss

faiss.omp_set_num_threads(1)

# What reading a file raises that is no store, or not a whole one.
DAMAGE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
)


class VectorStore:
    """Keys in a ``faiss`` index, their values beside it, both on disk.

    What was added is safe once ``save`` has returned. One process may write
    to a store, any number may read it.

    Args:
        path: the store's file; it is read if it exists.
        key_width: the width of the keys, D.
        value_width: the width of the values, E.
        kind: an index of ``faiss.index_factory``: "Flat" is exact.

    Raises:
        ValueError: if the file is no store, is damaged, or has other widths.
    """

    def __init__(
        self, path: Path, key_width: int, value_width: int, kind: str = "Flat"
    ) -> None:
        self.path = Path(path)
        self.values = np.empty((0, value_width), dtype=np.float32)
        self.index = faiss.index_factory(
            key_width, kind, faiss.METRIC_INNER_PRODUCT
        )
        if self.path.exists():
            self._load(key_width, value_width)

    def __len__(self) -> int:
        return self.index.ntotal

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add entries, keys of shape (n, D) and values of shape (n, E)."""
        if len(keys) != len(values):
            raise ValueError(f"{len(keys)} keys, but {len(values)} values")
        values = np.asarray(values, dtype=np.float32)
        self.values = np.concatenate([self.values, values])
        self.index.add(np.ascontiguousarray(keys, dtype=np.float32))

    def search(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best scores q·k of each query, and the positions."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        return self.index.search(queries, k)

    def save(self) -> None:
        """Put all that was added on the disk: it is safe from then on."""
        beside = self.path.with_name(self.path.name + ".new")
        with open(beside, "wb") as file:
            np.savez(
                file,
                index=faiss.serialize_index(self.index),
                values=self.values,
            )
            file.flush()
            os.fsync(file.fileno())  # the bytes, before the name
        os.replace(beside, self.path)
        if os.name == "posix":  # and the name, which is the folder's
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _load(self, key_width: int, value_width: int) -> None:
        try:
            with np.load(self.path) as file:
                values = file["values"]
                index = faiss.deserialize_index(file["index"])
        except DAMAGE as error:
            raise ValueError(
                f"{self.path} is no store, or damaged ({error}); restore it "
                "from a copy, or remove it to begin anew"
            ) from None
        widths = (index.d, values.shape[1])
        if widths != (key_width, value_width):
            raise ValueError(
                f"{self.path} holds keys and values of widths {widths}, not "
                f"{(key_width, value_width)}"
            )
        self.index, self.values = index, values

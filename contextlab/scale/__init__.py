"""The course's own code at scale: measured on a GPU, recorded for all others.

``python -m contextlab.scale`` runs the labs and, with ``--save``, writes
``book/_data/scale/LAB-DEVICE.json``; a page shows these files. A lab is a
module with ``FUNCTIONS``, the exercises that it measures, ``run``, which takes
them and measures, and ``draw``, which makes the figure.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "book" / "_data" / "scale"
LABS = ("quadratic", "flash", "kvcache", "mla", "sparse", "ssm")

Record = dict[str, Any]


def show(lab: str, *functions: Callable) -> None:
    """Draw a lab: measured here if there is a GPU, else as recorded.

    While an autograder runs the notebook, nothing is done.

    Args:
        lab: one of ``LABS``.
        functions: your answers to the exercises that it measures.
    """
    from contextlab.scale import device
    from contextlab.training import is_grading

    if is_grading():
        return
    record = measure(lab, *functions) if device.HAS_GPU else read(lab)
    import_module(f"contextlab.scale.{lab}").draw(record)


def measure(lab: str, *functions: Callable) -> Record:
    """Run a lab on this device; as ``show``."""
    from contextlab.scale import device

    rows = import_module(f"contextlab.scale.{lab}").run(*functions)
    return {
        "made": device.made_by(),
        "limits": device.limits(),
        "rows": rows,
    }


def read(lab: str) -> Record:
    """Return what a lab has measured, of the latest date.

    Returns:
        ``made``, which says where, when and by what; ``limits``, what the
        device can do at most; ``rows``, one for each thing measured.

    Raises:
        FileNotFoundError: if nothing is recorded of this lab.
    """
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in DATA.glob(f"{lab}-*.json")
    ]
    if not records:
        raise FileNotFoundError(f"{DATA} holds no result of the {lab} lab")
    return max(records, key=lambda record: record["made"]["date"])


def write(lab: str, record: Record) -> Path:
    """Record what a lab has measured, in a file named after the device."""
    words = record["made"]["device"].lower().split()
    path = DATA / f"{lab}-{'-'.join(words)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def source(record: Record) -> str:
    """Say in a line where a result comes from."""
    made = record["made"]
    return f"{made['device']}, torch {made['torch']}, {made['date']}"

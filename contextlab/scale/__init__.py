"""The course's own code at scale: measured on a GPU, recorded for all others.

``python -m contextlab.scale`` runs the labs and, with ``--save``, writes
``book/_data/scale/LAB-DEVICE.json``; a page shows these files. A lab is a
module with ``FUNCTIONS``, the exercises that it measures, ``run``, which takes
them and returns or yields rows, and ``draw``, which makes the figure. One that
needs several GPUs says in ``GPUS`` how many.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "book" / "_data" / "scale"
LABS = ("quadratic", "flash", "kvcache", "mla", "sparse", "ring", "ssm")

Record = dict[str, Any]


def show(lab: str, *functions: Callable) -> None:
    """Draw a lab: measured here if there is a GPU, else as recorded.

    While an autograder runs the notebook, nothing is done.

    Args:
        lab: one of ``LABS``.
        functions: your answers to the exercises that it measures.
    """
    from contextlab.training import is_grading

    if is_grading():
        return
    here = can_measure(lab)
    record = measure(lab, *functions) if here else read(lab)
    import_module(f"contextlab.scale.{lab}").draw(record)


def can_measure(lab: str) -> bool:
    """Say whether this machine has the GPUs that a lab needs."""
    import torch

    module = import_module(f"contextlab.scale.{lab}")
    return torch.cuda.device_count() >= getattr(module, "GPUS", 1)


def measure(
    lab: str,
    *functions: Callable,
    keep: Callable[[Record], object] = lambda record: None,
) -> Record:
    """Run a lab on this device.

    Args:
        lab: as for ``show``.
        functions: as for ``show``.
        keep: is given the record after each row, in case there is no next.
    """
    from contextlab.scale import device

    record = {"made": device.made_by(), "limits": device.limits(), "rows": []}
    for row in import_module(f"contextlab.scale.{lab}").run(*functions):
        record["rows"].append(row)
        keep(record)
    return record


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
    gpus = max((row.get("gpus", 1) for row in record["rows"]), default=1)
    many = f"{gpus} × " if gpus > 1 else ""
    return f"{many}{made['device']}, torch {made['torch']}, {made['date']}"

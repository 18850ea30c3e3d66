"""Results that take too long for a page, recorded with how they came about."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def read(name: str) -> dict[str, Any]:
    """Return a recorded result: ``made`` says how, ``rows`` say what."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def write(name: str, script: str, rows: list[dict[str, Any]]) -> Path:
    """Record a result, with how it was made."""
    path = HERE / f"{name}.json"
    text = json.dumps({"made": made_by(script), "rows": rows}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def made_by(script: str) -> dict[str, Any]:
    """Say how a result came about: by what, where, with what and when."""
    return {
        "script": script,
        "device": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def processor() -> str:
    """Name this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [x.partition(":")[2].strip() for x in lines if "model name" in x]
    return names[0] if names else platform.machine()

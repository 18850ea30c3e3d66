"""Run every chapter's page from a cold kernel; record seconds and memory.

Run it from the root of the repository: python benchmarks/chapters.py
"""

import json
import os
import time
from pathlib import Path

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from autograder.chapters import Chapter, chapters
from contextlab.recorded import made_by

RECORD = Path(__file__).with_suffix(".json")
PEAK = "import resource; resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"


def run(chapter: Chapter) -> dict[str, str | float]:
    """Execute one chapter, reference answers and all, and measure."""
    notebook = chapter.for_page()
    notebook.cells.append(new_code_cell(PEAK))
    start = time.perf_counter()
    NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    seconds = time.perf_counter() - start
    peak_kib = int(notebook.cells[-1].outputs[0].data["text/plain"])
    return {
        "chapter": chapter.name,
        "seconds": round(seconds, 1),
        "peak_mib": round(peak_kib / 1024),
    }


if __name__ == "__main__":
    os.environ["CONTEXTLAB_PAGE"] = "1"
    rows = [run(chapter) for chapter in tqdm(chapters())]
    record = {"made": made_by("benchmarks/chapters.py"), "rows": rows}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['chapter']}: {row['seconds']} s, {row['peak_mib']} MiB")

"""The appendices: their figures, sources, terms, messages and links."""

import ast
import errno
import json
import math
import os
import re
import sqlite3
import statistics
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from pybtex.database import parse_file

from autograder.chapters import ROOT, Chapter, chapters
from autograder.prose import LABEL
from autograder.syllabus import Entry, arcs
from contextlab import recorded
from contextlab.published import MODELS
from contextlab.sharing import PUBLISHED

BOOK = ROOT / "book"
K = 1_024

TOC = re.findall(
    r"file: book/([\w-]+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")
)

# Every claim of the two articles, by its key; say so here before one goes.
KEYS = {
    "a-words", "a-three-lines", "a-pairs", "a-doubling", "a-million",
    "a-64gb", "a-mla", "a-infeasible", "a-yarn", "a-no-loss", "a-needle",
    "a-cache", "a-ceiling", "a-ring", "a-window", "a-globals", "a-mamba",
    "a-hybrid", "b-architecture", "b-gpt2", "b-pairs", "b-double", "b-gpt3",
    "b-gpt4", "b-sparse", "b-2018", "b-gemini",
}  # fmt: skip


def text(name: str) -> str:
    """Return the source of a page."""
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


@cache
def run(name: str) -> dict[str, Any]:
    """Run the cells of a page as the book does; return their names."""
    mpl.use("agg")
    names: dict[str, Any] = {"__name__": "page"}
    shown = []
    for cell in Chapter(BOOK / f"{name}.md").for_page().cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        *body, last = tree.body
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), name, "exec"), names)
            value = ast.Expression(last.value)
            shown.append(eval(compile(value, name, "eval"), names))
        else:
            exec(compile(tree, name, "exec"), names)
    names["shown"] = [s.data for s in shown if hasattr(s, "data")]
    return names


def labels() -> set[str]:
    """Return all labels of the book."""
    pages = [path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")]
    return {label for page in pages for label, _ in LABEL.findall(page)}


# --------------------------------------------------------------- The ledger


def test_every_claim_has_a_row_and_a_place_to_look_up() -> None:
    page = run("claims")
    assert set(page["CLAIMS"]) == KEYS
    table = "\n".join(page["shown"])
    for claim in page["CLAIMS"].values():
        assert claim.verdict in {"exact", "rounded", "corrected", "open"}
        assert claim.article == claim.key[0].upper()
        assert claim.ours
        assert claim.right
        assert claim.where in labels(), claim.where
        assert table.count(f"| {claim.article}: {claim.says} |") == 1


def rows_of(name: str, **wanted: object) -> list[dict]:
    """Return the rows of a record with these values."""
    rows = recorded.read(name)["rows"]
    return [r for r in rows if all(r[key] == v for key, v in wanted.items())]


def needles(mechanism: str, length: int) -> list[float]:
    """Return the mean recall of each seed at one of the lengths."""
    rows = rows_of("needle_grid", mechanism=mechanism)
    return [statistics.fmean(row["grid"][length]) for row in rows]


def expected() -> dict[str, tuple]:
    """Compute what the ledger computes, in another way."""
    n = 4_096
    layers = {"GPT-3": 96 * 96, "Llama": 32 * 8}
    short = [
        rows_of("stretching", way=way, tuned=tuned)
        for way, tuned in (("none", False), ("YaRN", True))
    ]
    memory = rows_of("needle_memory")
    gemma = 52 * min(K, K**2) + 10 * K**2
    pairs = [k * (k + 1) // 2 for k in (131_072, 262_144)]
    far = [k * (k + 1) // 2 for k in (131_072 - n, 262_144 - n)]
    return {
        "a-words": (98_304,),
        "a-pairs": tuple(math.comb(k, 2) for k in (10, 20, 100)),
        "a-doubling": (4, 4, 2, 16, 16, 4),
        "a-million": ((2**20 / 2**15) ** 2, (1e6 / 32e3) ** 2),
        "a-64gb": (64 * 2**30,),
        "a-mla": (32_768, 64),
        "a-infeasible": (
            4 * layers["GPT-3"] * 128 * 2**20,
            2 * 61 * 576 * 2**20,
            4 * layers["Llama"] * 128 * 2**20,
            4 * 16 * 128 * gemma,
        ),
        "a-no-loss": tuple(r["recall"][0] for rows in short for r in rows),
        "a-cache": (96 * 128 * 128 * 200_000 * 2, 1.2582912),
        "a-ceiling": (64 * 10**9 // 131_072, 64 * 10**9 // 2**34),
        "a-ring": (1, 1, 7 * 2**34),
        "a-window": ((pairs[1] - far[1]) / (pairs[0] - far[0]),),
        "a-globals": (0, 23, 10),
        "a-mamba": (
            2,
            *(
                max(r["recall"]["8"] for r in rows_of("recall", model=name))
                for name in ("attention", "state 64", "state 16", "state 4")
            ),
            *needles("state space", 1),
            *needles("full attention", 1),
        ),
        "a-hybrid": tuple(
            r["right"][way][-1]
            for way in ("window", "memory, k = 1", "full")
            for r in memory
        ),
        "b-architecture": (131_072, 131_072, 2_048),
        "b-gpt2": (1_024,),
        "b-pairs": (10**10,),
        "b-double": (4, 2),
        "b-gpt3": (2_048,),
        "b-gpt4": (32_768,),
        "b-2018": (10**6,),
        "b-gemini": (2**20, 2**20 * 3 / 2_000),
    }


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_ledger_computes_right(key: str) -> None:
    got = run("claims")["CLAIMS"][key].got
    if key in expected():
        assert got == pytest.approx(expected()[key], rel=1e-12)
    elif key == "a-three-lines":
        assert max(got) < 1e-12
    elif key == "a-yarn":
        low = 128 * math.log(4_096 / (64 * math.pi)) / (2 * math.log(1e4))
        high = 128 * math.log(4_096 / (2 * math.pi)) / (2 * math.log(1e4))
        assert got[0] == math.floor(low) + 1
        assert got[1] == 64 - math.ceil(high)
        assert got[2] == pytest.approx(0.1 * math.log(4) + 1)
    elif key == "b-sparse":
        n, w, full = K, 64, K * (K + 1) / 2
        assert got[0] == (n * w - w * (w - 1) / 2) / full
        assert got[1] == sum(i // 32 + 1 for i in range(n)) / full
        assert got[0] < got[2] < 0.25
    else:
        assert key == "a-needle"
        assert got[:2] == pytest.approx((5.34, 14.36), abs=0.01)
        assert got[2] == pytest.approx(0.5, abs=0.02)
        assert got[3:] == pytest.approx(
            (
                *needles("full attention", 1),
                *needles("full attention", 3),
                *needles("YaRN", 3),
                *needles("YaRN, then tuned", 3),
            )
        )


def test_verdicts_on_numbers_are_computed() -> None:
    judge = run("claims")["judge"]
    assert judge((45, 190), (45, 190)) == "exact"
    assert judge((1_000,), (1_024,)) == "rounded"
    assert judge((4, 4), (4, 2)) == "corrected"
    claims = run("claims")["CLAIMS"]
    verdicts = {key: claim.verdict for key, claim in claims.items()}
    assert verdicts["a-cache"] == verdicts["a-million"] == "rounded"
    assert verdicts["a-doubling"] == verdicts["b-gpt4"] == "corrected"
    assert verdicts["a-needle"] == verdicts["a-hybrid"] == "open"


@pytest.mark.parametrize("name", ["claims", "from-1k-to-millions"])
def test_a_page_is_run_anew_when_what_it_uses_changes(name: str) -> None:
    chapter = Chapter(BOOK / f"{name}.md")
    given = [
        c for c in chapter.for_page().cells
        if "given" in c.metadata.get("tags", [])
    ]  # fmt: skip
    assert given
    for cell in given:
        assert re.search(r"^def \w+\(", cell.source, re.MULTILINE)
        assert re.search(r"# contextlab [0-9a-f]{64}$", cell.source)
    used = {path.name for path in chapter.sources}
    assert {"quadratic.py", "published.py", "recall.json"} <= used


# ------------------------------------------------------ From 1K to millions


def test_every_model_says_where_its_numbers_are_from() -> None:
    known = parse_file(str(BOOK / "references.bib")).entries
    years = [model.year for model in MODELS.values()]
    assert years == sorted(years)
    for model in MODELS.values():
        assert model.cite in known
        assert model.source
        assert int(known[model.cite].fields["year"]) == int(model.year)
        assert model.sizes or "not published" in model.mechanism


def test_models_agree_with_the_chapters() -> None:
    cell = re.search(r"^MODELS = (\{.*?^\})", text("08-kvcache"), re.M | re.S)
    theirs = ast.literal_eval(re.sub(r"#.*", "", cell[1]))
    names = {"GPT-3": "GPT-3 175B"}
    shared = 0
    for name, sizes in theirs.items():
        ours = MODELS.get(names.get(name, name))
        if ours:
            s = ours.sizes
            assert (s.layers, s.heads, s.kv_heads, s.width) == sizes, name
            shared += 1
    for name, kept in PUBLISHED.items():
        ours = MODELS.get(names.get(name, name))
        if ours:
            s = ours.sizes
            assert (s.layers, s.heads, s.width) == (
                kept.layers, kept.heads, kept.width,
            ), name  # fmt: skip
            if kept.way == "GQA":
                assert s.kv_heads == kept.shared
            if kept.way == "MLA":
                assert (s.latent, s.rope) == (kept.latent, kept.rope)
            shared += 1
    assert shared >= 8


def test_models_agree_with_the_defaults_of_transformers() -> None:
    from transformers import DeepseekV3Config, JambaConfig, MistralConfig

    mistral, sizes = MistralConfig(), MODELS["Mistral 7B v0.1"].sizes
    assert sizes.local == (1, 0, mistral.sliding_window)
    assert (sizes.layers, sizes.heads, sizes.kv_heads) == (
        mistral.num_hidden_layers,
        mistral.num_attention_heads,
        mistral.num_key_value_heads,
    )
    jamba, sizes = JambaConfig(), MODELS["Jamba v0.1"].sizes
    assert MODELS["Jamba v0.1"].window == jamba.max_position_embeddings
    assert (sizes.layers, sizes.kv_heads, sizes.inner, sizes.state) == (
        jamba.num_hidden_layers,
        jamba.num_key_value_heads,
        jamba.mamba_expand * jamba.hidden_size,
        jamba.mamba_d_state,
    )
    assert sizes.attention == (
        jamba.attn_layer_period,
        jamba.attn_layer_offset,
    )
    deepseek, sizes = DeepseekV3Config(), MODELS["DeepSeek-V3"].sizes
    assert (sizes.layers, sizes.heads, sizes.latent, sizes.rope) == (
        deepseek.num_hidden_layers,
        deepseek.num_attention_heads,
        deepseek.kv_lora_rank,
        deepseek.qk_rope_head_dim,
    )


def test_costs_of_models() -> None:
    costs = run("from-1k-to-millions")["costs"]
    half = {n: n * (n + 1) // 2 for n in (2_048, 8_192, 131_072, 262_144)}
    gpt3 = costs["GPT-3 175B"]
    assert gpt3["token"] == 2 * 2 * 96 * 96 * 128
    assert gpt3["window"] == gpt3["token"] * 2_048
    assert gpt3["flops"] == 4 * 96 * 12_288 * half[2_048]
    mistral = costs["Mistral 7B v0.1"]
    assert mistral["token"] == 4 * 32 * 8 * 128
    assert mistral["window"] == mistral["token"] * 4_096
    hidden = 4_096 * 4_097 // 2
    assert mistral["flops"] == 4 * 32 * 4_096 * (half[8_192] - hidden)
    deepseek = costs["DeepSeek-V2"]
    assert deepseek["token"] == 2 * 60 * 576
    assert deepseek["flops"] == 60 * half[131_072] * 2 * 128 * (192 + 128)
    gemma = costs["Gemma 3 27B"]
    assert gemma["window"] == 4 * 16 * 128 * (10 * 131_072 + 52 * 1_024)
    jamba = costs["Jamba v0.1"]
    state = 2 * 28 * 8_192 * 20
    assert jamba["window"] == state + 4 * 4 * 8 * 128 * 262_144
    assert jamba["flops"] == (
        4 * 4 * 4_096 * half[262_144] + 28 * 6 * 8_192 * 16 * 262_144
    )
    assert costs["Mamba 2.8B"]["window"] == 2 * 64 * 5_120 * 20
    assert "GPT-4" not in costs
    assert "Gemini 3 Pro" not in costs
    # what the text says
    llama = costs["Llama 3.1 8B"]
    assert gpt3["token"] / llama["token"] == 36
    assert deepseek["token"] < llama["token"]


def test_what_is_unknown_stays_unknown() -> None:
    table = next(x for x in run("from-1k-to-millions")["shown"] if "Year" in x)
    lines = {line.split(" {")[0][2:]: line for line in table.splitlines()[2:]}
    assert list(lines) == list(MODELS)
    for name in ("GPT-4", "GPT-4 Turbo", "Gemini 1.5 Pro", "Gemini 3 Pro"):
        assert lines[name].count("not published |") >= 3


# ------------------------------------------------------------- The glossary


def test_terms_are_unique_and_lead_to_every_chapter() -> None:
    block = re.search(r"```\{glossary\}\n(.*?)\n```", text("glossary"), re.S)
    entries = [entry.split("\n", 1) for entry in block[1].split("\n\n")]
    terms = [term for term, _ in entries]
    assert 60 <= len(terms) <= 90
    assert len({t.lower() for t in terms}) == len(terms)
    for one, other in pairwise(terms):
        assert one.lower() < other.lower(), f"{one}, then {other}"
    linked = set()
    for term, says in entries:
        found = re.findall(r"\{ref\}`ch-(\w+)`$", says)
        assert len(found) == 1, term
        linked |= set(found)
    missing = {c.name for c in chapters() if c.stem in TOC} - linked
    assert not missing, f"no term leads to {', '.join(missing)}"


def test_the_appendices_stand_in_order() -> None:
    assert TOC[-8:] == [
        "syllabus", "claims", "from-1k-to-millions", "glossary",
        "troubleshooting", "instructors-guide", "mistakes", "bibliography",
    ]  # fmt: skip


# ------------------------------------------------------------- The syllabus


def test_the_syllabus_has_an_entry_for_every_chapter() -> None:
    found = re.findall(
        r"```\{chapter-entry\} (\w+)\n(.*?)\n```", text("syllabus"), re.S
    )
    known = [chapter.name for chapter in chapters()]
    assert [name for name, _ in found if name in known] == known
    for name, objectives in found:
        assert 3 <= objectives.count("\n- ") + 1 <= 5, name


def test_what_chapters_build_on_is_read_off_them() -> None:
    entries = {c.name: Entry(c) for c in chapters()}
    assert entries["tokens"].uses == entries["tokens"].mentions == []
    assert entries["mla"].uses == ["attention", "multihead"]
    assert entries["ring"].uses == ["flash"]
    assert entries["yarn"].uses == ["rope"]
    for entry in entries.values():
        assert not set(entry.uses) & set(entry.mentions)
        assert 60 <= entry.minutes <= 150
        shown = entry.exercises()
        assert [e["name"] for e in shown] == [
            e.name for e in entry.chapter.exercises
        ]
        points = sum(int(e["points"]) for e in shown)
        assert points == entry.chapter.max_points
    figure = arcs(list(entries.values()))
    assert figure.count("<circle") == len(entries)
    assert figure.count('class="uses"') == sum(
        len(e.uses) for e in entries.values()
    )
    assert "mla builds on attention, multihead" in figure


# ------------------------------------------------------------ Troubleshooting

MESSAGES = re.findall(r"```text\n(.*?)\n```", text("troubleshooting"), re.S)
ELSEWHERE = (  # messages of libraries: where they are written
    "jupyter_server/serverapp.py",
    "pip/_internal/resolution/resolvelib/factory.py",
)


def by_python(code: str) -> str:
    """Return what Python says of a line, without the course installed."""
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1]


def locked(folder: Path) -> str:
    """Return what SQLite says of a database that another holds."""
    path = folder / "gradebook.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(sqlite3.OperationalError) as error:
        sqlite3.connect(path, timeout=0).execute("create table t (x)")
    holder.close()
    return str(error.value)


@cache
def templates() -> str:
    """Return all strings of the code, with … for what is filled in."""
    folders = ("autograder", "tests")
    paths = [p for f in folders for p in (ROOT / f).rglob("*.py")]
    paths = [path for path in paths if path != Path(__file__)]
    for root in map(Path, sys.path):
        paths += [root / x for x in ELSEWHERE if (root / x).is_file()]
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(
                node.value, str
            ):
                found.append(re.sub(r"%[is]", "…", node.value))
    return "\n".join(found)


@cache
def scripts() -> str:
    """Return JupyterLab's and its widgets' scripts, with … for variables."""
    share = Path(sys.prefix) / "share" / "jupyter"
    paths = [
        *share.glob("lab/static/*.js"),
        *share.glob("labextensions/@jupyter-widgets/**/*.js"),
    ]
    code = "\n".join(p.read_text("utf-8", "replace") for p in paths)
    return re.sub(r"%1|'?\$\{\w+\}'?", "…", code)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_that_the_code_gives(
    message: str, tmp_path: Path
) -> None:
    if message.startswith("ModuleNotFoundError"):
        assert by_python("import contextlab") == message
    elif message.startswith("NameError"):
        said = by_python("softmax(1)")
        assert said.replace("'softmax'", "…") == message
    elif message == "NotImplementedError":
        assert by_python("raise NotImplementedError") == message
    elif message == "No space left on device":
        assert os.strerror(errno.ENOSPC) == message
    elif message.startswith("error: needs Python"):
        assert message in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif "database is locked" in message:
        said = locked(tmp_path)
        assert said in message
        assert message.replace(said, "…") in templates()
    elif "appears to have died" in message or "model class" in message:
        assert message in scripts()
    else:
        assert message in templates(), message


def test_what_the_page_says_of_memory() -> None:
    record = json.loads((ROOT / "benchmarks/chapters.json").read_text())
    assert max(row["peak_mib"] for row in record["rows"]) < K
    assert "stay below 1 GiB" in text("troubleshooting")

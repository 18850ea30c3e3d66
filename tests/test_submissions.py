"""What strangers hand in is read, and mended where it can be."""

import json
import os
import socket
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from autograder.chapters import chapters, find
from autograder.errors import CourseError
from autograder.intake import find_notebook
from autograder.sample_class import reference_answers
from autograder.submissions import plain, read

CHAPTER = find("attention")
GIVING = find("multihead")  # a chapter that gives code
FIRST, SECOND = (exercise.name for exercise in CHAPTER.exercises[:2])
CHECK = CHAPTER.exercises[0].checks[0].name
GIVEN = next(
    cell.metadata.nbgrader.grade_id
    for cell in GIVING.for_student().cells
    if "given" in cell.metadata.get("tags", [])
)


class Notebook:
    """A student's notebook, rightly answered, for a test to spoil."""

    def __init__(self, chapter, folder):
        self.chapter, self.path = chapter, folder / f"{chapter.stem}.ipynb"
        self.node = chapter.for_student()
        self.cells = self.node.cells
        self.answers = reference_answers(chapter)
        for name, source in self.answers.items():
            self.cell(name).source = source

    def at(self, name):
        """Return where the cell with nbgrader's name stands."""
        marks = [c.metadata.get("nbgrader", {}) for c in self.cells]
        return [m.get("grade_id") for m in marks].index(name)

    def cell(self, name):
        """Return the cell with nbgrader's name."""
        return self.cells[self.at(name)]

    def blank(self, name):
        """Return the cell as it was released."""
        cells = self.chapter.for_student().cells
        return deepcopy(cells[self.at(name)])

    def read(self):
        """Hand it in, as it is, and have it read."""
        self.path.write_text(json.dumps(self.node), encoding="utf-8")
        return read(self.chapter, self.path)


@pytest.fixture
def notebook(tmp_path):
    return Notebook(CHAPTER, tmp_path)


@pytest.fixture
def giving(tmp_path):
    return Notebook(GIVING, tmp_path)


def sources(handed_in):
    return [cell.source for cell in handed_in.cells]


def where(handed_in, text):
    """Return where a text stands among what runs; it stands there once."""
    found = [n for n, s in enumerate(sources(handed_in)) if text in s]
    assert len(found) == 1, (text, found)
    return found[0]


def graded(handed_in):
    """Return the cells of the mended notebook by nbgrader's name."""
    return {
        cell.metadata.nbgrader.grade_id: cell
        for cell in handed_in.notebook.cells
        if "nbgrader" in cell.metadata
    }


def has_all(handed_in, chapter):
    """Say whether every reference answer is what runs and what is kept."""
    answers = reference_answers(chapter)
    kept = graded(handed_in)
    return set(answers.values()) <= set(sources(handed_in)) and all(
        kept[name].source == source for name, source in answers.items()
    )


# -------------------------------------------------------------------- Mending
@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
def test_an_orderly_notebook_needs_no_mending(chapter, tmp_path):
    handed_in = Notebook(chapter, tmp_path).read()
    assert handed_in.flags == []
    assert has_all(handed_in, chapter)
    full = chapter.for_grader().cells
    assert len(handed_in.notebook.cells) == len(full)
    for kept, original in zip(handed_in.notebook.cells, full, strict=True):
        assert kept.metadata == original.metadata
        if original.metadata.get("nbgrader", {}).get("grade"):
            assert kept.source == original.source
    nbformat.validate(handed_in.notebook)


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
def test_what_runs_is_no_check_and_of_experiments_the_definitions(
    chapter, tmp_path
):
    handed_in = Notebook(chapter, tmp_path).read()
    assert not any("def test_" in source for source in sources(handed_in))
    plots = [c for c in handed_in.cells if "plt." in c.source]
    assert plots
    assert all(cell.definitions_only for cell in plots)
    assert not any(
        cell.definitions_only
        for cell in handed_in.cells
        if cell.source in reference_answers(chapter).values()
    )


def test_an_edited_check_is_restored_and_told(notebook):
    notebook.cell(CHECK).source = 'print("Passed.")'
    handed_in = notebook.read()
    assert [f for f in handed_in.flags if "Edited" in f and CHECK in f]
    original = notebook.chapter.for_grader().cells[notebook.at(CHECK)]
    assert graded(handed_in)[CHECK].source == original.source
    assert not any("Passed" in source for source in sources(handed_in))


def test_an_edited_check_without_marks_is_known_by_its_name(notebook):
    cell = notebook.cell(CHECK)
    cell.source = f"def {CHECK}():\n    pass"
    cell.metadata, cell.id = {}, "another"
    handed_in = notebook.read()
    assert [f for f in handed_in.flags if "Edited" in f and CHECK in f]
    assert not any(CHECK in source for source in sources(handed_in))


def test_given_code_is_restored_where_it_belongs(giving):
    original = giving.cell(GIVEN).source
    giving.cell(GIVEN).source = "def softmax(x):\n    return x"
    edited = giving.read()
    assert [f for f in edited.flags if "Edited" in f and "softmax" in f]
    del giving.cells[giving.at(GIVEN)]
    deleted = giving.read()
    assert [f for f in deleted.flags if "Deleted" in f and "softmax" in f]
    first = giving.chapter.exercises[0].name
    for handed_in in (edited, deleted):
        assert graded(handed_in)[GIVEN].source == original
        assert where(handed_in, original) < where(handed_in, f"def {first}(")


def test_given_code_comes_first_though_it_was_moved_to_the_end(giving):
    giving.cells.append(giving.cells.pop(giving.at(GIVEN)))
    handed_in = giving.read()
    first = giving.chapter.exercises[0].name
    assert where(handed_in, "def causal_mask(") < where(
        handed_in, f"def {first}("
    )
    assert handed_in.flags == ["The cells stand in another order."]


def test_deleted_checks_are_put_back(notebook):
    del notebook.cells[notebook.at(CHECK)]
    handed_in = notebook.read()
    assert [f for f in handed_in.flags if "Deleted" in f and CHECK in f]
    names = list(graded(handed_in))
    assert names.index(CHECK) == names.index(FIRST) + 1


def test_reordering_costs_nothing(notebook):
    notebook.cells.reverse()
    handed_in = notebook.read()
    assert handed_in.flags == ["The cells stand in another order."]
    assert has_all(handed_in, CHAPTER)
    assert list(graded(handed_in)) == [
        cell.metadata.nbgrader.grade_id
        for cell in CHAPTER.for_grader().cells
        if "nbgrader" in cell.metadata
    ]


def test_an_empty_copy_never_overrides_an_answer(notebook):
    stub = notebook.blank(FIRST)
    notebook.cells.insert(0, deepcopy(stub))
    notebook.cells.append(stub)
    handed_in = notebook.read()
    assert has_all(handed_in, CHAPTER)
    assert not any("NotImplementedError" in s for s in sources(handed_in))
    assert [f for f in handed_in.flags if "empty copy" in f and FIRST in f]


def test_a_blank_exercise_runs_its_stub(notebook):
    notebook.cell(FIRST).source = notebook.blank(FIRST).source
    handed_in = notebook.read()
    stub = sources(handed_in)[where(handed_in, f"def {FIRST}(")]
    assert "NotImplementedError" in stub
    assert handed_in.flags == []


def test_of_two_answers_the_last_counts(notebook):
    second = deepcopy(notebook.cell(FIRST))
    second.source = f"def {FIRST}(x, dim=-1):\n    return 'second'"
    notebook.cells.insert(notebook.at(CHECK), second)
    handed_in = notebook.read()
    assert where(handed_in, "'second'") > where(
        handed_in, notebook.answers[FIRST]
    )
    assert graded(handed_in)[FIRST].source == second.source
    kept = [c.source for c in handed_in.notebook.cells]
    assert kept.count(notebook.answers[FIRST]) == 1
    assert [f for f in handed_in.flags if "more than once" in f and FIRST in f]


def test_both_halves_of_a_split_answer_run(notebook):
    helper = deepcopy(notebook.cell(FIRST))
    helper.source = "def helper():\n    return 1"
    notebook.cells.insert(notebook.at(CHECK), helper)
    handed_in = notebook.read()
    assert has_all(handed_in, CHAPTER)
    assert where(handed_in, "def helper") > where(handed_in, f"def {FIRST}(")
    assert handed_in.flags == []


def test_an_answer_in_a_cell_of_its_own_counts(notebook):
    answer = notebook.cell(FIRST).source
    notebook.cell(FIRST).source = notebook.blank(FIRST).source
    notebook.cells.append(new_code_cell(answer))
    handed_in = notebook.read()
    assert has_all(handed_in, CHAPTER)
    assert not any("NotImplementedError" in s for s in sources(handed_in))


def test_a_name_that_is_assigned_is_answered_too(notebook):
    notebook.cell(FIRST).source = notebook.blank(FIRST).source
    notebook.cells.insert(0, new_code_cell(f"{FIRST} = lambda x: x"))
    handed_in = notebook.read()
    assert not any("NotImplementedError" in s for s in sources(handed_in))


def test_copied_marks_of_a_check_take_no_answer_away(notebook):
    notebook.cell(FIRST).metadata = deepcopy(notebook.cell(CHECK).metadata)
    handed_in = notebook.read()
    assert has_all(handed_in, CHAPTER)


def test_swapped_marks_of_two_answers_are_put_right(notebook):
    one, other = notebook.cell(FIRST), notebook.cell(SECOND)
    one.metadata, other.metadata = other.metadata, one.metadata
    assert has_all(notebook.read(), CHAPTER)


def test_stripped_metadata_cost_nothing(notebook):
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"new-{number}"
    handed_in = notebook.read()
    assert has_all(handed_in, CHAPTER)
    assert not any("def test_" in source for source in sources(handed_in))
    assert len(handed_in.notebook.cells) == len(CHAPTER.for_grader().cells)
    assert len(handed_in.flags) == 1
    assert "without nbgrader's marks" in handed_in.flags[0]


def test_doubled_checks_count_once(notebook):
    notebook.cells.append(deepcopy(notebook.cell(CHECK)))
    handed_in = notebook.read()
    assert [f for f in handed_in.flags if "twice" in f and CHECK in f]
    assert len(handed_in.notebook.cells) == len(CHAPTER.for_grader().cells)


def test_own_cells_run_and_stay_behind_what_they_followed(notebook):
    at = notebook.at(SECOND) + 1
    notebook.cells.insert(at, new_code_cell("mine = 1"))
    notebook.cells.insert(at + 1, new_markdown_cell("A thought."))
    handed_in = notebook.read()
    assert where(handed_in, "mine") == 1 + where(handed_in, f"def {SECOND}(")
    kept = handed_in.notebook.cells
    assert kept[at].source == "mine = 1"
    assert kept[at + 1].source == "A thought."
    assert "nbgrader" not in kept[at].metadata
    assert len({cell.id for cell in kept}) == len(kept)
    assert handed_in.flags == []


def test_another_chapters_notebook_is_told(notebook):
    notebook.read()
    handed_in = read(GIVING, notebook.path)
    assert handed_in.flags == [
        "No cell of this chapter is in it: is it another chapter?"
    ]


# --------------------------------------------------------------------- Magics
@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("!pip install a 'b\nx = 1", "pass\nx = 1"),
        ("!pip install \\\n  torch\nx = 1", "pass\n\nx = 1"),
        ("def f():\n    %time g()\n", "def f():\n    pass\n"),
        ("x = (a\n% n)\n%time x", "x = (a\n% n)\npass"),
        ("x = a \\\n% n", "x = a \\\n% n"),
        ('x = """\n%not a magic\n"""', 'x = """\n%not a magic\n"""'),
        ("x = '''\n!\n'''\n!ls", "x = '''\n!\n'''\npass"),
        ("# it's (\n%time f()", "# it's (\npass"),
        ("x = 'it\\'s ('\n%time f()", "x = 'it\\'s ('\npass"),
        ("%%time\nx = 1", "x = 1"),
        ("\n%%timeit -n 1\n%%capture out\nx = 1", "x = 1"),
        ("%%bash\nrm -rf /", ""),
        ("  x = 1\n  y = 2", "x = 1\ny = 2"),
        ("a = b\n    % c", "a = b\n    pass"),
    ],
)
def test_magics(source, runs):
    assert plain(source) == runs


def test_magics_in_an_answer_cost_nothing(notebook):
    answer = notebook.cell(FIRST).source
    notebook.cell(FIRST).source = f"%%time\n{answer}"
    notebook.cells.append(new_code_cell("%%bash\necho hello"))
    handed_in = notebook.read()
    assert answer in sources(handed_in)
    assert not any("echo" in source for source in sources(handed_in))
    assert graded(handed_in)[FIRST].source.startswith("%%time")
    assert ["no Python" in flag for flag in handed_in.flags] == [True]


# -------------------------------------------------------------------- Outputs
def test_small_outputs_stay_and_scripts_do_not(notebook):
    script = "<svg><script>alert(1)</script></svg>"
    notebook.cell(FIRST).outputs = [
        new_output("stream", text="printed"),
        new_output("display_data", {"text/html": "<b>", "text/plain": "b"}),
        new_output("display_data", {"image/svg+xml": script}),
        new_output("error", ename="E", evalue="e", traceback=["line"]),
    ]
    kept = graded(notebook.read())[FIRST].outputs
    assert [output.output_type for output in kept] == [
        "stream",
        "display_data",
        "error",
    ]
    assert kept[1].data == {"text/plain": "b"}
    nbformat.validate(notebook.read().notebook)


def test_large_outputs_are_dropped_and_told(notebook):
    flood = new_output("stream", text="x" * 300_000)
    notebook.cell(FIRST).outputs = [flood]
    some = new_output("stream", text="x" * 150_000)
    notebook.cells += [new_code_cell("f()", outputs=[some]) for _ in range(20)]
    handed_in = notebook.read()
    assert len(nbformat.writes(handed_in.notebook)) < 3_000_000
    assert [flag for flag in handed_in.flags if "outputs of 8 cells" in flag]


# ------------------------------------------------------------- Odd and broken
def test_encodings(notebook):
    notebook.cell(FIRST).source += "\n# Grüße"
    handed_in = notebook.read()
    text = json.dumps(notebook.node, ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        notebook.path.write_bytes(text.encode(encoding, "replace"))
        other = read(CHAPTER, notebook.path)
        assert sources(other)[where(other, f"def {FIRST}(")].endswith("Grüße")
        assert ["not as UTF-8" in flag for flag in other.flags][:1] == [True]
    assert handed_in.flags == []


def test_old_formats_are_converted(notebook):
    old = nbformat.convert(notebook.node, 3)
    notebook.path.write_text(nbformat.v3.writes_json(old))
    handed_in = read(CHAPTER, notebook.path)
    assert has_all(handed_in, CHAPTER)
    assert "old format" in handed_in.flags[0]


@pytest.mark.parametrize(
    "kernel", [{"name": "ir", "language": "R"}, {"name": 3}, "ir", [1]]
)
def test_another_kernel_is_told(notebook, kernel):
    raw = json.loads(nbformat.writes(notebook.node))
    raw["metadata"] = {"kernelspec": kernel}
    notebook.path.write_text(json.dumps(raw))
    handed_in = read(CHAPTER, notebook.path)
    assert has_all(handed_in, CHAPTER)
    assert ["kernel" in flag for flag in handed_in.flags] == [True]


BROKEN = [
    3,
    None,
    "a cell",
    [],
    {"cell_type": "code", "source": {"a": 1}},
    {"cell_type": ["code"], "source": ""},
    {"cell_type": "poem", "source": "x"},
]
ODD = [
    {},
    {"cell_type": "code"},
    {"cell_type": "code", "source": 17, "outputs": 3, "metadata": []},
    {"cell_type": "code", "source": ["a = 1\n", 2, "b"], "outputs": [1, {}]},
    {"cell_type": "code", "source": "'\ud800\0'", "id": 9},
    {"cell_type": "code", "source": "x", "metadata": {"nbgrader": "no"}},
    {
        "cell_type": "code",
        "source": "y",
        "metadata": {"nbgrader": {"grade_id": []}},
    },
    {"cell_type": "code", "source": "z", "outputs": [{"output_type": []}]},
    {
        "cell_type": "code",
        "source": "z",
        "outputs": [{"output_type": "stream", "text": {}}],
    },
    {"cell_type": "heading", "level": "x", "source": "t"},
]


def test_broken_cells_cost_themselves(notebook):
    raw = json.loads(nbformat.writes(notebook.node))
    raw["cells"] = [*BROKEN, *raw["cells"], *ODD]
    del raw["metadata"], raw["nbformat"]
    notebook.path.write_text(json.dumps(raw))
    handed_in = read(CHAPTER, notebook.path)
    assert has_all(handed_in, CHAPTER)
    assert f"{len(BROKEN)} cells could not be read." in handed_in.flags
    nbformat.validate(handed_in.notebook)
    json.dumps(handed_in.notebook, ensure_ascii=False).encode()


def test_a_number_too_long_for_python_costs_nothing(notebook):
    text = nbformat.writes(notebook.node)
    digits = "9" * 10_000
    notebook.path.write_text(text.replace("{", f'{{"n": {digits},', 1))
    assert has_all(read(CHAPTER, notebook.path), CHAPTER)


def test_zero_bytes_cost_nothing(notebook):
    text = nbformat.writes(notebook.node)
    notebook.path.write_text(text + "\0" * 4096)
    handed_in = read(CHAPTER, notebook.path)
    assert has_all(handed_in, CHAPTER)
    assert "zero bytes" in handed_in.flags[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\0" * 4096, "it is empty"),
        (b"PK\x03\x04\xff\xfe", "is not a notebook"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"cells":' * 100_000, "nested too deeply"),
        (b"[]", "it is no JSON object"),
        (b'{"cells": 3}', "it has no list of cells"),
        (b'{"worksheets": 3}', "it has no list of cells"),
        (b'{"cells": [' + b"{}," * 20_000 + b"{}]}", "more than 10,000 cells"),
        (b'{"cells": [' + b"[]," * 6_000_000 + b"{}]}", "millions of values"),
    ],
    ids=range(10),
)
def test_what_is_no_notebook_is_one_sentence(tmp_path, content, says):
    path = tmp_path / "02-attention.ipynb"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=says) as caught:
        read(CHAPTER, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large_a_file_is_not_even_opened(tmp_path):
    path = tmp_path / "02-attention.ipynb"
    with path.open("wb") as file:
        file.truncate(10 * 2**40)  # sparse: takes no room
    with pytest.raises(CourseError, match="200 are allowed"):
        read(CHAPTER, path)


@pytest.mark.parametrize("lines", [1, 4_500_000], ids=["one", "many"])
def test_a_flood_of_output_is_no_reason_to_refuse(notebook, lines):
    text = ['1, 2, [3], {"outputs": []}' * (4_500_000 // lines)] * lines
    flood = {"output_type": "stream", "name": "stdout", "text": text}
    notebook.cell(FIRST).outputs = [flood]
    handed_in = notebook.read()
    assert notebook.path.stat().st_size > 100 * 2**20
    assert has_all(handed_in, CHAPTER)
    assert handed_in.flags == [
        "The outputs are not kept: the file is too large."
    ]


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_what_is_no_file_is_said_at_once(tmp_path, kind, monkeypatch):
    path = tmp_path / "02-attention.ipynb"
    monkeypatch.chdir(tmp_path)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(CourseError, match=f"is a {kind}"):
        read(CHAPTER, path)


# -------------------------------------------------------------------- Finding
NAME = "02-attention.ipynb"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "submitted" / "ada" / "attention"
    made.mkdir(parents=True)
    return made


def test_the_notebook_is_found_among_other_files(folder):
    for name in (NAME, "02-attention (1).ipynb", "notes.txt", ".DS_Store"):
        folder.joinpath(name).touch()
    assert find_notebook(folder, NAME) == (folder / NAME, [])


@pytest.mark.parametrize("name", ["02-attention (1).ipynb", "My'[a].IPYNB"])
def test_a_renamed_notebook_is_found_and_told(folder, name):
    folder.joinpath(name).touch()
    folder.joinpath("._" + name).touch()  # what macOS leaves behind
    path, flags = find_notebook(folder, NAME)
    assert path == folder / name
    assert ["is named" in flag for flag in flags] == [True]


def test_a_folder_that_holds_the_notebook(folder):
    inner = folder / NAME
    inner.mkdir()
    inner.joinpath("mine.ipynb").touch()
    path, flags = find_notebook(folder, NAME)
    assert path == inner / "mine.ipynb"
    assert ["is a folder" in flag for flag in flags] == [True]
    inner.joinpath("other.ipynb").touch()
    with pytest.raises(CourseError, match=r"mine\.ipynb, other\.ipynb"):
        find_notebook(folder, NAME)


def test_none_and_several_are_listed(folder):
    with pytest.raises(CourseError, match=f"{NAME} is missing$"):
        find_notebook(folder, NAME)
    folder.joinpath("a.docx").touch()
    with pytest.raises(CourseError, match=r"found a\.docx"):
        find_notebook(folder, NAME)
    for name in ("b.ipynb", "c\n\x1b[31m.ipynb"):
        folder.joinpath(name).touch()
    with pytest.raises(CourseError, match="2 other notebooks: b") as caught:
        find_notebook(folder, NAME)
    assert str(caught.value).isprintable()


def test_links_stay_within_the_students_folder(folder, tmp_path):
    other = tmp_path / "submitted" / "bob" / "attention"
    other.mkdir(parents=True)
    other.joinpath(NAME).write_text("{}")
    link = folder / NAME
    for target, says in [
        (other / NAME, "leads out"),
        ("/etc/passwd", "leads out"),
        (NAME, "leads nowhere"),  # to itself
        ("nothing", "leads nowhere"),
    ]:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(CourseError, match=says):
            find_notebook(folder, NAME)
    link.unlink()
    folder.joinpath("real.ipynb").touch()
    link.symlink_to("real.ipynb")
    assert find_notebook(folder, NAME)[0] == link
    link.unlink()
    folder.joinpath("real.ipynb").unlink()
    folder.rmdir()
    folder.symlink_to(other)
    with pytest.raises(CourseError, match="leads out"):
        find_notebook(folder, NAME)

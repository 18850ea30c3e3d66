"""What is no notebook, or no longer the one that was handed out."""

import gzip
import json
import os
import socket
from copy import deepcopy

from nbformat.v4 import new_markdown_cell, new_output

from tests.hostile.corpus import CHAPTER, EVERYTHING, NAMES, case, name_of

NOTEBOOK = f"{CHAPTER.stem}.ipynb"
UNREADABLE = "not a notebook that can be read|could not be read"
TOO_LARGE = "large|MB|MiB"


def instead(student: str, content: str | bytes, does: str) -> None:
    """Add a case that hands in a file of another content."""

    def write(work):
        work.write(NOTEBOOK, content)

    write.__doc__ = does
    case(loses=EVERYTHING, says=UNREADABLE, student=student, by_hand=True)(
        write
    )


for student, content, does in (
    ("white-space", " \n", "A file of white space."),
    ("bad-json", '{"cells": [', "JSON that is cut off."),
    ("a-number", "42", "JSON that is a number."),
    ("a-list", "[[], {}]", "JSON that is a list."),
    ("null", "null", "JSON that is null."),
    ("an-object", "{}", "JSON without cells."),
    ("no-cells", '{"metadata": {}, "nbformat": 4}', "No list of cells."),
    (
        "cells-are-a-number",
        '{"cells": 5, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        "The list of cells is a number.",
    ),
    (
        "cells-are-no-cells",
        '{"cells": [null, 1, []], "metadata": null, "nbformat": 4, '
        '"nbformat_minor": 5}',
        "The cells are null, a number and a list.",
    ),
    ("deep-json", "[" * 1_000_000, "JSON that nests a million lists."),
    (
        "deep-object",
        '{"cells":' * 100_000 + "1" + "}" * 100_000,
        "JSON that nests a hundred thousand objects.",
    ),
    ("no-text", bytes(range(256)) * 100, "Bytes that are no text."),
    (
        "a-page",
        "<!DOCTYPE html><title>Log in</title>" + "<p>Please log in.</p>" * 99,
        "The page of a learning platform that asks to log in.",
    ),
    ("a-pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "A PDF under its name."),
    (
        "a-program",
        b"\x7fELF\x02\x01\x01" + bytes(1000),
        "A program under its name.",
    ),
):
    instead(student, content, does)


@case(loses=EVERYTHING, says="empty", by_hand=True)
def an_empty_file(work):
    """A file of no bytes."""
    work.path.touch()


@case(loses=EVERYTHING, says=UNREADABLE, by_hand=True)
def a_zipped_notebook(work):
    """The right notebook, compressed, under its own name."""
    work.write(NOTEBOOK, gzip.compress(work.text().encode()))


@case(loses=EVERYTHING, says="No cell of this chapter", by_hand=True)
def another_notebook(work):
    """A notebook without cells, of a format with 100,000 digits."""
    start = '{"cells": [], "metadata": {}, "nbformat": '
    work.write(NOTEBOOK, start + "4" * 100_000 + "}")


@case(loses=EVERYTHING, says="cells", by_hand=True)
def too_many_cells(work):
    """A million empty cells."""
    cell = '{"cell_type":"code","source":""}'
    work.write(NOTEBOOK, '{"cells":[' + ",".join([cell] * 1_000_000) + "]}")


@case(loses=EVERYTHING, says=TOO_LARGE, by_hand=True)
def a_huge_file(work):
    """A file of 20 GiB, all of it zeros."""
    with work.path.open("wb") as file:
        file.truncate(20 << 30)


# --- what is no file, or another's ----------------------------------------


@case(loses=EVERYTHING, says="missing", by_hand=True)
def an_empty_folder(work):
    """Nothing at all is handed in."""


@case(loses=EVERYTHING, says="folder|missing", by_hand=True)
def a_directory(work):
    """A folder has the notebook's name."""
    work.path.mkdir()


@case(loses=EVERYTHING, says="a pipe", by_hand=True)
def a_pipe(work):
    """A named pipe has the notebook's name, and nobody writes to it."""
    os.mkfifo(work.path)


@case(loses=EVERYTHING, says="a socket", by_hand=True)
def a_socket(work):
    """A socket has the notebook's name."""
    here = os.open(work.folder, os.O_RDONLY)
    socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{here}/{NOTEBOOK}")
    os.close(here)


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_to_zeros(work):
    """A symbolic link leads to /dev/zero."""
    work.path.symlink_to("/dev/zero")


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_to_nothing(work):
    """A symbolic link leads nowhere."""
    work.path.symlink_to("nowhere")


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_to_itself(work):
    """A symbolic link leads to itself."""
    work.path.symlink_to(NOTEBOOK)


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_to_another(work):
    """A symbolic link leads to another student's right notebook."""
    other = work.course.notebook("submitted", CHAPTER, "a-right-one")
    work.path.symlink_to(other)


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_upwards(work):
    """A relative link leads to the notebook with all the solutions."""
    work.path.symlink_to(f"../../../source/attention/{NOTEBOOK}")


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_link_to_the_gradebook(work):
    """A symbolic link leads to the gradebook."""
    work.path.symlink_to("../../../gradebook.db")


@case(loses=EVERYTHING, says="link", by_hand=True)
def a_linked_folder(work):
    """The whole folder is a link to another student's."""
    work.folder.rmdir()
    other = work.course.folder("submitted", CHAPTER, "a-right-one")
    work.folder.symlink_to(other)


@case(loses=EVERYTHING, says="folder", by_hand=True)
def a_file_for_a_folder(work):
    """A file stands where the chapter's folder should be."""
    work.folder.rmdir()
    work.folder.write_text(work.text())


# --- right notebooks of another shape ---------------------------------------


@case()
def a_right_one(work):
    """Nothing is wrong."""


@case()
def z_right_one(work):
    """Nothing is wrong with the last of all, either."""


@case(says="named")
def renamed(work):
    """The notebook is called 02-attention (1).ipynb."""
    work.path = work.path.with_name("02-attention (1).ipynb")


@case(says="named")
def renamed_oddly(work):
    """The notebook's name holds quotes, a backslash and a terminal code."""
    name = "Kopie von \"02\" 'attention'\\..\\x; rm -rf $HOME\x1b[2J.ipynb"
    work.path = work.path.with_name(name)


@case(by_hand=True)
def other_files_beside(work):
    """Checkpoints, drafts and a picture lie beside the notebook."""
    work.write()
    work.write(".ipynb_checkpoints/02-attention-checkpoint.ipynb", "{}")
    work.write("draft.ipynb", "{")
    work.write("picture.png", b"\x89PNG")


@case(says="not as UTF-8", by_hand=True)
def not_utf_8(work):
    """The notebook is in Latin-1, and holds letters that are no UTF-8."""
    work.first("# déjà vu")
    text = json.dumps(work.notebook, ensure_ascii=False)
    work.write(NOTEBOOK, text.encode("latin-1", "replace"))


@case(says="not as UTF-8", by_hand=True)
def utf_16(work):
    """The notebook is in UTF-16, as some shells write it."""
    work.write(NOTEBOOK, work.text().encode("utf-16"))


@case(by_hand=True)
def a_byte_order_mark(work):
    """The file begins with a byte order mark, as some editors write it."""
    work.write(NOTEBOOK, b"\xef\xbb\xbf" + work.text().encode())


@case(says="too large")
def saved_outputs_of_100_mb(work):
    """The notebook holds 100 MB of saved outputs."""
    for number in range(10):
        text = f"{number}" * 10_000_000
        work.last("pass")
        work.cells[-1].outputs = [new_output("stream", text=text)]


@case()
def many_cells(work):
    """5,000 cells of the student's own."""
    work.cells.extend(
        new_markdown_cell("thought") if n % 2 else deepcopy(work.cells[1])
        for n in range(5_000)
    )
    for number, cell in enumerate(work.cells):
        if cell.cell_type == "code" and number > 100:
            cell.source, cell.metadata = f"x_{number} = {number}", {}
        cell.id = f"cell-{number}"


@case(says="could not be read")
def a_long_cell(work):
    """A cell holds a comment of 5 MB."""
    work.first("# " + "x" * 5_000_000)


@case(says="old format", by_hand=True)
def nbformat_3(work):
    """The notebook is of format 3, of the year 2013."""
    kinds = {"code": "input", "markdown": "source"}
    cells = []
    for cell in work.cells:
        old = {"cell_type": cell.cell_type, "metadata": dict(cell.metadata)}
        old[kinds[cell.cell_type]] = cell.source
        if cell.cell_type == "code":
            old |= {"language": "python", "outputs": [], "collapsed": False}
        cells.append(old)
    content = {
        "metadata": {"name": ""},
        "nbformat": 3,
        "nbformat_minor": 0,
        "worksheets": [{"cells": cells, "metadata": {}}],
    }
    work.write(NOTEBOOK, json.dumps(content))


@case(by_hand=True)
def an_older_minor_version(work):
    """Format 4.0: cells have no ids, sources are lists of lines."""
    content = json.loads(work.text())
    content["nbformat_minor"] = 0
    for cell in content["cells"]:
        del cell["id"]
    work.write(NOTEBOOK, json.dumps(content))


@case(by_hand=True)
def a_later_version(work):
    """Format 9.99, with fields that nobody knows."""
    content = json.loads(work.text())
    content |= {"nbformat": 9, "nbformat_minor": 99, "of_the_future": True}
    for cell in content["cells"]:
        cell["of_the_future"] = {"x": 1}
    work.write(NOTEBOOK, json.dumps(content))


@case(says="kernel")
def wrong_kernel(work):
    """The notebook says that it is written in R."""
    work.notebook.metadata = {
        "kernelspec": {"name": "ir", "language": "R", "display_name": "R"},
        "language_info": {"name": "R"},
    }


@case()
def no_metadata(work):
    """The notebook's own metadata are gone."""
    work.notebook.metadata = {}


@case(says="marks")
def stripped_metadata(work):
    """All cells have lost their metadata, and got new ids."""
    for number, cell in enumerate(work.cells):
        cell.metadata, cell.id = {}, f"new-{number}"


@case(says="marks")
def garbled_metadata(work):
    """The cells' metadata are of types that they can't have."""
    odd = ["x", 5, None, [], {"grade_id": ["x"]}, {"grade_id": "../../x"}]
    for number, cell in enumerate(work.cells):
        cell.metadata["nbgrader"] = odd[number % len(odd)]
        cell.metadata["tags"] = "exercise" if number % 2 else None


@case()
def odd_ids(work):
    """All cells have the same id, and it is a path."""
    for cell in work.cells:
        cell.id = "../../etc/passwd"


@case(says="Deleted")
def deletes_checks(work):
    """All check cells are deleted."""
    _keep(work, lambda c: not _is_check(c))


@case(loses="softmax", says="softmax")
def deletes_an_answer(work):
    """The cell of one exercise is deleted."""
    _keep(work, lambda c: name_of(c) != "softmax")


@case(says="Deleted")
def deletes_all_but_the_answers(work):
    """Nothing is left but the five answers."""
    _keep(work, lambda c: name_of(c) in NAMES)


@case(says="Edited")
def edits_checks(work):
    """The check cells are emptied, or say that all is well."""
    for cell in filter(_is_check, work.cells):
        cell.source = "assert True"


@case(says="order")
def reorders_cells(work):
    """All cells stand in the opposite order."""
    work.cells.reverse()


@case(says="twice")
def doubles_cells(work):
    """Each cell stands there twice, with all that it is marked by."""
    work.notebook.cells = [c for c in work.cells for c in (c, deepcopy(c))]


@case(says="twice")
def doubles_a_check(work):
    """A check is copied, and the copy gets an id of its own."""
    check = next(filter(_is_check, work.cells))
    work.cells.insert(5, deepcopy(check))
    work.cells[5].id = "copy"


@case()
def answers_in_one_cell(work):
    """All answers stand in a cell of the student's own, the others go."""
    everything = "\n\n\n".join(work.cell(name).source for name in NAMES)
    _keep(work, lambda c: name_of(c) not in NAMES)
    work.first(everything)


@case()
def cuts_cells_in_two(work):
    """The imports of each answer stand in a cell of their own."""
    for name in NAMES:
        cell = work.cell(name)
        head, mark, rest = cell.source.partition(f"def {name}")
        cell.source = mark + rest
        work.first(head)


@case()
def windows_line_endings(work):
    """Lines end with CR and LF, and indents are tabs."""
    for cell in work.cells:
        if name_of(cell) in NAMES:
            source = cell.source.replace("    ", "\t")
            cell.source = source.replace("\n", "\r\n")


@case(loses="softmax", says="SyntaxError")
def a_syntax_error(work):
    """One answer has a syntax error."""
    cell = work.cell("softmax")
    cell.source = cell.source.replace(") -> Tensor:", ") -> Tensor")


@case()
def syntax_errors_in_own_cells(work):
    """Cells of the student's own are prose, magics and half a function."""
    work.first("This is my solution:")
    work.first("%%bash\nrm -rf ~")
    work.first("!pip install antigravity\n%timeit 1 + 1\n?softmax")
    work.last("def half(:\n    '''")


@case(loses="softmax", says="not defined|NameError")
def no_imports(work):
    """No cell imports anything, and one answer needs math."""
    _keep(work, lambda c: name_of(c) in NAMES)
    for name in NAMES:
        cell = work.cell(name)
        definition = cell.source.partition(f"def {name}")
        needed = name != "softmax"
        head = "import math\nimport torch\nfrom torch import Tensor\n\n"
        cell.source = head * needed + "".join(definition[1:])


@case()
def null_characters(work):
    """A cell of the student's own holds null and half a character."""
    work.first("x = 1 # \0 \ufeff \u202e \ud800")


# --- names of students ------------------------------------------------------


def somebody(student: str, does: str) -> None:
    """Add a student with an odd name, who is right."""

    def write(work):
        pass

    write.__doc__ = does
    case(student=student)(write)


for student, does in (
    ("Ada King Lovelace ", "A name with spaces, and one at its end."),
    ('O\'Brien "Bob" `x`', "A name with all quotes."),
    ("..\\..\\gradebook", "A name with path separators of Windows."),
    ("-rf --force", "A name that looks like an option."),
    ("[a-z]*?{x}", "A name that is a pattern."),
    ("[bold red]Ann[blink]", "A name that is markup of the terminal."),
    ("Robert'); DROP TABLE student;--", "A name that is SQL."),
    ("<script>alert(1)<", "A name that is HTML."),
    ("%s {0} $HOME", "A name that is a format."),
    ("Ölünü 学生 🙂", "A name in other alphabets."),
    ("two\nlines\tand \x1b[2J", "A name with control characters."),
    ("x" * 200, "A name of 200 letters."),
    ("=1+1", "A name that is a formula of a spreadsheet."),
):
    somebody(student, does)


def _keep(work, wanted) -> None:
    work.notebook.cells = [c for c in work.cells if wanted(c)]


def _is_check(cell) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))

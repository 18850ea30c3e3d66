r"""Formulas as MathML, made while the book is built: no script, no network.

latex2mathml turns TeX into MathML; ``convert`` mends what today's browsers
(MathML Core) would set wrongly: names of functions, spaces round operators,
aligned columns, bold letters. A formula that can't be converted is a warning
of the build, which names the file and the formula.

In TeX, ``\class{query}{Q}`` gives a part of a formula a class of the
stylesheet: ``query``, ``key``, ``value`` and ``output`` have their colours.
"""

import re
import unicodedata
from collections.abc import Iterator
from html import escape, unescape
from itertools import zip_longest
from xml.etree.ElementTree import Element, SubElement, tostring

from docutils import nodes
from latex2mathml.converter import convert_to_element
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# What latex2mathml doesn't know, in words that it knows.
REWRITES = {
    r"\\(begin|end)\{(?:aligned|align|split)\}": r"\\\1{align*}",
    r"\\operatorname\*?\{arg\\,(max|min)\}": r"\\arg\1",
    r"\\operatorname\*": r"\\operatorname",
    r"\\math(rm|sf)\{([\w ]+)\}": r"\\text{\2}",
    r"(\d)\{,\}(?=\d)": r"\1\\text{,}",
}
# Functions whose subscript stands below them in a displayed formula.
LIMITS = {"arg max", "arg min", "inf", "lim", "max", "min", "sup"}
LETTERS = set("∞⊤⊥∂∇∅∀∃…°%")  # symbols that are set like letters
OPENING = set("([{⟨⌊⌈")
CLOSING = set(")]}⟩⌋⌉")
BARS = set("|‖/")  # no space on either side
OPERATORS = {"~": "∼"} | {c: c for c in OPENING | CLOSING | BARS | {":"}}
SIGNS = set("+−±∓")
# Elements whose children stand in a row.
ROWS = {"math", "mrow", "mtd", "mstyle", "msqrt", "mphantom", "mpadded"}
PARTS = {
    "mfrac": 2,
    "mover": 2,
    "mroot": 2,
    "msub": 2,
    "msubsup": 3,
    "msup": 2,
    "munder": 2,
    "munderover": 3,
}
THIN_SPACE = "0.167em"
APPLY = "\N{FUNCTION APPLICATION}"


class FormulaError(ValueError):
    """A formula that can't be converted; the message says what is wrong."""


def convert(latex: str, display: bool = False) -> Element:
    """Turn TeX into a ``math`` element.

    Raises:
        FormulaError: if a part of the formula is not understood.
    """
    known = latex
    for old, new in REWRITES.items():
        known = re.sub(old, new, known)
    try:
        math = convert_to_element(
            known, display="block" if display else "inline"
        )
    except Exception as error:  # latex2mathml raises a dozen unrelated types
        problem = str(error) or type(error).__name__
        raise FormulaError(f"latex2mathml can't read it: {problem}") from error
    for element in math.iter():
        element.text = unescape(element.text or "")
    for element in math.iter():
        refuse(element)
        mend(element)
    if display:
        lower_limits(math)
    for row in list(math.iter()):
        if row.tag in ROWS:
            row[:] = list(spaced(row[:]))
    return with_source(math, latex)


def with_source(math: Element, latex: str) -> Element:
    """Keep the TeX beside the formula, for copying and for readers aloud."""
    semantics = Element("semantics")
    semantics.extend(math)
    math[:] = [semantics]
    source = SubElement(semantics, "annotation", encoding="application/x-tex")
    source.text = latex.strip()
    return math


def refuse(element: Element) -> None:
    """Refuse what latex2mathml leaves as it is or drops in silence."""
    if len(element) != PARTS.get(element.tag, len(element)):
        raise FormulaError(f"a part of a {element.tag} is missing")
    if element.get("linebreak") == "newline":
        raise FormulaError(r"\\ needs aligned, cases or a matrix round it")
    bare = not (element.text or element.attrib or len(element))
    if element.tag == "mo" and bare:
        raise FormulaError(r"\operatorname takes letters only, \text more")
    leftover = r"\\|^⧸$" if element.tag == "mtext" else r"\\|^&$"
    if re.search(leftover, element.text or ""):
        raise FormulaError(f"latex2mathml doesn't know {element.text!r}")


def mend(element: Element) -> None:
    """Mend one element, whatever stands beside it."""
    text = element.text or ""
    if element.tag == "mo" and text in LETTERS:
        element.tag = "mi"
    elif element.tag == "mo" and len(element):
        element.tag = "mrow"  # \mathop{...}, \mathbin{...}
    elif element.tag == "mi" and text in OPERATORS:
        element.tag, element.text = "mo", OPERATORS[text]
        element.set("stretchy", "false")
    elif element.tag == "mspace" and "negative" in element.get("width", ""):
        element.set("width", "0")  # no browser sets a negative space
    elif element.tag == "menclose":
        element.tag = "mrow"
        element.set("class", element.attrib.pop("notation"))
    elif element.tag in ("mover", "munder") and element[1].text == "―":
        element[1].text = "‾" if element.tag == "mover" else "_"
    if element.tag == "mo" and element.text in BARS:
        element.set("lspace", "0")
        element.set("rspace", "0")
    mend_variant(element)
    mend_table(element)
    if is_name(element):
        element.tag = "mi"
        element.attrib.pop("movablelimits", None)


def lower_limits(element: Element) -> None:
    """Put the subscript of max below it, but not in scripts or fractions."""
    if element.tag == "msub" and name_of(element[0]) in LIMITS:
        element.tag = "munder"
    elif element.tag in ROWS | {"mtable", "mtr"}:
        for child in element:
            lower_limits(child)


def mend_variant(element: Element) -> None:
    """Put letters of the bold or double-struck alphabet for a variant."""
    variant = element.get("mathvariant", "normal")
    if variant == "normal":
        return
    del element.attrib["mathvariant"]
    if element.tag == "mtext":
        element.set("class", variant)
        return
    alphabet = variant.replace("bold-", "bold ")
    element.text = "".join(
        letter_of(alphabet, letter) for letter in element.text or ""
    )


def letter_of(alphabet: str, letter: str) -> str:
    """Return ``letter`` in a mathematical alphabet, or itself."""
    name = unicodedata.name(letter, "")
    kind = re.sub(r"^(LATIN|GREEK) (\w+) LETTER ", r"\2 ", name)
    for style in (alphabet, alphabet.partition(" ")[0]):
        try:
            return unicodedata.lookup(f"MATHEMATICAL {style} {kind}")
        except KeyError:
            continue
    return letter


def mend_table(element: Element) -> None:
    """Leave to the stylesheet how columns stand, as browsers do."""
    if element.tag == "mtable" and element.get("columnspacing"):
        element.set("class", "aligned")
    if side := element.attrib.pop("columnalign", None):
        element.set("class", side)
    for attribute in ("columnspacing", "rowspacing"):
        element.attrib.pop(attribute, None)


def spaced(row: list[Element]) -> Iterator[Element]:
    """Set the spaces in a row: signs, and functions and their arguments."""
    previous = None
    for here, after in zip_longest(row, row[1:]):
        if is_sign(here) and not ends_operand(previous):
            here.set("form", "prefix")
        function = is_name(base(here))
        if function and ends_operand(previous):
            yield Element("mspace", width=THIN_SPACE)
        yield here
        if function and after is not None:
            apply = Element("mo")
            apply.text = APPLY
            yield apply
            if starts_operand(after):
                yield Element("mspace", width=THIN_SPACE)
        if here.tag != "mspace":
            previous = here


def base(element: Element) -> Element:
    """Return what carries the scripts of ``element``, or itself."""
    scripted = element.tag in ("msub", "msup", "msubsup", "munder")
    return element[0] if scripted else element


def name_of(element: Element) -> str:
    """Return the name of a function, with plain spaces."""
    return (element.text or "").replace("\u2009", " ").replace("\u2006", " ")


def is_name(element: Element) -> bool:
    """Say whether this is a function's name: log, softmax, arg max."""
    name = name_of(element).replace(" ", "")
    return element.tag in ("mi", "mo") and len(name) > 1 and name.isalpha()


def is_sign(element: Element) -> bool:
    """Say whether this is a plus or a minus."""
    return element.tag == "mo" and element.text in SIGNS


def ends_operand(element: Element | None) -> bool:
    """Say whether a sign after ``element`` is an operation on it."""
    if element is None:
        return False
    return base(element).tag != "mo" or base(element).text in CLOSING


def starts_operand(element: Element) -> bool:
    """Say whether this is an argument without brackets: log n."""
    first = base(element)
    while first.tag == "mrow" and len(first):
        first = base(first[0])
    return first.tag not in ("mo", "mspace")


def formula(node: nodes.math | nodes.math_block, display: bool) -> str:
    """Return a formula's MathML, or warn and show its TeX as an error."""
    latex = node.astext()
    try:
        return tostring(convert(latex, display), encoding="unicode")
    except FormulaError as problem:
        logger.warning(
            "the formula %r: %s", latex, problem, location=node, type="mathml"
        )
        return f'<code class="math-error">{escape(latex)}</code>'


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula of a sentence."""
    self.body.append(self.starttag(node, "span", "", CLASS="math"))
    self.body.append(formula(node, display=False) + "</span>")
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed formula, with its number and permalink."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(
        f'<div class="formula">{formula(node, display=True)}</div>'
    )
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def keep_punctuation(app: Sphinx, doctree: nodes.document, _: str) -> None:
    """Keep a formula and the comma after it on one line."""
    for math in list(doctree.findall(nodes.math)):
        parent = math.parent
        place = parent.index(math)
        after = parent[place + 1 : place + 2]
        if not after or not isinstance(after[0], nodes.Text):
            continue
        text = after[0].astext()
        if mark := re.match(r"[,.;:!?)\]’”]+", text):
            unbroken = nodes.inline(classes=["unbroken"])
            unbroken += [math, nodes.Text(mark[0])]
            parent[place : place + 2] = [
                unbroken,
                nodes.Text(text[mark.end() :]),
            ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer: mathml`` selects it."""
    app.add_html_math_renderer(
        "mathml", (visit_inline, None), (visit_block, None)
    )
    app.connect("doctree-resolved", keep_punctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

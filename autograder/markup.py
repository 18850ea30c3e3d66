"""Turn a notebook's text into HTML, without Sphinx: for feedback pages.

A chapter's text is MyST: directives become boxes, roles become plain words
and formulas become MathML. Whatever a student has written is only text: HTML
in it is shown and not obeyed, and no image is fetched.
"""

import re
from collections.abc import Iterable
from html import escape
from xml.etree.ElementTree import tostring

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from autograder.mathml import convert

EXTENSIONS = {"amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes"}
SECTION = re.compile(r"^\((\S+)\)=\s+#+ (.+)$", re.MULTILINE)
EQUATION = re.compile(r"^\$\$ \((\S+)\)$", re.MULTILINE)
DIRECTIVE = re.compile(r"\{([^}]+)\}\s*(.*)")
OPTION = re.compile(r":([\w-]+):\s*(.*)")
EXPLICIT = re.compile(r"(.+?)\s*<[^>]+>$", re.DOTALL)
A_FORMULA = "equation "
DEEPER = 2  # the text's own title stands under two headings of the page


class Markup:
    """The text of one notebook, whose parts refer to each other."""

    def __init__(self, sources: Iterable[str]) -> None:
        text = "\n\n".join(sources)
        self.names = dict(SECTION.findall(text))
        for number, label in enumerate(EQUATION.findall(text), start=1):
            self.names[label] = f"{A_FORMULA}({number})"
        config = MdParserConfig(enable_extensions=EXTENSIONS)
        self.parser: MarkdownIt = create_md_parser(config, RendererHTML)
        self.parser.disable(["html_block", "html_inline"])
        for rule, write in {
            "amsmath": _block_formula,
            "colon_fence": self._fence,
            "fence": self._fence,
            "heading_close": _deeper_heading,
            "heading_open": _deeper_heading,
            "image": _image,
            "math_block": _block_formula,
            "math_block_label": self._numbered_formula,
            "math_inline": _inline_formula,
            "myst_line_comment": _nothing,
            "myst_role": self._role,
            "myst_target": _nothing,
        }.items():
            self.parser.renderer.rules[rule] = write

    def html(self, source: str) -> str:
        """Return the HTML of one cell."""
        return self.parser.render(source)

    def _fence(self, tokens: list, index: int, *_: object) -> str:
        """Write a directive as a box, and any other fence as code."""
        token = tokens[index]
        directive = DIRECTIVE.match(token.info.strip())
        if not directive:
            code = escape(token.content)
            return f'<pre tabindex="0"><code>{code}</code></pre>\n'
        kind, title = directive.groups()
        options, body = _options(token.content)
        if kind in ("figure", "image"):
            title = options.get("alt", "")
        title = self.parser.renderInline(title or kind.capitalize())
        inside = self.parser.render(body)
        if "dropdown" in options.get("class", ""):
            return (
                f'<details class="box"><summary>{title}</summary>\n'
                f"{inside}</details>\n"
            )
        return (
            f'<div class="box"><p class="box-title">{title}</p>{inside}</div>'
        )

    def _numbered_formula(self, tokens: list, index: int, *_: object) -> str:
        number = self.names.get(tokens[index].info, "").removeprefix(A_FORMULA)
        formula = _formula(tokens[index].content, display=True)
        return (
            f'<div class="formula" tabindex="0">{formula}'
            f'<span class="number">{number}</span></div>\n'
        )

    def _role(self, tokens: list, index: int, *_: object) -> str:
        """Write what a reference refers to; leave citations to the book."""
        name, content = tokens[index].meta["name"], tokens[index].content
        if name.startswith("cite"):
            return ""
        if explicit := EXPLICIT.match(content):
            return escape(explicit[1])
        return escape(self.names.get(content, content))


def _options(content: str) -> tuple[dict[str, str], str]:
    """Part a directive's options, its first lines, from its body."""
    lines = content.splitlines()
    options = {}
    while lines and (option := OPTION.match(lines[0])):
        options[option[1]] = option[2]
        lines.pop(0)
    return options, "\n".join(lines)


def _formula(latex: str, display: bool) -> str:
    try:
        return tostring(convert(latex, display), encoding="unicode")
    except Exception:  # a student's formula may be anything
        return f"<code>{escape(latex)}</code>"


def _inline_formula(tokens: list, index: int, *_: object) -> str:
    return _formula(tokens[index].content, display=False)


def _block_formula(tokens: list, index: int, *_: object) -> str:
    formula = _formula(tokens[index].content, display=True)
    return f'<div class="formula" tabindex="0">{formula}</div>\n'


def _deeper_heading(tokens: list, index: int, *_: object) -> str:
    level = min(int(tokens[index].tag[1:]) + DEEPER, 6)
    slash = "" if tokens[index].nesting == 1 else "/"
    return f"<{slash}h{level}>"


def _image(tokens: list, index: int, *_: object) -> str:
    return f"<em>{escape(tokens[index].content)}</em>"


def _nothing(*_: object) -> str:
    return ""

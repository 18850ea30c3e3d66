"""The look of the course's figures: one palette, one style, one heat map.

A colour means the same in every chapter: query, key, value and output are
blue, orange, green and purple (Okabe and Ito 2008; Tol 2021: told apart by
colour-blind readers), and attention weights are ink, the darker the more.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

QUERY = "#0072B2"  # blue
KEY = "#D55E00"  # orange
VALUE = "#009E73"  # green
OUTPUT = "#AA3377"  # purple
INK = "#23262F"  # text and axes
FAINT = "#9AA0AC"  # grid lines, what stays in the background
PAPER = "#FCFBF8"  # the card that a figure stands on

WEIGHTS = LinearSegmentedColormap.from_list(
    "weights", ["#F3F2F6", "#C3CAE6", "#8593C9", "#4F60A5", "#232F6B"]
)
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#8C3A00", KEY, "#F3F2F6", QUERY, "#00405F"]
)

STYLE = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 144,  # of the pixels within an SVG
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=[QUERY, KEY, VALUE, OUTPUT, INK]),
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib
    "font.size": 10.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "svg.fonttype": "path",
    "svg.hashsalt": "contextlab",  # the same figure is the same file
}


def use_style() -> None:
    """Give all figures of this notebook the course's look, as sharp SVG."""
    mpl.rcParams.update(STYLE)
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def heatmap(
    ax: Axes,
    matrix: Tensor,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
    cmap: LinearSegmentedColormap = WEIGHTS,
    numbers: bool = False,
) -> ScalarMappable:
    """Draw a matrix as coloured cells, the first row at the top.

    Args:
        ax: where to draw.
        matrix: shape (T, S); attention weights by default, 0 to 1.
        rows: T labels, from the top: the queries; else their numbers.
        columns: S labels, from the left: the keys; else their numbers.
        low: the value of the first colour.
        high: the value of the last colour.
        cmap: the colours; ``SIGNED`` for values of both signs.
        numbers: whether to write the value into each cell.

    Returns:
        What ``figure.colorbar`` needs.
    """
    values = matrix.detach().cpu().double().numpy()
    n_rows, n_columns = values.shape
    few = max(n_rows, n_columns) <= 32
    mesh = ax.pcolormesh(
        values,
        vmin=low,
        vmax=high,
        cmap=cmap,
        edgecolors=PAPER if few else "none",
        linewidth=1 if few else 0,
        rasterized=True,  # a cell as a shape takes 300 bytes of SVG
    )
    ax.set(xlim=(0, n_columns), ylim=(n_rows, 0), aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    if max(n_rows, n_columns) <= 12:
        rows = rows or [str(t) for t in range(n_rows)]
        columns = columns or [str(s) for s in range(n_columns)]
    if columns is not None:
        slant = 45 if max(map(len, columns)) > 3 else 0
        ax.set_xticks([s + 0.5 for s in range(n_columns)], columns)
        for label in ax.get_xticklabels():
            label.set(rotation=slant, ha="left" if slant else "center")
            label.set_rotation_mode("anchor")
    if rows is not None:
        ax.set_yticks([t + 0.5 for t in range(n_rows)], rows)
    if numbers:
        for (t, s), value in np.ndenumerate(values):
            write_number(ax, mesh, t, s, value)
    return mesh


def write_number(
    ax: Axes, mesh: ScalarMappable, t: int, s: int, value: float
) -> None:
    """Write a value into its cell, light on dark or dark on light."""
    red, green, blue, _ = mesh.to_rgba(value)
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
    ax.text(
        s + 0.5,
        t + 0.5,
        f"{value:.2f}",
        ha="center",
        va="center",
        fontsize=8.5,
        color=PAPER if dark else INK,
    )

"""What the figures of all labs share."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contextlab import figures, scale
from contextlab.measuring import in_words
from contextlab.scale.device import median

Cost = Callable[[dict[str, Any]], float | None]


def panels(
    record: scale.Record,
    colors: Mapping[str, str],
    costs: Mapping[str, tuple[str, Cost]],
) -> tuple[Figure, list[Axes]]:
    """Draw costs against the number of tokens, a panel for each cost.

    Args:
        record: what a lab has measured.
        colors: of each way to do it, by its name in the rows.
        costs: what to draw, by the title of its panel: the label of the axis,
            and what a row costs, or None if it isn't drawn there.

    Returns:
        The figure, and its panels in order; both axes are logarithmic.
    """
    fig, axes = plt.subplots(1, len(costs), figsize=(7.6, 4), squeeze=False)
    for ax, (title, (label, cost)) in zip(axes[0], costs.items(), strict=True):
        for what, color in colors.items():
            rows = [r for r in record["rows"] if r["what"] == what]
            done = [(r["n"], cost(r)) for r in rows if "ms" in r]
            done = [point for point in done if point[1] is not None]
            if done:
                ax.plot(
                    *zip(*done, strict=True),
                    "o-",
                    color=color,
                    label=what if ax is axes[0, 0] else None,
                )
        ax.set(title=title, ylabel=label, xlabel="tokens")
        ax.set(xscale="log", yscale="log")
    fig.legend(loc="outside lower center", ncols=2)
    fig.suptitle(scale.source(record), fontsize=9)
    return fig, list(axes[0])


def limit(
    ax: Axes, words: str, lengths: list[int], values: list[float]
) -> None:
    """Draw what no way can get past: a dashed line, and what it is."""
    ax.plot(lengths, values, "--", color=figures.FAINT)
    level = values[0] == values[-1]
    at = -1 if level else len(lengths) // 2  # where the line leaves room
    ax.annotate(
        words,
        (lengths[at], values[at]),
        (0, 2) if level else (5, -3),
        textcoords="offset points",
        ha="right" if level else "left",
        va="bottom" if level else "top",
        fontsize=9,
    )


def memory_limit(ax: Axes, record: scale.Record) -> None:
    """Draw how much memory the device has."""
    n, memory = lengths(record), record["limits"]["memory"]
    limit(ax, in_words(memory), n, [memory] * len(n))


def lengths(record: scale.Record) -> list[int]:
    """Return the shortest and the longest text of a record, and between."""
    return sorted({row["n"] for row in record["rows"] if "ms" in row})


TIME = ("milliseconds", median)
MEMORY = ("bytes", lambda row: max(row["bytes"], 1))

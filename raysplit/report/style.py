"""How every figure looks: one ink, colours that colour-blind readers can tell apart, a marker for each as well.

Colours start from Okabe & Ito's set (jfly.uni-koeln.de/color); yellow is left out, being too pale for lines on paper.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raysplit.quantities import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PAGE_WIDTH, PHONE_WIDTH = 7.4, 3.8
"""Inches; a figure's width decides its layout."""

INK, MUTED, FAINT, PAPER = "#1c1e21", "#5c636b", "#d5d9de", "#ffffff"
ACCENT, ALARM = "#0072b2", "#b3261e"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8588f", "#c98500", "#3a9bd9", "#6b6f76")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

DARK = {
    INK: "#e8eaed", MUTED: "#a9b0b9", FAINT: "#3c424a", PAPER: "#16181c", ALARM: "#ff8a80", "#0072b2": "#56b4e9",
    "#d55e00": "#ff8f45", "#009e73": "#35c79b", "#b8588f": "#e59ac6", "#c98500": "#f0b429", "#3a9bd9": "#9bd2f7",
    "#6b6f76": "#b9bdc4",
}  # fmt: skip
"""What each colour becomes on a dark page."""

STYLE: Any = {
    "font.family": ["DejaVu Sans"], "font.size": 8.5, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "text.parse_math": False, "text.color": INK,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.7, "axes.grid": True, "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.5,
    "figure.facecolor": PAPER, "axes.facecolor": "none", "savefig.facecolor": PAPER, "svg.hashsalt": "raysplit",
    "axes.unicode_minus": True,
}  # fmt: skip


def domain_styles(domains: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each domain; no two domains share both, up to 56 of them."""
    return {name: (_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)]) for k, name in enumerate(domains)}


def new_figure(*, width: float, height: float) -> "Figure":
    """An empty figure in inches that belongs to no window and lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def in_style() -> Iterator[None]:
    """Draw and save figures in here."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def count_ticks(axis: "Axis") -> None:
    """Write the numbers of an axis as 250k, 2M."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))


def legend_below(figure: "Figure", axes: "Axes", *, n_columns: int) -> None:
    """The legend of one plot under the whole figure, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=n_columns, columnspacing=1.2, handlelength=1.6)

"""How every picture looks: one ink, and for each domain a marker and a colour that the colour-blind can tell apart.

The colours are Okabe & Ito's set (jfly.uni-koeln.de/color), darkened until white text on them can be read. Yellow is
left out: it is too pale for lines on paper.
"""

from collections.abc import Sequence

from raysplit.pictures.spec import Spec

PAGE_PIXELS, PHONE_PIXELS = 710, 365
"""Widths of a report's figures in pixels, 96 to an inch of paper; a picture's width decides its layout."""

INK, MUTED, FAINT, PAPER = "#1c1e21", "#5a6068", "#dcdddc", "#ffffff"
ACCENT, ALARM = "#0067a3", "#b3261e"
_COLOURS = ("#0072b2", "#c85200", "#00805c", "#a9487d", "#966300", "#7a5aa8", "#5f6368")
_MARKERS = (
    "circle", "square", "triangle-up", "diamond", "triangle-down",
    "M-1-.35L-.35-.35L-.35-1L.35-1L.35-.35L1-.35L1 .35L.35 .35L.35 1L-.35 1L-.35 .35L-1 .35Z",  # a plus
    "M-1-.6L-.6-1L0-.4L.6-1L1-.6L.4 0L1 .6L.6 1L0 .4L-.6 1L-1 .6L-.4 0Z",  # a cross
    "M0-1L.95-.31L.59 .81L-.59 .81L-.95-.31Z",  # a pentagon
)  # fmt: skip
STAR = "M0-1L.235-.324L.951-.309L.38 .124L.588 .809L0 .4L-.588 .809L-.38 .124L-.951-.309L-.235-.324Z"
CROSS = "M-1-1L1 1M1-1L-1 1"

_DARK = {
    "ink": "#e8eaed", "muted": "#a5acb5", "faint": "#31363c", "paper": "#1b1e22", "accent": "#6cbdf0",
    "alarm": "#ff8a80", "d0": "#56b4e9", "d1": "#ff8f45", "d2": "#35c79b", "d3": "#e59ac6", "d4": "#f0b429",
    "d5": "#c3a9ef", "d6": "#b9bdc4",
}  # fmt: skip
_LIGHT = {
    "ink": INK, "muted": MUTED, "faint": FAINT, "paper": PAPER, "accent": ACCENT, "alarm": ALARM,
    **{f"d{k}": colour for k, colour in enumerate(_COLOURS)},
}  # fmt: skip
"""Colours by their names in style sheets, for dark pages and for light ones."""

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""vl-convert brings the first font, so that figures are the same on every machine; the others are equally wide."""

CONFIG: Spec = {
    "background": None, "font": FONT, "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11, "titleFontSize": 11.5, "titleFontWeight": "normal", "labelColor": INK, "titleColor": INK,
        "domainColor": MUTED, "tickColor": MUTED, "gridColor": FAINT, "gridWidth": 0.7, "domainWidth": 0.9,
        "tickSize": 4, "aria": False, "labelFlush": False,
    },
    "title": {"fontSize": 12, "anchor": "start", "color": INK, "offset": 4, "aria": False},
    "text": {"color": INK, "fontSize": 11},
    "concat": {"spacing": 12},
}  # fmt: skip


def domain_styles(domains: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each domain; no two domains share both, up to 56 of them."""
    return {name: (_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)]) for k, name in enumerate(domains)}


def darkened(text: str) -> str:
    """The text of an SVG with the colours of a dark page in place of those of a light one."""
    for name, colour in _LIGHT.items():
        text = text.replace(colour, _DARK[name])
    return text


def styled_by_page(text: str) -> str:
    """The JSON of a specification with the variables of `style_sheet` in place of colours."""
    for name, colour in _LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def style_sheet() -> str:
    """The colours as CSS variables, for light screens and paper, and for dark screens."""
    light, dark = (" ".join(f"--{name}: {colour};" for name, colour in colours.items()) for colours in (_LIGHT, _DARK))
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"

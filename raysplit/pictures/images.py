"""Pictures as files, drawn by vl-convert without a browser; the first one takes a second or two."""

from raysplit.pictures.spec import Spec
from raysplit.pictures.style import PAPER

_DPI, _PIXELS_PER_INCH = 300, 96


def svg_of(picture: Spec) -> str:
    """A picture as the text of an SVG without a background."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(picture)
    return svg


def png_of(picture: Spec) -> bytes:
    """A picture as a PNG on white paper, 300 pixels an inch; 96 pixels of the picture's width are an inch."""
    import vl_convert

    # ``scale`` is in CSS's points, 72 an inch.
    png: bytes = vl_convert.vegalite_to_png({**picture, "background": PAPER}, scale=72 / _PIXELS_PER_INCH, ppi=_DPI)
    return png

"""The live page's `vega.js`: Vega, Vega-Lite and Vega-Embed in one file, the same versions that draw the report.

    python -m raysplit.pictures.bundle raysplit/live/page/vega.js.gz

It is made anew when vl-convert has another version; a test tells when.
"""

import gzip
import sys
from pathlib import Path


def versions() -> str:
    """The bundle's first line: the versions of the libraries in the installed vl-convert."""
    import vl_convert

    return (
        f"/*! Vega {vl_convert.get_vega_version()}, Vega-Lite {vl_convert.get_vegalite_versions()[-1]}, Vega-Embed "
        f"{vl_convert.get_vega_embed_version()}: BSD-3-Clause, see vega-licence.txt */\n"
    )


def main(path: Path) -> None:
    """Write the bundle, compressed as the page sends it."""
    import vl_convert

    text = versions() + vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

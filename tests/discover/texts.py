"""Small kinds of text that differ as real ones do: in their words and in their letters."""

import random
from pathlib import Path

from raysplit.space import SourceSpec
from tests.corpus.texts import files_source, write_files

KINDS = {
    "code": ["def", "self", "return", "import", "class", "None", "for", "while", "print", "lambda", "yield", "raise"],
    "law": ["court", "shall", "plaintiff", "statute", "clause", "party", "liable", "hereby", "tribunal", "appeal"],
    "chem": ["CCO", "c1ccccc1", "NCC(=O)", "[nH]", "CC(C)C", "OCC", "FC(F)", "ClCC", "BrCC", "SCC"],
}


def texts_of(kind: str, n: int, *, words: int = 40) -> list[str]:
    """``n`` different documents of one of `KINDS`."""
    draw = random.Random(kind)
    return [" ".join([*draw.choices(KINDS[kind], k=words), str(number)]) for number in range(n)]


def sources_in(folder: Path, n: int = 30) -> dict[str, SourceSpec]:
    """A source of files for each of `KINDS`."""
    return {kind: files_source(write_files(folder / kind, texts_of(kind, n))) for kind in KINDS}

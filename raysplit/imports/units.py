"""Units in the names of columns: ``params (M)``, ``tokens [B]``, ``n_params_M``, ``tokens_in_billions``."""

import re
from typing import NamedTuple

_LETTERS = {"K": 3, "M": 6, "B": 9, "G": 9, "T": 12}
_WORDS = {"thousand": 3, "mio": 6, "million": 6, "bn": 9, "billion": 9, "trillion": 12}
UNIT_NAMES = {3: "thousands", 6: "millions", 9: "billions", 12: "trillions"}
_WORD = rf"(?:{'|'.join(_WORDS)})s?"
_THINGS = r"(?:\s*(?:of\s+)?(?:params|parameters|tokens|toks?))?"
_FORMS = (
    re.compile(
        rf"(?P<stem>.*\S)\s*[(\[]\s*(?:in\s+|x\s*|×\s*)?(?P<unit>{_WORD}|[kmbgt]|10\^?\d+|1e\d+){_THINGS}\s*[)\]]", re.I
    ),
    re.compile(rf"(?P<stem>.*?[^\W_])[\s_./-]+(?:in[\s_]+)?(?P<unit>(?i:{_WORD})|[KMBGTk])"),
    re.compile(rf"(?P<unit>(?i:{_WORD})|[KMBGTk])[\s_]+(?:of[\s_]+)?(?P<stem>[^\W_].*)"),
)
_LONGEST = 100
"""Most characters of a name in which a unit is looked for."""


class Unit(NamedTuple):
    """A name of a column without its unit."""

    stem: str
    power: int
    """Power of ten: a cell of 20 means 20 times ten to this power."""


def split_unit(name: str) -> Unit:
    """A name and the power of ten in it, 0 where there is none."""
    for form in _FORMS if len(name) <= _LONGEST else ():
        if (match := form.fullmatch(name.strip())) and (power := _power(match["unit"])) in UNIT_NAMES:
            return Unit(match["stem"], power)
    return Unit(name, 0)


def _power(unit: str) -> int:
    word = unit.lower().removesuffix("s")
    if word in _WORDS:
        return _WORDS[word]
    if unit.upper() in _LETTERS:
        return _LETTERS[unit.upper()]
    return int(re.sub(r"10\^?|1e", "", word, count=1)) if len(word) < 6 else 0

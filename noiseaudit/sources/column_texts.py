"""One column of a table that holds texts: its different values, and whether they are numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MISSING", "Texts", "read_numbers", "read_texts"]

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "None", "null", "NULL", "<NA>", "#N/A")
"""Cells of a .csv that hold nothing; in a column of features also "?"."""

_NOTHING = {*MISSING, "?", "NaT"}
_MOST_CODES = 64  # numbers and other texts, so few of them different, are codes of categories
_NUMBERS = 0.9  # share of the cells that must be numbers before the others count as missing
_PLAIN = (str, bool, np.bool_, int, float, np.number, Decimal, date, time, np.datetime64)
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([ T].*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True, eq=False)
class Texts:
    """A column of n cells, each a text or missing.

    Attributes:
        codes: (n,) int64 into `words`, -1 where missing.
        words: the different texts, sorted, without spaces around them.
        counts: cells of each, as `words`.
        is_category: whether its type already says that these are categories, never numbers.
    """

    codes: NDArray[np.int64]
    words: tuple[str, ...]
    counts: NDArray[np.int64]
    is_category: bool

    @property
    def present(self) -> int:
        """How many cells are not missing."""
        return int(self.counts.sum())

    @property
    def are_dates(self) -> bool:
        """Whether every text looks like a date."""
        return all(_DATE.fullmatch(word) for word in self.words)


def read_texts(column: pd.Series) -> Texts | None:
    """The texts of a column, or None if it holds what is neither text, number, truth nor date."""
    import pandas as pd

    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists, mappings, arrays
        return None
    listed = values.tolist()
    if not all(isinstance(value, _PLAIN) for value in listed):
        return None
    stripped = [str(value).strip() for value in listed]
    words = sorted(set(stripped) - _NOTHING)
    place = {word: code for code, word in enumerate(words)}
    # The last one is for the cells that pandas takes as missing already, whose code is -1.
    moved = np.array([*(place.get(word, -1) for word in stripped), -1], dtype=np.int64)
    codes = moved[codes]
    counts = np.bincount(codes[codes >= 0], minlength=len(words)).astype(np.int64)
    return Texts(codes, tuple(words), counts, isinstance(column.dtype, pd.CategoricalDtype))


def read_numbers(texts: Texts, name: str) -> tuple[NDArray[np.float64], str] | None:
    """The column as (n,) numbers, NaN where missing, and what was done; None if these are not.

    Numbers with a few other cells among them are a column of numbers if there are too many
    different ones for codes of categories. Texts with leading zeros are codes.

    Raises:
        DataError: if "1,234" may be a fraction or more than a thousand.
    """
    words = texts.words
    if not words or texts.is_category or any(map(_LEADING_ZERO.match, words)):
        return None
    values, done = _parse(words, name)
    strange = np.isnan(values)
    share = texts.counts[~strange].sum() / texts.present
    if share < 1:
        if share < _NUMBERS or len(words) <= _MOST_CODES:
            return None
        examples = [repr(words[code]) for code in np.flatnonzero(strange)[:3]]
        cells = int(texts.counts[strange].sum())
        which = "another cell, " if cells == 1 else f"{cells:,} other cells, such as "
        done += f", {which}{', '.join(examples)}, taken as missing"
    return np.append(values, np.nan)[texts.codes], done


def _parse(words: Sequence[str], name: str) -> tuple[NDArray[np.float64], str]:
    """Each text as a number or NaN, and how they were read."""
    import pandas as pd

    done = "texts read as numbers"
    with_comma = [word for word in words if "," in word]
    are_fractions = all(map(_DECIMAL_COMMA.fullmatch, with_comma))
    are_thousands = all(map(_THOUSANDS.fullmatch, with_comma))
    if with_comma and (are_fractions or are_thousands):
        if are_fractions and are_thousands:
            raise DataError(
                f"column {name!r}: {with_comma[0]!r} may be a fraction or more than a thousand; "
                "write numbers with a decimal point and nothing between thousands, or leave the "
                f"column out (--drop-columns {name})"
            )
        words = [word.replace(",", "." if are_fractions else "") for word in words]
        done += " with a decimal comma" if are_fractions else " with commas between thousands"
    numbers = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce")
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan), done

"""The columns of a table as features: which are some, and each as numbers."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._validation import first_rows
from noiseaudit.dataset import AS_ASKED, TableColumns
from noiseaudit.errors import DataError
from noiseaudit.sources.column_texts import Texts, read_numbers, read_texts
from noiseaudit.sources.examples import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ColumnChoice", "Features", "encode_columns"]

_UNNAMED = re.compile(r"Unnamed: \d+")  # how pandas calls the row numbers that it once wrote
_IDENTIFIER = re.compile(
    r"(?:^|[_\W])(?:id|idx|index|uid|uuid|guid)$|(?-i:[a-z](?:Id|ID|Idx|Index))$", re.IGNORECASE
)
_ROWS = 10  # from which no column is in order, or the same as the labels, by chance
_MOST_CATEGORIES = 64
_RARE_SHARE = 0.005  # an indicator of fewer rows is, standardised, more than 14 deviations off
_RARE_ROWS = 5  # fewer rows say little about a class, and let a network remember single examples
_OFFSET = 1e-3  # rounding to float32 may move a value so far, in standard deviations
_HEAVY_TAILS = 9.0  # kurtosis, that of an exponential; features on such a scale hide others
_MISSING_WORD = "(missing)"
_RARE_WORD = "(rare)"


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns are to be features.

    Attributes:
        features: these, whatever they look like; None takes all that look like features.
        drop: these are not.
        no_paths: there is no column of image paths either.
    """

    features: Sequence[str] | None = None
    drop: Sequence[str] | None = None
    no_paths: bool = True


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a table.

    Attributes:
        matrix: (n, d), finite.
        names: d names.
        columns: what became of each column.
    """

    matrix: NDArray[Any]
    names: tuple[str, ...]
    columns: TableColumns


@dataclass
class _Sorted:
    """The columns as they are gone through."""

    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    texts: dict[str, Texts] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


def encode_columns(
    frame: pd.DataFrame, labels: NDArray[np.int64], choice: ColumnChoice
) -> Features:
    """Every column that says something about its row, as numbers.

    Numbers stay as they are, but for those with heavy tails, which become ranks; missing ones
    become the median, and a feature of its own marks them where there are enough. Texts become an
    indicator for each category; rare ones share one, and missing ones are a category. Left out are
    columns that say nothing (empty, of one text), number or name the rows, repeat the labels, or
    hold too many different texts.

    Cost: a pass over every column.

    Args:
        frame: n rows, its columns those that may be features.
        labels: (n,) codes, which no feature may repeat.
        choice: of columns.

    Raises:
        DataError: if a column that was named does not exist or cannot be a feature, one holds
            infinity, or there is no feature.
    """
    wanted = _wanted(frame, choice)
    found, rare = _Sorted(), _rare_rows(len(frame))
    for name in wanted:
        _sort_in(found, frame[name], labels, rare, is_named=choice.features is not None)
    if choice.features is not None and found.left_out:
        raise DataError(f"columns that cannot be features: {_with_reasons(found.left_out)}")
    chosen = set(wanted)
    found.left_out |= {name: AS_ASKED for name in frame.columns if name not in chosen}
    if not found.numbers and not found.texts:
        paths = "image paths (--path-column names them), " if choice.no_paths else ""
        raise DataError(
            f"it has no column of {paths}numbers or categories to audit by; besides the labels "
            f"there is {_with_reasons(found.left_out) or 'nothing'}"
        )
    return _encode(found, rare)


def _rare_rows(n: int) -> int:
    return max(math.ceil(_RARE_SHARE * n), min(_RARE_ROWS, max(1, n // 20)))


def _with_reasons(left_out: dict[str, str], limit: int = 10) -> str:
    shown = [f"{name!r} ({reason})" for name, reason in list(left_out.items())[:limit]]
    more = f" and {len(left_out) - limit} more" if len(left_out) > limit else ""
    return ", ".join(shown) + more


def _wanted(frame: pd.DataFrame, choice: ColumnChoice) -> list[str]:
    columns = list(frame.columns)
    known = set(columns)
    for option, names in (("feature", choice.features), ("drop", choice.drop)):
        if unknown := [name for name in names or () if name not in known]:
            near = difflib.get_close_matches(unknown[0], columns, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"{option}_columns: there is no column of features {listed(unknown)}; {hint}"
                f"there are {listed(columns, 20) or 'none'}"
            )
    chosen = columns if choice.features is None else list(choice.features)
    dropped = set(choice.drop or ())
    return [name for name in chosen if name not in dropped]


def _sort_in(
    found: _Sorted, column: pd.Series, labels: NDArray[np.int64], rare: int, *, is_named: bool
) -> None:
    """Put a column where it belongs; `is_named`: it is a feature unless it cannot be one."""
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    name = str(column.name)
    texts, done = None, ""
    if is_complex_dtype(column.dtype):
        found.left_out[name] = "complex numbers"
        return
    if is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        texts = read_texts(column)
        if texts is None:
            found.left_out[name] = "neither numbers nor texts"
            return
        numbers = read_numbers(texts, name)
        if numbers is not None:
            texts, (values, done) = None, numbers
    if texts is None:
        reason = _why_not_numbers(values, name, labels, rare, is_named=is_named)
    else:
        reason = _why_not_texts(texts, labels, rare, is_named=is_named)
    if reason:
        found.left_out[name] = reason
    elif texts is not None:
        found.texts[name] = texts
    else:
        found.numbers[name] = values
        if done:
            found.changed[name] = done


def _why_not_numbers(
    values: NDArray[np.float64],
    name: str,
    labels: NDArray[np.int64],
    rare: int,
    *,
    is_named: bool,
) -> str:
    present = ~np.isnan(values)
    if not present.any():
        return "empty"
    if is_named:
        return ""
    if present.sum() < rare:
        return f"empty but for {present.sum()} cells"
    if _UNNAMED.fullmatch(name) or _number_rows(values, name):
        return "numbers of rows"
    return "repeats the labels" if _repeat(values[present], labels[present]) else ""


def _number_rows(values: NDArray[np.float64], name: str) -> bool:
    """Whether they are different whole numbers, in order or called an id: no property of a row.

    In a table sorted by class they would give the label away.
    """
    whole = bool((values == np.rint(values)).all())  # which NaN is not
    if not whole:
        return False
    steps = np.diff(values)
    if len(values) >= _ROWS and ((steps > 0).all() or (steps < 0).all()):
        return True
    return _IDENTIFIER.search(name) is not None and len(np.unique(values)) == len(values)


def _repeat(values: NDArray[Any], labels: NDArray[np.int64]) -> bool:
    """Whether each value has one label, and each label one value: the labels by other names."""
    classes = len(np.unique(labels))
    if len(values) < _ROWS or classes < 2 or len(np.unique(values[:1000])) > classes:
        return False
    different, codes = np.unique(values, return_inverse=True)
    pairs = len(np.unique(codes.reshape(-1) * (int(labels.max()) + 1) + labels))
    return len(different) == classes == pairs


def _why_not_texts(texts: Texts, labels: NDArray[np.int64], rare: int, *, is_named: bool) -> str:
    different, present = len(texts.words), texts.present
    missing = len(texts.codes) - present
    if not different:
        return "empty"
    if different == 1 and not missing:
        return f"{texts.words[0]!r} in every row"
    common = np.sort(texts.counts[texts.counts >= rare])[::-1][: _MOST_CATEGORIES - 1]
    if different == present and not (is_named and len(common)):
        return "another date in every row" if texts.are_dates else "another text in every row"
    if not len(common) or (2 * common.sum() < present and not is_named):
        return f"{different:,} different {'dates' if texts.are_dates else 'texts'}"
    if is_named:
        return ""
    if present < rare:
        return f"empty but for {present} cells"
    known = texts.codes >= 0
    return "repeats the labels" if _repeat(texts.codes[known], labels[known]) else ""


def _encode(found: _Sorted, rare: int) -> Features:
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    missing: dict[str, int] = {}
    marks: dict[str, NDArray[np.bool_]] = {}
    _refuse_infinity(found.numbers)
    for name, values in found.numbers.items():
        gaps = np.isnan(values)
        if gaps.any():
            missing[name] = int(gaps.sum())
            values = np.where(gaps, np.nanmedian(values), values)
            if rare <= missing[name]:
                marks[f"{name} missing"] = gaps
        numbers, done = _scale(values, name)
        if done:
            found.changed[name] = ", ".join(filter(None, (found.changed.get(name), done)))
        parts.append(numbers[:, None])
        names.append(name)
    parts += [mark[:, None].astype(np.float32) for mark in marks.values()]
    names += marks
    categories: dict[str, tuple[int, int]] = {}
    if found.texts:
        indicators, indicator_names, categories = _indicators(found.texts, rare)
        parts.append(indicators)
        names += indicator_names
        missing |= {
            name: len(texts.codes) - texts.present
            for name, texts in found.texts.items()
            if texts.present < len(texts.codes)
        }
    columns = TableColumns(found.left_out, categories, missing, found.changed)
    return Features(np.concatenate(parts, axis=1), tuple(names), columns)


def _refuse_infinity(numbers: dict[str, NDArray[np.float64]]) -> None:
    rows = {name: np.isinf(values) for name, values in numbers.items()}
    bad = {name: which for name, which in rows.items() if which.any()}
    if bad:
        which = np.logical_or.reduce(list(bad.values()))
        raise DataError(
            f"columns hold infinity: {listed(bad)}, in {first_rows(which)}: drop or empty these "
            "cells"
        )


def _scale(values: NDArray[np.float64], name: str) -> tuple[NDArray[np.float32], str]:
    """(n,) float32, on a scale that a network can learn from, and what was done to that end."""
    from scipy.stats import rankdata

    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise DataError(f"column {name!r} holds numbers beyond float32, 3e38: scale it")
    centred = values - np.median(values)
    deviation = float(values.std())
    # Not scipy's kurtosis, which takes ten times as long for each of thousands of columns.
    is_heavy = deviation > 0 and _fourth_moment(values, deviation) > _HEAVY_TAILS
    if is_heavy and len(np.unique(values)) > 2:
        return (rankdata(values) / len(values)).astype(np.float32), "ranks, as its tails are heavy"
    if np.abs(values - rounded).max() > _OFFSET * deviation and centred.any():
        return centred.astype(np.float32), "less its median, as float32 cannot tell it apart"
    return rounded, ""


def _fourth_moment(values: NDArray[np.float64], deviation: float) -> float:
    return float(np.mean(np.square(np.square((values - values.mean()) / deviation))))


def _indicators(
    columns: dict[str, Texts], rare: int
) -> tuple[NDArray[np.float32], list[str], dict[str, tuple[int, int]]]:
    """(n, d) zeros and ones, d names, and of each column how many texts it has and how many rare.

    Of two categories there is one indicator.
    """
    from sklearn.preprocessing import OneHotEncoder

    words = [(*texts.words, _MISSING_WORD) for texts in columns.values()]
    codes = [np.where(texts.codes < 0, len(texts.words), texts.codes) for texts in columns.values()]
    encoder = OneHotEncoder(
        sparse_output=False, dtype=np.float32, drop="if_binary", min_frequency=rare,
        max_categories=_MOST_CATEGORIES,
    )  # fmt: skip
    matrix = encoder.fit_transform(np.column_stack(codes))
    names: list[str] = []
    pooled: dict[str, tuple[int, int]] = {}
    for column, (name, texts) in enumerate(columns.items()):
        infrequent = encoder.infrequent_categories_[column]
        few = [] if infrequent is None else infrequent.tolist()
        own = [code for code in encoder.categories_[column].tolist() if code not in set(few)]
        shown = [words[column][code] for code in own] + ([_RARE_WORD] if few else [])
        dropped = encoder.drop_idx_ is not None and encoder.drop_idx_[column] is not None
        names += [f"{name}={word}" for word in (shown[1:] if dropped else shown)]
        pooled[name] = len(texts.words), sum(code < len(texts.words) for code in few)
    return matrix, names, pooled

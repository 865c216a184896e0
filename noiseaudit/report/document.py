"""What a report shows, as plain values: all that the page reads and `report.json` stores."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from noiseaudit.errors import OutputError

__all__ = [
    "FORMAT",
    "ClassSummary",
    "Copy",
    "CopyGroup",
    "EpochSummary",
    "Histogram",
    "PairSummary",
    "ReportDocument",
    "Suspect",
    "document_from_dict",
    "document_to_dict",
    "replace_surrogates",
]

FORMAT = 1
"""Number of the stored form; it grows when an older reader could no longer read it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Suspect:
    """One suspicious example, as a card of the page shows it.

    Attributes:
        rank: 1 is the most suspicious.
        sample_id: the example's identity in the whole source.
        source: its path, or "".
        given_label: its class name as stored.
        suggested_label: the class name that the models suggest, or "" for none.
        suspicion: the headline detector's score, higher = more suspicious.
        is_label_issue: whether the verdict is that the given label is wrong.
        reason: one plain sentence.
        split: train, val, test, or "".
        thumbnail: a `data:image/...` URI, or "" where there is no picture.
        features: for vectors: name and standardised value of the most unusual features.
        curve: probability of the given label after each epoch; None where it was not seen.
        scores: detector name and its suspicion score.
    """

    rank: int
    sample_id: int
    source: str
    given_label: str
    suggested_label: str
    suspicion: float
    is_label_issue: bool
    reason: str
    split: str = ""
    thumbnail: str = ""
    features: tuple[tuple[str, float | None], ...] = ()
    curve: tuple[float | None, ...] = ()
    scores: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class ClassSummary:
    """How many examples carry a label, and how many of those labels look wrong."""

    name: str
    examples: int
    issues: int


@dataclass(frozen=True)
class PairSummary:
    """How many label issues are given one class and suggested another."""

    given: str
    suggested: str
    count: int


@dataclass(frozen=True)
class Histogram:
    """One detector's scores over all examples.

    Attributes:
        title: heading of the chart.
        detector: its name.
        edges: bin edges, one more than there are counts.
        counts: all examples in each bin.
        issue_counts: those of them that are label issues.

    Raises:
        ValueError: if the numbers of edges and counts do not fit together.
    """

    title: str
    detector: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    issue_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        bins = len(self.edges) - 1
        if not bins == len(self.counts) == len(self.issue_counts):
            raise ValueError(
                f"a histogram with {len(self.edges)} edges must have {bins} counts and as many "
                f"issue counts, got {len(self.counts)} and {len(self.issue_counts)}"
            )


@dataclass(frozen=True)
class EpochSummary:
    """One epoch of the training run: mean loss in nats, accuracy in [0, 1] on the given labels."""

    epoch: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Copy:
    """One of several copies of a picture.

    Attributes:
        sample_id: the example's identity in the whole source.
        source: its path, or "".
        label: its class name as stored.
        split: train, val, test, or "".
        action: keep, remove or review.
        thumbnail: a `data:image/...` URI, or "" where there is no picture.
    """

    sample_id: int
    source: str
    label: str
    split: str = ""
    action: str = ""
    thumbnail: str = ""


@dataclass(frozen=True)
class CopyGroup:
    """Copies of one picture.

    Attributes:
        number: of the group in `groups.csv`.
        kind: "exact" if all pixels are identical, else "near".
        is_conflict: whether they are given different labels.
        is_leak: whether they lie in different splits.
        note: what is believed of it, or "".
        copies: in order of their ids.
        more: number of further copies that are not shown.
    """

    number: int
    kind: str
    is_conflict: bool
    is_leak: bool
    note: str
    copies: tuple[Copy, ...]
    more: int = 0


@dataclass(frozen=True)
class ReportDocument:
    """Everything the page shows.

    Attributes:
        title: heading of the page.
        headline: the finding in one plain sentence.
        detector: name of the detector that gave the ranking; "" where nothing was ranked.
        examples: number of examples audited.
        issues: number of labels that look wrong.
        facts: what the data set is, name and value.
        notes: warnings, such as pictures that were skipped.
        classes: in any order; the page puts the most label issues first.
        pairs: in any order; the page puts the most frequent first.
        suspects: the most suspicious examples, in order of rank.
        histograms: the headline detector's first.
        training: in order of epoch; empty without a training run.
        settings: name and value.
        version: of noiseaudit.
        groups: copies of one picture, conflicts first; not all where they are many.
        copies: numbers of such groups: `groups`, `conflicts`, `leaks`, `leaks_alone` (without a
            conflict), `spare` (neither); empty if none were looked for.
    """

    title: str
    headline: str
    detector: str
    examples: int
    issues: int
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[ClassSummary, ...] = ()
    pairs: tuple[PairSummary, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    training: tuple[EpochSummary, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    version: str = ""
    groups: tuple[CopyGroup, ...] = ()
    copies: tuple[tuple[str, int], ...] = ()


def replace_surrogates(text: str) -> str:
    """Put U+FFFD for each lone surrogate (a file name that was not UTF-8): none can be written."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def document_to_dict(document: ReportDocument) -> dict[str, Any]:
    """The document as JSON values, with its format number.

    A non-finite float becomes None, a lone surrogate U+FFFD: JSON in UTF-8 can hold neither.
    """
    return {"format": FORMAT, **_to_plain(document)}


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def document_from_dict(value: object) -> ReportDocument:
    """The document that `document_to_dict` stored; keys it does not know are ignored.

    Raises:
        OutputError: if the format is newer than this version reads, a key is missing, or a value
            is of another type; the message names the place.
    """
    if not isinstance(value, dict) or "format" not in value:
        raise OutputError("the stored report has no format number: run the audit again")
    number = value["format"]
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise OutputError(f"the stored report's format must be a number from 1, got {number!r}")
    if number > FORMAT:
        raise OutputError(
            f"the stored report has format {number}, and this version reads up to {FORMAT}: "
            "upgrade noiseaudit, or run the audit again"
        )
    return _read_record(ReportDocument, value, "")


def _read_record(kind: type[_Value], value: object, place: str) -> _Value:
    if not isinstance(value, dict):
        raise _unexpected("an object", value, place)
    hints = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # only called on dataclasses
        inner = f"{place}.{field.name}" if place else field.name
        if field.name in value:
            found[field.name] = _read(hints[field.name], value[field.name], inner)
        elif field.default is dataclasses.MISSING:
            raise OutputError(f"the stored report lacks {inner!r}: run the audit again")
    try:
        return kind(**found)
    except ValueError as error:
        raise OutputError(f"the stored report's {place!r} cannot be used: {error}") from error


def _read(hint: Any, value: object, place: str) -> Any:
    """`value` as the annotation `hint` asks for it; the kinds used above and no others."""
    if get_origin(hint) is types.UnionType:  # X | None
        return None if value is None else _read(get_args(hint)[0], value, place)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, place)
    if dataclasses.is_dataclass(hint):
        return _read_record(hint, value, place)  # type: ignore[arg-type]  # a class, not a value
    if hint is float:
        if value is None:
            return math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _unexpected({"str": "text"}.get(hint.__name__, hint.__name__), value, place)


def _read_tuple(hints: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _unexpected("a list", value, place)
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise _unexpected(f"{len(hints)} values", value, place)
    pairs = zip(hints, value, strict=True)
    return tuple(_read(hint, item, f"{place}[{i}]") for i, (hint, item) in enumerate(pairs))


def _unexpected(expected: str, value: object, place: str) -> OutputError:
    got = type(value).__name__
    return OutputError(f"the stored report's {place!r} must be {expected}, got {got}")

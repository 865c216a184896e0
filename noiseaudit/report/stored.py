"""A report's document as JSON values, and back."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from noiseaudit.errors import OutputError
from noiseaudit.report.document import ReportDocument

__all__ = ["FORMAT", "document_from_dict", "document_to_dict", "replace_surrogates"]

FORMAT = 1
"""Number of the stored form; it grows when an older reader could no longer read it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_Value = TypeVar("_Value")


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

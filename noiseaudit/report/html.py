"""A `ReportDocument` as one self-contained HTML file.

The page loads nothing: style, script and pictures are inside it, and its content security policy
lets a browser run that one script (named by its hash) and no other. Sorting, filtering and deciding
need the script; everything else works without. Templates lie beside this file: `page.html` is the
frame, the other `.html` files its sections. Decisions leave the page as a download from a Blob
URL, which no directive of the policy governs.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import importlib.resources
import math
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from noiseaudit._io import write_text
from noiseaudit.report.charts import histogram, line_chart, sparkline
from noiseaudit.report.document import Copy, CopyGroup, ReportDocument, Suspect
from noiseaudit.report.stored import replace_surrogates

__all__ = ["render", "write_report"]

_ROWS_SHOWN = 30  # of a table; the rest is folded away, so that 1,000 classes stay usable
_CHARTS_SHOWN = 6
_SMALL_PICTURE = 96  # pixels; enlarged without smoothing up to here
_FEATURE_LIMIT = 4.0  # standard deviations at which a feature's bar is full
_STYLES = ("report.css", "review.css")
_SCRIPTS = ("decisions.js", "review.js", "report.js")  # the last one starts the others
_DIRECTION_MARK = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class _Card:
    """A suspect and what the template needs beside its values."""

    suspect: Suspect
    given: int  # position in the list of all labels: what the script compares
    suggested: int
    picture: str
    is_small: bool
    curve: Markup | None
    group: CopyGroup | None
    copies: tuple[Copy, ...]  # the others of the group


@dataclass(frozen=True)
class _Review:
    """What the script needs to keep and save decisions.

    Attributes:
        key: tells what one audit's decisions are kept under in the browser.
        data: digest of the inputs, or "".
        labels: digest of the given labels, or "".
        names: of the classes, by number.
    """

    key: str
    data: str
    labels: str
    names: list[str]


def render(document: ReportDocument) -> str:
    """The page as text; every value is escaped, and what UTF-8 cannot hold is replaced."""
    labels = _label_numbers(document)
    groups = {copy.sample_id: group for group in document.groups for copy in group.copies}
    text = (
        _environment()
        .get_template("page.html")
        .render(
            doc=document,
            labels=labels,
            cards=[_card(s, labels, groups.get(s.sample_id)) for s in document.suspects],
            review=_review(document, labels),
            given_options=_options(document, labels, "given"),
            suggested_options=_options(document, labels, "suggested"),
            classes=sorted(document.classes, key=lambda summary: -summary.issues),
            pairs=sorted(document.pairs, key=lambda summary: -summary.count),
            histograms=_histograms(document),
            training=_training(document),
            rows_shown=_ROWS_SHOWN,
            pairs_shown=min(max(len(document.classes), 10), _ROWS_SHOWN),
            greatest_share=_greatest_share(document),
            charts_shown=_CHARTS_SHOWN,
            copies=dict(document.copies),
            small_picture=_is_small_png,
            **_assets(),
        )
    )
    return replace_surrogates(text)


def write_report(document: ReportDocument, path: Path) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    write_text(path, render(document))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("noiseaudit.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bar": _bar_width, "count": _count, "score": _score, "share": _share}
    environment.filters |= {"deviation": _deviation, "sentence": _sentence}
    return environment


@functools.cache
def _assets() -> dict[str, Markup]:
    """Style, script, and the script's hash, which alone the content security policy lets run."""
    folder = importlib.resources.files("noiseaudit.report")
    style, script = (
        "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
        for names in (_STYLES, _SCRIPTS)
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Our own files: the only text on the page that is not escaped, beside the charts.
    parts = {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
    return {name: Markup(part) for name, part in parts.items()}


def _label_numbers(document: ReportDocument) -> dict[str, int]:
    """A number for each label: what the script compares."""
    names = [*document.class_names, *(summary.name for summary in document.classes)]
    for pair in document.pairs:
        names += pair.given, pair.suggested
    for suspect in document.suspects:
        names += suspect.given_label, suspect.suggested_label
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _options(
    document: ReportDocument, labels: dict[str, int], side: str
) -> list[tuple[int, str, int]]:
    """Number, name and count of suspects for each label that a filter can choose, by name."""
    field = f"{side}_label"
    counts = dict.fromkeys((getattr(pair, side) for pair in document.pairs), 0)
    for suspect in document.suspects:
        name = getattr(suspect, field)
        counts[name] = counts.get(name, 0) + 1
    named = sorted((name for name in counts if name), key=str.casefold)
    return [(labels[name], name, counts[name]) for name in named]


def _review(document: ReportDocument, labels: dict[str, int]) -> _Review:
    """A document stored before it had digests says that of the inputs among its facts."""
    data = document.data_digest or dict(document.facts).get("fingerprint", "")
    key = f"{data} {document.labels_digest}".strip()
    if not key:
        shown = repr([(s.sample_id, s.given_label) for s in document.suspects])
        key = hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return _Review(key, data, document.labels_digest, list(labels))


def _card(suspect: Suspect, labels: dict[str, int], group: CopyGroup | None) -> _Card:
    picture = suspect.thumbnail if suspect.thumbnail.startswith("data:image/") else ""
    title = f"Probability of the given label by epoch, example {suspect.sample_id}"
    return _Card(
        suspect=suspect,
        given=labels[suspect.given_label],
        suggested=labels[suspect.suggested_label],
        picture=picture,
        is_small=_is_small_png(picture),
        curve=Markup(sparkline(suspect.curve, title=title)) if suspect.curve else None,
        group=group,
        copies=tuple(c for c in group.copies if c.sample_id != suspect.sample_id) if group else (),
    )


def _is_small_png(uri: str) -> bool:
    """Whether the picture is a PNG of at most 96 x 96 pixels, by its header."""
    head, _, data = uri.partition(",")
    if head != "data:image/png;base64":
        return False
    try:
        header = base64.b64decode(data[:32])  # signature, then IHDR: width and height at byte 16
    except binascii.Error:
        return False
    sides = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    return len(header) == 24 and max(sides) <= _SMALL_PICTURE


def _histograms(document: ReportDocument) -> list[tuple[str, Markup]]:
    return [
        (
            chart.title,
            Markup(
                histogram(
                    chart.edges,
                    chart.counts,
                    chart.issue_counts,
                    title=chart.title,
                    x_name="suspicion",
                )
            ),
        )
        for chart in document.histograms
    ]


def _training(document: ReportDocument) -> list[tuple[str, Markup]]:
    if not document.training:
        return []
    epochs = [summary.epoch for summary in document.training]
    losses = [summary.loss for summary in document.training]
    accuracies = [summary.accuracy for summary in document.training]
    loss = line_chart(epochs, losses, title="Mean training loss by epoch", y_name="loss (nats)")
    accuracy = line_chart(
        epochs,
        accuracies,
        title="Training accuracy on the given labels by epoch",
        y_name="accuracy",
        limits=(0.0, 1.0),
    )
    return [("Loss", Markup(loss)), ("Accuracy on the given labels", Markup(accuracy))]


def _greatest_share(document: ReportDocument) -> float:
    """The greatest share of label issues in any class: the length of a full bar."""
    return max((c.issues / c.examples for c in document.classes if c.examples), default=0.0)


def _sentence(text: str) -> str:
    """A text that quotes names, without the marks by which one could turn round what follows."""
    return _DIRECTION_MARK.sub("", text)


def _count(value: int) -> str:
    return f"{value:,}"


def _score(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def _share(part: int, whole: int) -> str:
    """`part` of `whole` in percent."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.1f}%" if percent < 10 else f"{percent:.0f}%"


def _deviation(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return _score(value)
    return f"{value:+.1f}".replace("-", "\u2212")  # the minus sign is as wide as the plus


def _bar_width(part: float | None, whole: float = _FEATURE_LIMIT) -> str:
    """Length of a bar in percent of its full length."""
    if part is None or not math.isfinite(part) or whole <= 0:
        return "0"
    return f"{min(100 * abs(part) / whole, 100.0):.1f}"

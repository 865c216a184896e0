"""What a report shows, as plain values: all that the page reads and `report.json` stores."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "AnalysisSection",
    "ClassSummary",
    "Copy",
    "CopyGroup",
    "DetectorTrust",
    "EpochSummary",
    "FindingLine",
    "Histogram",
    "Neighbour",
    "PairSummary",
    "ReportDocument",
    "Suspect",
    "VerdictSummary",
]


@dataclass(frozen=True)
class Neighbour:
    """An example that the model sees as much the same as a suspect.

    Attributes:
        sample_id: the example's identity in the whole source.
        label: its class name as stored.
        thumbnail: a `data:image/...` URI, or "" where it is not shown.
    """

    sample_id: int
    label: str
    thumbnail: str = ""


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
        neighbours: the nearest examples, the nearest first.
        p_error: probability in [0, 1] that the given label is wrong; None without a verdict.
        kind: of trouble, as "mislabelled" or "ambiguous"; "" where it is not flagged.
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
    neighbours: tuple[Neighbour, ...] = ()
    p_error: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class ClassSummary:
    """How many examples carry a label, and how many of those labels look wrong.

    `expected` is how many are wrong by the verdict, with the ends of its interval.
    """

    name: str
    examples: int
    issues: int
    expected: tuple[float, ...] = ()


@dataclass(frozen=True)
class PairSummary:
    """How many label issues are given one class and suggested another; `expected` as by class."""

    given: str
    suggested: str
    count: int
    expected: tuple[float, ...] = ()


@dataclass(frozen=True)
class DetectorTrust:
    """How well a detector finds planted flips, AUROC in [0, 1], and whether it is trusted."""

    name: str
    auroc: float
    is_trusted: bool
    auroc_between: float = math.nan  # of those between two classes


@dataclass(frozen=True)
class VerdictSummary:
    """How many labels are wrong and how sure that is.

    Attributes:
        sentence: what the page opens with.
        cautions: what it does not cover, a sentence each.
        recommendation: which detectors were trusted, and why.
        detectors: the best first.
        confidence: of all intervals.
        basis: what the number of wrong labels comes of; "" in reports stored by an older version.
    """

    sentence: str
    cautions: tuple[str, ...]
    recommendation: str
    detectors: tuple[DetectorTrust, ...]
    confidence: float
    basis: str = ""


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
class FindingLine:
    """One statement that was tested.

    Attributes:
        statement: a plain sentence with its figures.
        effect: the measured effect, over seeds.
        low: lower end of its 95% interval.
        high: upper end.
        p_value: one-sided; None where there were too few seeds.
        reproduced: whether it holds here.
    """

    statement: str
    effect: float | None
    low: float | None
    high: float | None
    p_value: float | None
    reproduced: bool


@dataclass(frozen=True)
class AnalysisSection:
    """One analysis of memorization.

    Attributes:
        name: of it.
        title: what was published, in plain words.
        reproduced: whether all that its verdict depends on holds here.
        findings: what was tested.
        figures: heading and `data:image/...` URI of each.
        notes: choices made on the way.
    """

    name: str
    title: str
    reproduced: bool
    findings: tuple[FindingLine, ...]
    figures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


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
        analyses: of memorization.
        data_digest: of the inputs; with `labels_digest` it says what decisions belong to.
        labels_digest: of the given labels as codes.
        class_names: all that an example can be relabelled to, those without examples too.
        verdict: how many labels are wrong; None where that was not estimated.
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
    analyses: tuple[AnalysisSection, ...] = ()
    data_digest: str = ""
    labels_digest: str = ""
    class_names: tuple[str, ...] = ()
    verdict: VerdictSummary | None = None

"""The verdict in plain sentences, and as what the report shows of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from noiseaudit.report import DetectorTrust, VerdictSummary
from noiseaudit.verdict import Verdict

__all__ = ["recommendation", "verdict_sentence", "verdict_summary"]

_BEYOND = 1.5  # times the upper end of the estimate, from which further doubtful labels are told of


def verdict_summary(verdict: Verdict, is_label_issue: NDArray[np.bool_]) -> VerdictSummary:
    """What the report opens with.

    Args:
        verdict: of the audit.
        is_label_issue: (n,) bool, labels that look wrong to the model.
    """
    return VerdictSummary(
        sentence=verdict_sentence(verdict),
        cautions=tuple(_cautions(verdict, int(is_label_issue.sum()))),
        detectors=tuple(
            DetectorTrust(name, auroc, name in verdict.trusted)
            for name, auroc in verdict.auroc.items()
        ),
        recommendation=recommendation(verdict),
        confidence=verdict.estimate.confidence,
    )


def verdict_sentence(verdict: Verdict) -> str:
    """How many labels are wrong, how sure that is, and what can be flagged."""
    estimate, n = verdict.estimate, len(verdict.ranking)
    if not estimate.is_supported:
        best = max(verdict.auroc.values())
        return (
            f"How many of {n:,} labels are wrong cannot be said: no detector tells planted flips "
            f"from the rest (AUROC {best:.2f} at best)."
        )
    rate = estimate.rate
    count, low, high = (round(share * n) for share in rate)
    interval = f"{estimate.confidence:.0%} interval"
    if count == 0:
        text = (
            f"Hardly any of {n:,} labels is wrong: none is expected, at most {high:,} ({interval})"
        )
    else:
        text = (
            f"About {count:,} of {n:,} labels are wrong ({rate.value:.1%}, {interval} "
            f"{low:,} to {high:,})"
        )
    return f"{text}. {_flagged(verdict)}"


def _flagged(verdict: Verdict) -> str:
    found = verdict.threshold
    if not found.count:
        return f"No label can be flagged with a precision of {verdict.precision:.0%}."
    precision = found.precision
    return (
        f"Flag the {found.count:,} most suspicious: expected precision {precision.value:.2f} "
        f"[{precision.low:.2f}, {precision.high:.2f}]."
    )


def _cautions(verdict: Verdict, issues: int) -> list[str]:
    estimate, n = verdict.estimate, len(verdict.ranking)
    found = []
    if estimate.is_supported and issues > _BEYOND * estimate.rate.high * n + 1:
        found.append(
            f"The model prefers another class for {issues:,} labels, more than the estimate "
            "accounts for: the others lie on examples that it finds ambiguous. A mistake on such "
            "an example looks the same as a right label there, so up to so many labels may be "
            "wrong; the reasons say which to look at."
        )
    return found


def recommendation(verdict: Verdict) -> str:
    """Which detector was trusted, and why."""
    best = verdict.auroc
    listed = ", ".join(f"{name} {auroc:.4f}" for name, auroc in list(best.items())[:5])
    planted = f"{verdict.estimate.plants:,} flips planted among the labels"
    if len(verdict.trusted) == 1:
        text = f"{verdict.trusted[0]} is trusted: it finds {planted} best"
    else:
        text = (
            f"{_listed(verdict.trusted)} are trusted together: each finds {planted} as well as the "
            "best, but for 0.002"
        )
    return f"{text} (AUROC among all other labels, wrong ones included: {listed})."


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

"""The verdict in plain sentences, and as what the report shows of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from noiseaudit.detector_trust import AS_GOOD
from noiseaudit.noise_estimate import Witness
from noiseaudit.planted_rounds import ODDS
from noiseaudit.report import DetectorTrust, VerdictSummary
from noiseaudit.run_agreement import HARDER
from noiseaudit.verdict import Verdict

__all__ = ["verdict_sentence", "verdict_summary"]


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
            DetectorTrust(name, auroc, name in verdict.trusted, verdict.auroc_between[name])
            for name, auroc in verdict.auroc.items()
        ),
        basis=_basis(verdict.estimate.witnesses),
        recommendation=_recommendation(verdict),
        confidence=verdict.estimate.confidence,
    )


def verdict_sentence(verdict: Verdict) -> str:
    """How many labels are wrong, how sure that is, and what can be flagged."""
    estimate, n = verdict.estimate, len(verdict.ranking)
    rate = estimate.rate
    count, low, high = (round(share * n) for share in rate)
    interval = f"{estimate.confidence:.0%} interval"
    if not estimate.is_close:
        where = "" if _counts_harder(verdict) else " if mistakes fall on any example"
        text = (
            f"At most {round(estimate.most * n):,} of {n:,} labels are wrong "
            f"({estimate.most:.1%}), about {count:,}{where}: a rough number, since the model finds "
            "many examples doubtful"
        )
    elif count == 0:
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
    estimate, cautions = verdict.estimate, []
    if _counts_harder(verdict):
        fewer = round(estimate.witnesses[0].rate * len(verdict.ranking))
        cautions.append(
            "Two trainings contradict more labels than mistakes like the planted flips explain: "
            "most may be on examples between two classes. Where an example does not show its class "
            f"its label may be right; of the others about {fewer:,} are wrong."
        )
    if not estimate.is_close:
        cautions.append(
            f"The model prefers another class for {issues:,} labels. Where it is unsure of an "
            "example, a wrong label looks the same as a right one: the number, and the precision "
            "of what is flagged, may be off there. A better encoder or model tells more."
        )
    if cautions:
        cautions[-1] += (
            " Your decisions on about a hundred labels say more "
            "(noiseaudit report DIR --decisions FILE)."
        )
    return cautions


def _counts_harder(verdict: Verdict) -> bool:
    return any(item.name == HARDER for item in verdict.estimate.witnesses)


def _basis(witnesses: Sequence[Witness]) -> str:
    """What the number of wrong labels comes of, and what else was asked; "" if nothing is known."""
    counted, others = (
        _listed([f"{item.name} ({item.rate:.1%})" for item in witnesses if item.counts == counts])
        for counts in (True, False)
    )
    parts = ("The share of wrong labels rests on", counted), ("Not counted:", others)
    return " ".join(f"{what} {names}." for what, names in parts if names)


def _recommendation(verdict: Verdict) -> str:
    """Which detector was trusted, and why."""
    names = list(dict.fromkeys([*verdict.trusted, *verdict.auroc]))[: max(5, len(verdict.trusted))]
    listed = ", ".join(
        f"{name} {verdict.auroc[name]:.4f} and {verdict.auroc_between[name]:.4f}" for name in names
    )
    planted = f"{verdict.estimate.plants:,} flips planted among the labels"
    who = f"{_listed(verdict.trusted)} {'is' if len(verdict.trusted) == 1 else 'are'} trusted"
    best = (
        f"as good as any at {planted}, but for {AS_GOOD}, and of such detectors the best at those "
        "between two classes"
    )
    if verdict.knows_pairs:
        last = verdict.trusted[-1]
        other = "it" if last == ODDS else last
        why = f"{ODDS} alone knows which mistakes are common, and {other} is {best}"
    elif verdict.trusted == (ODDS,):
        why = f"no detector finds the {planted} better than {ODDS} by more than chance"
    else:
        why = best
    among = "of all flips among labels thought right, of those between classes among all"
    return f"{who}: {why} (AUROC {among}: {listed})."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))

"""The kind of each flag of an audit, from all the signals that the audit has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from noiseaudit.encoders.stage import EncodedSource
from noiseaudit.findings import Findings
from noiseaudit.flag_reasons import explain_flags
from noiseaudit.picture_vectors import picture_vectors
from noiseaudit.ranking import Ranking
from noiseaudit.scoring import Scores

__all__ = ["explain_findings"]

_MOST = 20_000  # flags, each of which is compared with all examples


def explain_findings(
    encoded: EncodedSource,
    scores: Scores,
    findings: Findings,
    ranking: Ranking,
    p_error: NDArray[np.float64] | None,
) -> Findings:
    """The same findings with the kind of each flag, and a sentence; of the first 20,000 flags.

    Without an encoder pictures are compared by `picture_vectors`, and by the features of the last
    epoch, where the model has any; tables by their standardised columns.
    """
    dataset, run = encoded.source, scores.run
    if dataset.num_classes < 2:
        return findings
    is_table = dataset.kind == "vectors"
    vectors = encoded.vectors
    if vectors is None:
        vectors = dataset.inputs if is_table else picture_vectors(dataset.inputs)
    is_judged_by_run = scores.left_out_probs is None
    flagged = findings.is_label_issue.copy()
    flagged[ranking.order[np.flatnonzero(flagged[ranking.order])[_MOST:]]] = False
    found = explain_flags(
        dataset.labels,
        scores.pred_probs,
        flagged,
        confirmed=np.isin(np.arange(len(dataset)), list(findings.confirmed)),
        correct_history=run.correct_history if is_judged_by_run else None,
        vectors=vectors,
        features=run.snapshots.get(("features", None)) if is_judged_by_run else None,
        metric="euclidean" if is_table else "cosine",
        p_error=p_error,
    )
    names, labels = dataset.class_names, dataset.labels
    told = {
        int(row): found.sentence(int(row), names, int(labels[row]))
        for row in np.flatnonzero(found.kind != "")
    }
    if p_error is not None:
        for row in np.flatnonzero(flagged & (found.kind == "") & (p_error >= 0.5)).tolist():
            told[row] = (
                f"scores like a wrong label ({p_error[row]:.0%}), though the model agrees with "
                f"{names[labels[row]]}"
            )
    return replace(findings, explained=told, kind=found.kind)

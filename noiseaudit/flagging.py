"""The kind of each flag of an audit, from all the signals that the audit has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from noiseaudit.encoders.stage import EncodedSource
from noiseaudit.findings import Findings
from noiseaudit.flag_reasons import explain_flags
from noiseaudit.picture_vectors import picture_vectors
from noiseaudit.scoring import Scores

__all__ = ["explain_findings"]


def explain_findings(
    encoded: EncodedSource,
    scores: Scores,
    findings: Findings,
    p_error: NDArray[np.float64] | None,
) -> Findings:
    """The same findings with the kind of each flag, and a sentence.

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
    found = explain_flags(
        dataset.labels,
        scores.pred_probs,
        findings.is_label_issue,
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
    return replace(findings, explained=told, kind=found.kind)

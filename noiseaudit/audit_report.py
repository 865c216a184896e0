"""What an audit found: rankings, findings, plan and page; and its files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, write_csv, write_json
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicate_groups import NONE, DuplicateGroups
from noiseaudit.duplicates import save_groups
from noiseaudit.encoders.embedding import Embeddings
from noiseaudit.findings import Findings
from noiseaudit.manifest import read_manifest, write_manifest
from noiseaudit.plan_files import save_evidence, write_plan
from noiseaudit.presentation import ranking_rows
from noiseaudit.provenance import digest_file, record_source
from noiseaudit.ranking import Ranking
from noiseaudit.report import ReportDocument, document_to_dict, render, write_report
from noiseaudit.workspace import write_skipped

if TYPE_CHECKING:
    import pandas as pd

    from noiseaudit.verdict import Verdict

__all__ = ["AuditReport"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        dataset: what was audited.
        ranking: the headline ranking; `rankings` holds that of every detector by name.
        findings: suggested labels and which given ones look wrong, in the rows of `dataset`.
        pred_probs: (n, k) float32 that the findings come from: **in-sample** probabilities, mean
            over training epochs; or, of encoded pictures, out-of-sample ones from leave-one-out
            predictions.
        duplicates: groups of copies of one picture; None if none were looked for.
        verdict: how many labels are wrong and which; None where none was asked for or there is
            too little to say.
        embeddings: of the pictures, if an encoder made any.
        history: per training epoch: loss (nats), accuracy, seconds.
        document: what the HTML page shows.
        manifest: settings, data fingerprint, versions, results.
    """

    dataset: LabeledDataset
    ranking: Ranking
    rankings: dict[str, Ranking]
    findings: Findings
    pred_probs: NDArray[np.float32]
    duplicates: DuplicateGroups | None
    verdict: Verdict | None
    embeddings: Embeddings | None
    history: list[dict[str, float]]
    document: ReportDocument
    manifest: dict[str, Any]

    @property
    def suggested_prob(self) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1], that the suggested label is right: see `CleaningPlan`.

        With a verdict calibrated on planted flips; but of confirmed copies the model's own.
        """
        found = self.findings.suggested_prob
        if self.verdict is None:
            return found
        suggested, verdict = self.findings.suggested, self.verdict
        found = np.where(suggested == verdict.suggested, verdict.suggested_prob, found)
        return np.where(suggested == self.dataset.labels, 1 - verdict.estimate.p_error, found)

    def to_frame(self) -> pd.DataFrame:
        """The table of `ranking.csv`: one row per example, most suspicious first."""
        import pandas as pd

        header, rows = self._ranking_rows()
        return pd.DataFrame(list(rows), columns=header)

    def _ranking_rows(self) -> tuple[list[str], Iterator[list[Any]]]:
        more: dict[str, NDArray[Any]] = {}
        if self.verdict is not None:
            more = {"p_error": self.verdict.estimate.p_error, "p_suggested": self.suggested_prob}
        if self.findings.kind is not None:
            more["kind"] = self.findings.kind
        return ranking_rows(self.dataset, self.ranking, self.rankings, self.findings, more)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one self-contained HTML page; also written to `path` if given."""
        if path is not None:
            write_report(self.document, Path(path))
        return render(self.document)

    @cached_property
    def plan(self) -> CleaningPlan:
        """What to do about each example: what looks wrong is for review, copies as confirmed.

        `with_policy` gives others; `apply`, `subset`, `sampler` use it.
        """
        data, n = self.dataset, len(self.dataset)
        copy_action = np.full(n, "", dtype="<U7")
        if self.duplicates is not None:
            inside = self.duplicates.in_conflict()
            copy_action[inside] = self.duplicates.action[inside]
            # Of copies none of whose labels is believed one may be right all the same.
            doubtful = inside & (self.duplicates.believed_of_each() == NONE)
            copy_action[doubtful] = "review"
        reasons = [
            self.findings.reason(row, data.class_names, int(label))
            for row, label in enumerate(data.labels)
        ]
        undecided = CleaningPlan(
            class_names=data.class_names, ids=data.ids, labels=data.labels,
            suspicion=self.ranking.scores, suggested=self.findings.suggested,
            suggested_prob=self.suggested_prob,
            p_error=None if self.verdict is None else self.verdict.estimate.p_error,
            is_label_issue=self.findings.is_label_issue, copy_action=copy_action,
            reasons=np.array(reasons, dtype=object), actions=np.full(n, "keep", dtype="<U7"),
            new_labels=np.full(n, -1), sources=data.sources, split=data.split,
        )  # fmt: skip
        return undecided.with_policy(CleaningPolicy())

    def _repr_html_(self) -> str:
        page = escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'

    def save(self, folder: str | Path) -> None:
        """Write `ranking.csv`, `plan.csv`, `report.html`, `report.json`, `manifest.json`.

        And `audited.npz`, which `clean` checks the source against, and `skipped.csv`; with
        duplicates also `groups.csv` and `links.csv`. A `plan.csv` that was edited stays as it is.

        Raises:
            OutputError: if the folder cannot be written.
        """
        folder = make_folder(Path(folder))
        header, rows = self._ranking_rows()
        write_csv(folder / "ranking.csv", header, rows)
        plan_digest = self._save_plan(folder)
        save_evidence(self.plan, folder / "plan_evidence.npz")
        record_source(self.dataset).save(folder / "audited.npz")
        write_skipped(self.dataset.skipped, folder)
        if self.duplicates is not None:
            save_groups(self.duplicates, folder)
        else:
            for name in ("groups.csv", "links.csv"):
                (folder / name).unlink(missing_ok=True)
        write_json(folder / "report.json", document_to_dict(self.document))
        write_report(self.document, folder / "report.html")
        results = {**self.manifest["results"], "plan": plan_digest}
        write_manifest(folder / "manifest.json", {**self.manifest, "results": results})

    def _save_plan(self, folder: Path) -> str:
        """Write `plan.csv` unless a person has edited it; the digest of what was last written."""
        path = folder / "plan.csv"
        stored = read_manifest(folder / "manifest.json") or {}
        digest = stored.get("results", {}).get("plan", "")
        if path.exists() and digest and digest_file(path).hex() != digest:
            logger.warning("%s was edited and stays as it is; --no-resume replaces it", path)
            return str(digest)
        write_plan(self.plan, path)
        return digest_file(path).hex()

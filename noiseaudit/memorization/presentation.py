"""From a memorization profile to figures and to what the report shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from noiseaudit._io import atomic_file
from noiseaudit.dataset import LabeledDataset
from noiseaudit.memorization.findings import Analysis
from noiseaudit.memorization.profile import ANALYSES, MemorizationProfile
from noiseaudit.report import AnalysisSection, FindingLine, ReportDocument
from noiseaudit.report.plots import plot_lines, plot_matrix

__all__ = ["build_profile_document", "draw_figures", "state_verdict"]

_DPI = 110
_SEEDS = 5  # fewer leave a t-test too little to go by
_MOST = 5  # of the analyses but that of regularisers: on MNIST six hold, on shuffled labels one
_FEW = 2
_APART = "regularizers"  # compares two regularisers, not the data with noise

Figures = Mapping[str, tuple[tuple[str, str], ...]]


def state_verdict(profile: MemorizationProfile) -> str:
    """The finding in one or two plain sentences.

    A verdict takes all analyses and five seeds. Its limits were set where MNIST and MNIST with
    shuffled labels were known, and on nothing else.
    """
    told = [analysis for analysis in profile.analyses if analysis.name != _APART]
    held = sum(analysis.reproduced for analysis in told)
    counts = f"{held} of {len(told)} published differences between data and noise show here"
    if profile.preset == "smoke":
        return "A smoke test shows that everything runs; it measures nothing."
    if len(profile.seeds) < _SEEDS or {item.name for item in profile.analyses} != set(ANALYSES):
        return f"{counts}; a verdict takes all analyses and {_SEEDS} seeds."
    if held >= _MOST:
        return f"Networks learn these labels from these inputs: {counts}."
    if held <= _FEW:
        return f"To networks these labels look much like noise: {counts}."
    return f"Between data and noise: {counts}."


def draw_figures(profile: MemorizationProfile, folder: Path) -> Figures:
    """Draw every figure into `folder`; heading and data URI of each, by analysis."""
    return {analysis.name: tuple(_draw(analysis, folder)) for analysis in profile.analyses}


def _draw(analysis: Analysis, folder: Path) -> list[tuple[str, str]]:
    drawn = [(curve.title, plot_lines(asdict(curve))) for curve in analysis.curves]
    drawn += [(matrix.title, plot_matrix(asdict(matrix))) for matrix in analysis.matrices]
    found = []
    for number, (title, figure) in enumerate(drawn, start=1):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=_DPI, format="png")
        with atomic_file(folder / f"{analysis.name}_{number}.png") as file:
            file.write(buffer.getvalue())
        uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        found.append((title, uri))
    return found


def build_profile_document(
    profile: MemorizationProfile,
    dataset: LabeledDataset,
    manifest: Mapping[str, Any],
    figures: Figures,
) -> ReportDocument:
    """The page of `noiseaudit memorization`."""
    config = manifest["config"]
    seconds = manifest["results"]["seconds"]
    return ReportDocument(
        title=dataset.name,
        headline=state_verdict(profile),
        detector="",
        examples=len(dataset),
        issues=0,
        facts=(
            ("examples", f"{len(dataset):,}"),
            ("classes", f"{dataset.num_classes:,}"),
            ("inputs", dataset.kind),
            ("fingerprint", dataset.content_digest),
        ),
        settings=(
            ("preset", profile.preset),
            ("seeds", ", ".join(map(str, profile.seeds))),
            ("device", config["device"]),
            ("threads", str(config["threads"])),
            ("seconds", f"{seconds:,.0f}"),
            ("versions", ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())),
        ),
        version=manifest["versions"]["noiseaudit"],
        analyses=tuple(_section(analysis, figures[analysis.name]) for analysis in profile.analyses),
    )


def _section(analysis: Analysis, figures: tuple[tuple[str, str], ...]) -> AnalysisSection:
    return AnalysisSection(
        name=analysis.name,
        title=analysis.title,
        reproduced=analysis.reproduced,
        findings=tuple(
            FindingLine(
                statement=item.statement,
                effect=item.effect,
                low=None if item.interval is None else item.interval[0],
                high=None if item.interval is None else item.interval[1],
                p_value=item.p_value,
                reproduced=item.reproduced,
            )
            for item in analysis.findings
        ),
        figures=figures,
        notes=analysis.notes,
    )

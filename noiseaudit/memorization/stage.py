"""The memorization command: run or reuse each analysis, and write what was found."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from noiseaudit._io import make_folder, read_json, write_csv, write_json
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads, select_device
from noiseaudit.errors import DataError, OutputError, UsageError, check_name
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, write_manifest
from noiseaudit.memorization.findings import Analysis
from noiseaudit.memorization.presentation import build_profile_document, draw_figures
from noiseaudit.memorization.presets import choose_preset
from noiseaudit.memorization.problems import check_dataset
from noiseaudit.memorization.profile import ANALYSES, MemorizationProfile, profile_memorization
from noiseaudit.report import document_to_dict, write_report
from noiseaudit.workspace import output_folder

__all__ = ["check_profile_options", "memorization_profile"]

logger = logging.getLogger(__name__)

_FORMAT = 1  # raise it whenever the same settings would give other figures
_RESULTS = ("findings.csv", "report.html", "report.json")
_SEEDS = 5


def memorization_profile(
    source: Any,
    *,
    out: str | Path | None = None,
    preset: str = "quick",
    seed: int = 0,
    num_seeds: int = _SEEDS,
    analyses: Sequence[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    progress: bool = False,
) -> MemorizationProfile:
    """Tell whether a data set, with these labels, is being learned or memorised.

    Small networks are trained on the data as given and on controls of the same size (random labels,
    random inputs, noise in between), and eight published differences between data and noise are
    tested: see `profile_memorization`. Cost of "quick": five to ten minutes of one core.

    Source: Arpit et al., "A Closer Look at Memorization in Deep Networks", ICML 2017.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        out: folder for `findings.csv`, `report.html`, `figures/`, `manifest.json`, and each
            analysis as JSON; one that is finished there is not run again.
        preset: "quick", "full" (sizes nearer the paper's: for a GPU, or patience) or "smoke".
        seed: the first of the seeds; each draws its own examples, controls and networks.
        num_seeds: how many; with fewer than five there is no verdict.
        analyses: names of `ANALYSES`, all by default; more can be added to `out` later.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; default 1, the networks are small.
        resume: use what an earlier call with the same data and settings left in `out`; False starts
            over.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        DataError: if the source cannot be used, has fewer than 50 examples or one class.
        UsageError: for an option that does not exist or does not fit.
        OutputError: if `out` cannot be written or belongs to something else.
        ManifestMismatchError: if `out` holds a profile of other data or settings.
    """
    wanted = check_profile_options(preset, num_seeds, analyses, threads, device)
    place = select_device(device)
    dataset = load(source, progress=progress)
    check_dataset(dataset)
    seeds = tuple(range(seed, seed + num_seeds))
    count = 1 if threads is None else threads
    manifest = _manifest(dataset, preset, seeds, place.type, count)
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        store = make_folder(folder / "analyses")
        if not resume:
            shutil.rmtree(store)
            make_folder(store)
        found = {name: kept for name in ANALYSES if (kept := _read(store, name)) is not None}
        missing = [name for name in wanted if name not in found]
        if len(missing) < len(wanted):
            logger.info("reused: %s", ", ".join(name for name in wanted if name in found))

        def keep(analysis: Analysis) -> None:
            write_json(store / f"{analysis.name}.json", analysis.to_dict())
            found[analysis.name] = analysis

        with cpu_threads(count):
            profile_memorization(
                dataset, preset=preset, seeds=seeds, analyses=missing, device=place,
                progress=progress, on_result=keep,
            )  # fmt: skip
        profile = MemorizationProfile(
            dataset.name, preset, seeds, tuple(found[name] for name in ANALYSES if name in found)
        )
        if out is not None:
            _save(profile, dataset, manifest, folder)
    return MemorizationProfile(
        dataset.name, preset, seeds, tuple(found[name] for name in ANALYSES if name in wanted)
    )


def check_profile_options(
    preset: str, num_seeds: int, analyses: Sequence[str] | None, threads: int | None, device: str
) -> tuple[str, ...]:
    """Find what is wrong with options before any data is read; the analyses, each once.

    Raises:
        UsageError: naming the option.
    """
    choose_preset(preset)
    select_device(device)
    if num_seeds < 1:
        raise UsageError(f"num_seeds must be at least 1; got {num_seeds}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1; got {threads}")
    wanted = ANALYSES if analyses is None else tuple(dict.fromkeys(analyses))
    for name in wanted:
        check_name(name, ANALYSES, "analysis")
    if not wanted:
        raise UsageError("analyses is empty; name at least one, or leave it out for all")
    return wanted


def _manifest(
    dataset: LabeledDataset, preset: str, seeds: Sequence[int], device: str, threads: int
) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "command": "memorization",
        "source": dataset.name,
        "config": {
            "format": _FORMAT,
            "data": dataset.fingerprint,
            "preset": preset,
            "seeds": list(seeds),
            "device": device,
            "threads": threads,
        },
        "settings": asdict(choose_preset(preset)),
        "versions": package_versions(),
        "status": "running",
    }


def _read(store: Path, name: str) -> Analysis | None:
    """A finished analysis; None where there is none, or a damaged one."""
    path = store / f"{name}.json"
    try:
        return Analysis.from_dict(read_json(path)) if path.exists() else None
    except (OutputError, DataError):
        logger.warning("%s is damaged: the analysis is run again", path)
        return None


def _save(
    profile: MemorizationProfile, dataset: LabeledDataset, manifest: dict[str, Any], folder: Path
) -> None:
    header = [
        "analysis", "finding", "statement", "effect", "low", "high", "null", "direction", "p_value",
        "reproduced", "counts", "per_seed",
    ]  # fmt: skip
    rows = [
        [
            analysis.name, item.name, item.statement, item.effect, *(item.interval or (None, None)),
            item.null, item.direction, item.p_value, item.reproduced, item.counts,
            " ".join("" if value is None else f"{value:.6g}" for value in item.per_seed),
        ]
        for analysis in profile.analyses
        for item in analysis.findings
    ]  # fmt: skip
    write_csv(folder / "findings.csv", header, rows)
    figures = draw_figures(profile, make_folder(folder / "figures"))
    manifest |= {
        "status": "done",
        "results": {
            "analyses": len(profile.analyses),
            "reproduced": profile.num_reproduced,
            "seconds": sum(analysis.seconds for analysis in profile.analyses),
        },
    }
    document = build_profile_document(profile, dataset, manifest, figures)
    write_json(folder / "report.json", document_to_dict(document))
    write_report(document, folder / "report.html")
    write_manifest(folder / "manifest.json", manifest)

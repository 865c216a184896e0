"""Is this data set, with these labels, being learned or memorised: eight published signs of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from noiseaudit._html import show_table
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import full_float32, select_device
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.memorization.capacity import analyze_capacity, analyze_time_to_fit
from noiseaudit.memorization.complexity import analyze_critical_samples
from noiseaudit.memorization.early_peak import analyze_early_peak
from noiseaudit.memorization.easy_examples import analyze_easy_examples
from noiseaudit.memorization.findings import Analysis
from noiseaudit.memorization.presets import ProfileSettings, choose_preset
from noiseaudit.memorization.problems import check_dataset
from noiseaudit.memorization.regularizers import analyze_regularizers
from noiseaudit.memorization.sensitivity_analyses import (
    analyze_class_sensitivity,
    analyze_sensitivity_gini,
)

__all__ = ["ANALYSES", "DEFAULT_SEEDS", "MemorizationProfile", "analyze", "profile_memorization"]

logger = logging.getLogger(__name__)

DEFAULT_SEEDS = (0, 1, 2, 3, 4)
"""Five seeds, over which the t-tests are; fewer give no verdict."""

_Function = Callable[..., Analysis]

_FUNCTIONS: Mapping[str, _Function] = {
    "easy_examples": analyze_easy_examples,
    "sensitivity_gini": analyze_sensitivity_gini,
    "class_sensitivity": analyze_class_sensitivity,
    "capacity": analyze_capacity,
    "time_to_fit": analyze_time_to_fit,
    "critical_samples": analyze_critical_samples,
    "early_peak": analyze_early_peak,
    "regularizers": analyze_regularizers,
}

ANALYSES = tuple(_FUNCTIONS)
"""Names of the eight analyses, in the paper's order."""


@dataclass(frozen=True)
class MemorizationProfile:
    """The results of the analyses that were asked for: JSON by `to_dict`, back by `from_dict`.

    Attributes:
        dataset: its name.
        preset: name of the preset, or "custom".
        seeds: over which intervals and tests are.
        analyses: in the order of `ANALYSES`.
    """

    dataset: str
    preset: str
    seeds: tuple[int, ...]
    analyses: tuple[Analysis, ...]

    @property
    def num_reproduced(self) -> int:
        """How many of the analyses show what is published of real data."""
        return sum(analysis.reproduced for analysis in self.analyses)

    def _repr_html_(self) -> str:
        import pandas as pd

        frame = pd.DataFrame(
            [
                {
                    "analysis": analysis.name, "finding": item.statement, "effect": item.effect,
                    "p": item.p_value, "holds": item.reproduced,
                }
                for analysis in self.analyses
                for item in analysis.findings
            ],
            columns=["analysis", "finding", "effect", "p", "holds"],
        )  # fmt: skip
        caption = f"{self.num_reproduced} of {len(self.analyses)} published differences show here"
        return show_table(caption, frame, rows=len(frame))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: finite numbers, texts, lists and None."""
        return {
            "dataset": self.dataset,
            "preset": self.preset,
            "seeds": list(self.seeds),
            "analyses": [analysis.to_dict() for analysis in self.analyses],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> MemorizationProfile:
        """A profile from what `to_dict` made of it, before or after JSON.

        Raises:
            DataError: if something is missing or unknown.
        """
        try:
            return cls(
                dataset=value["dataset"],
                preset=value["preset"],
                seeds=tuple(value["seeds"]),
                analyses=tuple(Analysis.from_dict(analysis) for analysis in value["analyses"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"this is no stored memorisation profile: {error}") from error


def analyze(
    name: str,
    dataset: LabeledDataset,
    settings: ProfileSettings,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Run one analysis: a function of its arguments, but for `seconds`.

    Args:
        name: one of `ANALYSES`.
        dataset: images or vectors; a labelled sample is drawn from it for each seed.
        settings: those of `name` are used.
        seeds: at least one, all different; fewer than two give no interval and reproduce nothing.
        device: "auto", "cpu" or "cuda", or a device.

    Raises:
        UsageError: for an unknown name or device, or unsuitable seeds.
        DataError: if the data set has fewer than 50 examples or one class.
        NoiseAuditError: if training diverges.
    """
    check_name(name, ANALYSES, "analysis")
    _check_seeds(seeds)
    check_dataset(dataset)
    place = select_device(device) if isinstance(device, str) else device
    start = time.perf_counter()
    with full_float32(place):
        found = _FUNCTIONS[name](dataset, getattr(settings, name), tuple(seeds), device=place)
    seconds = time.perf_counter() - start
    told = "holds" if found.reproduced else "does not hold"
    logger.info("%s: %s here, after %.0f s", name.replace("_", " "), told, seconds)
    return replace(found, seconds=seconds)


def profile_memorization(
    dataset: LabeledDataset,
    *,
    preset: str | ProfileSettings = "quick",
    seeds: Sequence[int] = DEFAULT_SEEDS,
    analyses: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
    on_result: Callable[[Analysis], None] | None = None,
) -> MemorizationProfile:
    """Tell whether a data set, with these labels, is being learned or memorised.

    Each analysis trains small networks on the data as given and on controls of the same size, and
    tests one published difference between real data and noise. **Many reproduced: learned; few:
    the labels say as little of the inputs as noise does.** Some may fail on real data too: see
    each statement.

    Source: Arpit et al., "A Closer Look at Memorization in Deep Networks", ICML 2017.

    Args:
        dataset: at least 50 examples of two classes.
        preset: "quick", "full" or "smoke" (see `presets.choose_preset`), or settings of your own.
        seeds: see `analyze`; each draws its own examples, controls and networks.
        analyses: names, all by default.
        device: "auto", "cpu" or "cuda", or a device.
        progress: show a bar on stderr when it is a terminal.
        on_result: called with each analysis when it is done.

    Raises:
        UsageError: for an unknown preset, analysis or device, or unsuitable seeds.
        DataError: if the data set has fewer than 50 examples or one class.
        NoiseAuditError: if training diverges.
    """
    from tqdm.auto import tqdm

    settings = choose_preset(preset) if isinstance(preset, str) else preset
    wanted = ANALYSES if analyses is None else tuple(analyses)
    for name in wanted:
        check_name(name, ANALYSES, "analysis")
    ordered = [name for name in ANALYSES if name in wanted]
    found = []
    shown = None if progress else True
    for name in tqdm(ordered, desc="analyses", unit="analysis", disable=shown, dynamic_ncols=True):
        found.append(analyze(name, dataset, settings, seeds, device=device))
        if on_result:
            on_result(found[-1])
    return MemorizationProfile(
        dataset=dataset.name,
        preset=preset if isinstance(preset, str) else "custom",
        seeds=tuple(seeds),
        analyses=tuple(found),
    )


def _check_seeds(seeds: Sequence[int]) -> None:
    if not len(seeds) or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds must be different from each other, at least one; got {seeds}")

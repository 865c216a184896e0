"""C-scores of a data set: settle what to run, run what is missing, write the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noiseaudit._io import write_csv
from noiseaudit.cscore.cost import CScoreCost, predict_cost
from noiseaudit.cscore.plan import INTEGRAL, SCHEMES, SubsetPlan, as_fraction, default_ratio
from noiseaudit.cscore.result import CScores
from noiseaudit.cscore.runs import Execution, run_cscores
from noiseaudit.cscore.stack import can_stack
from noiseaudit.cscore.worker import Job, models_at_once
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import select_device
from noiseaudit.errors import UsageError, check_name
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, write_manifest
from noiseaudit.seeding import isolated_torch_rng
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.models import ModelFactory, build_model, choose_model
from noiseaudit.training.plan import TrainingPlan, check_training_options, make_plan
from noiseaudit.training.recipes import Recipe
from noiseaudit.workspace import output_folder

__all__ = [
    "check_cscore_options",
    "draw_subsets",
    "estimate_cscores",
    "make_job",
    "predict_cscore_cost",
    "prepare",
]

logger = logging.getLogger(__name__)

_FORMAT = 1
_RESULTS = ("cscores.npz", "agreement.csv")
_PROBS = 2**23  # examples times classes up to which probabilities are kept


def estimate_cscores(
    source: Any,
    *,
    out: str | Path | None = None,
    subset_ratio: float | Sequence[float] | str | None = None,
    runs: int = 100,
    scheme: str = "balanced",
    model: str | ModelFactory = "auto",
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    executor: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    until_stable: float | None = None,
    resume: bool = True,
    progress: bool = False,
) -> CScores:
    """C-scores: train many models on subsets, see how often each label is predicted unseen.

    Algorithm 1 of Jiang, Zhang, Talwar & Mozer (ICML 2021), with subsets that hold out every
    example equally often unless `scheme` is "iid". Runs are kept in `out`: a second call with more
    `runs` or further ratios trains only what is missing, with fewer uses the first ones. The result
    is always of the ratios and runs asked for.

    Cost: `runs` trainings on the subset and a forward pass over all, at each ratio; memory O(n) for
    each ratio, beside the models in flight. `predict_cscore_cost` says what it will take.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        out: folder for runs and results; without it nothing is kept.
        subset_ratio: share of the data that a model trains on, a whole percentage; several give the
            mean over them, "integral" means 0.1 to 0.9. Default: the paper's for MNIST (0.1),
            CIFAR-10 (0.3), CIFAR-100 (0.5) and ImageNet (0.7), else 0.5.
        runs: models at each ratio.
        scheme: "balanced" or "iid", see `cscore.plan.SubsetPlan`.
        model: "auto", a name, or a factory, as in `audit`.
        epochs: instead of the recipe's number.
        augmentation: as in `audit`, but "auto" is none for `mlp` and whatever else is `Flatten`,
            `Linear` and `ReLU` in a row: several of these then train at a time.
        recipe: fields of `Recipe` to change in the default one for as many examples as a subset
            has, or a whole one.
        seed: of all randomness.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of one model's training; default 1, and as many processes as cores.
        executor: "serial", "processes" or "ray"; default processes on a CPU, serial on CUDA. Scores
            do not depend on it.
        workers: of "processes"; default as many as cores allow.
        ray_address: of the caller's cluster, for "ray"; default the one on this machine.
        until_stable: stop before all `runs` once soft scores of one half of them agree with the
            other half's by this Spearman correlation, or, of 2,000 examples or more, nine in ten of
            the 1% lowest are the same.
        resume: go on with, or reuse, what `out` holds; False starts over.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        DataError: if the source cannot be used.
        UsageError: for an option that does not exist or does not fit.
        OutputError: if `out` cannot be written or belongs to something else.
        ManifestMismatchError: if `out` holds C-scores of other data or settings.
    """
    execution = check_cscore_options(
        subset_ratio=subset_ratio,
        runs=runs,
        scheme=scheme,
        executor=executor,
        workers=workers,
        ray_address=ray_address,
        until_stable=until_stable,
        model=model,
        device=device,
        augmentation=augmentation,
        recipe=recipe,
    )
    dataset = load(source, seed=seed, device=device, progress=progress)
    job = prepare(
        dataset,
        subset_ratio=subset_ratio,
        scheme=scheme,
        model=model,
        epochs=epochs,
        augmentation=augmentation,
        recipe=recipe,
        seed=seed,
        device=device,
        threads=threads,
    )
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "command": "cscores",
        "source": dataset.name,
        "config": {"dataset": dataset.fingerprint, "scheme": scheme, "seed": seed},
        "class_names": list(dataset.class_names),
        "subset_ratios": list(job.subsets),
        "runs": runs,
        "versions": package_versions(),
        "status": "running",
    }
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        found, seconds = run_cscores(
            job, folder / "runs", runs=runs, execution=execution, resume=resume, progress=progress
        )
        if out is not None:
            write_manifest(folder / "manifest.json", manifest)  # until all files are of one run
            found.save(folder / "cscores.npz")
            rows = found.agreement
            write_csv(folder / "agreement.csv", list(rows[0]), [list(row.values()) for row in rows])
            done = int(rows[-1]["runs"])
            results = {
                "examples": len(found),
                "runs": done,
                "never_held_out": int(np.isnan(found.scores).sum()),
                "training_seconds": seconds,
                "pred_probs": found.pred_probs is not None,
                "models_at_once": {str(ratio): models_at_once(job, ratio) for ratio in job.subsets},
            }
            write_manifest(
                folder / "manifest.json", {**manifest, "status": "done", "results": results}
            )
    return found


def check_cscore_options(
    *,
    subset_ratio: float | Sequence[float] | str | None = None,
    runs: int = 100,
    scheme: str = "balanced",
    executor: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    until_stable: float | None = None,
    model: str | ModelFactory = "auto",
    device: str = "auto",
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
) -> Execution:
    """Find what is wrong with options of `estimate_cscores` before any data is read.

    Raises:
        UsageError: naming the option.
    """
    check_training_options(model, device, augmentation, recipe)
    check_name(scheme, SCHEMES, "scheme")
    if runs < 1:
        raise UsageError(f"runs must be at least 1; got {runs}")
    _ratios(subset_ratio, "")
    return Execution(executor, workers, ray_address, until_stable)


def predict_cscore_cost(source: Any, *, runs: int = 100, **options: Any) -> list[CScoreCost]:
    """What `estimate_cscores` with these options would take at each ratio, by a short trial.

    Cost: training on a few thousand examples for an epoch, twice, at each ratio.

    Args:
        source: as there.
        runs: as there.
        options: `subset_ratio`, `scheme`, `model`, `epochs`, `augmentation`, `recipe`, `seed`,
            `device` and `threads`, as there.

    Raises:
        DataError: if the source cannot be used.
        UsageError: for an option that does not exist or does not fit.
    """
    seed, device = options.get("seed", 0), options.get("device", "auto")
    return predict_cost(prepare(load(source, seed=seed, device=device), **options), runs)


def prepare(
    dataset: LabeledDataset,
    *,
    subset_ratio: float | Sequence[float] | str | None = None,
    scheme: str = "balanced",
    model: str | ModelFactory = "auto",
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> Job:
    """Settle what `estimate_cscores`, which has the arguments explained, would run.

    Raises:
        UsageError: for an option that does not exist or does not fit the data.
    """
    torch_device = select_device(device)
    if model == "auto":
        model = choose_model(dataset.input_shape, torch_device.type)
    if augmentation == "auto" and not isinstance(recipe, Recipe):
        with isolated_torch_rng(seed, "weights"):
            network = build_model(model, dataset.input_shape, dataset.num_classes)
        if can_stack(network, dataset.input_shape, Recipe(epochs=1)):
            augmentation = "none"
    if threads is None and torch_device.type == "cpu":
        threads = 1
    subsets = draw_subsets(dataset, subset_ratio, scheme, seed)
    training = {
        ratio: make_plan(
            dataset,
            model=model,
            epochs=epochs,
            augmentation=augmentation,
            recipe=recipe,
            seed=seed,
            device=device,
            threads=threads,
            examples=subset.size,
        )
        for ratio, subset in subsets.items()
    }
    return make_job(dataset, subsets, training)


def draw_subsets(
    dataset: LabeledDataset,
    subset_ratio: float | Sequence[float] | str | None,
    scheme: str,
    seed: int,
) -> dict[float, SubsetPlan]:
    """The plan of each ratio, in growing order.

    Raises:
        UsageError: for a ratio that is no number in (0, 1), or none.
    """
    return {
        ratio: SubsetPlan(dataset.labels, ratio, scheme, seed)
        for ratio in _ratios(subset_ratio, dataset.name)
    }


def _ratios(subset_ratio: float | Sequence[float] | str | None, name: str) -> list[float]:
    if subset_ratio is None:
        return [default_ratio(name)]
    if isinstance(subset_ratio, str):
        check_name(subset_ratio, ("integral",), "subset ratio")
        return list(INTEGRAL)
    ratios = list(np.atleast_1d(np.asarray(subset_ratio, dtype=np.float64)))
    if not ratios:
        raise UsageError("subset_ratio is empty; name at least one ratio")
    return sorted({float(as_fraction(float(ratio))) for ratio in ratios})


def make_job(
    dataset: LabeledDataset,
    subsets: Mapping[float, SubsetPlan],
    training: Mapping[float, TrainingPlan],
) -> Job:
    """A job that keeps held-out probabilities where they are not too many."""
    keep_probs = len(dataset) * dataset.num_classes <= _PROBS
    if not keep_probs:
        logger.info("C-scores: held-out pred_probs are not kept, there would be too many")
    return Job(dataset, subsets, training, keep_probs)

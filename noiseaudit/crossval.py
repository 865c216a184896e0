"""Out-of-sample probabilities: stratified k-fold with the audit's own model and recipe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from noiseaudit._io import make_folder, read_npz, write_npz
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads
from noiseaudit.errors import UsageError
from noiseaudit.manifest import read_manifest, require_same, write_manifest
from noiseaudit.seeding import derive_seed, generator
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan

__all__ = ["HeldOut", "assign_folds", "cross_validate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What models that did not train on an example predict for it.

    Attributes:
        pred_probs: (n, k) float32, out-of-sample.
        folds: (n,) int64, the fold in which each example was held out.
        seconds: of training, per fold.
    """

    pred_probs: NDArray[np.float32]
    folds: NDArray[np.int64]
    seconds: list[float]


def assign_folds(labels: NDArray[np.int64], folds: int, *, seed: int) -> NDArray[np.int64]:
    """(n,) fold of each example: every class spread evenly, fold sizes within one of each other.

    Raises:
        UsageError: unless 2 <= folds <= n.
    """
    if not 2 <= folds <= len(labels):
        raise UsageError(f"folds must be in 2..{len(labels)}, the number of examples; got {folds}")
    random = generator(seed, "folds")
    # Shuffled, then grouped by class: dealing out in turn spreads classes and sizes alike.
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    assigned = np.empty(len(labels), dtype=np.int64)
    assigned[order] = np.arange(len(labels)) % folds
    return assigned


def cross_validate(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    folder: Path,
    *,
    folds: int = 4,
    resume: bool = True,
    progress: bool = False,
) -> HeldOut:
    """Train `folds` models, each without one fold, and predict that fold; finished folds are kept.

    Cost: `folds` trainings on (folds - 1) / folds of the data each.

    Raises:
        ManifestMismatchError: if `folder` holds folds of other data or settings and `resume`.
        UsageError: if `folds` is out of range.
    """
    make_folder(folder)
    assigned = assign_folds(dataset.labels, folds, seed=plan.seed)
    config = {**plan.config(dataset), "folds": folds}
    stored = read_manifest(folder / "manifest.json")
    if stored is not None and resume:
        require_same(stored, config, folder)
    else:
        for path in [*folder.glob("fold_*.npz"), *folder.glob("fold_*.pt")]:
            path.unlink()
        write_manifest(folder / "manifest.json", config)
    pred_probs = np.empty((len(dataset), dataset.num_classes), dtype=np.float32)
    seconds = []
    for fold in range(folds):
        path = folder / f"fold_{fold}.npz"
        if not path.exists():
            logger.info("cross-validation: fold %d of %d", fold + 1, folds)
            _run_fold(dataset, plan, assigned == fold, path, config, progress=progress)
        result = read_npz(path, ("pred_probs", "seconds"))
        pred_probs[assigned == fold] = result["pred_probs"]
        seconds.append(float(result["seconds"]))
    return HeldOut(pred_probs, assigned, seconds)


def _run_fold(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    held_out: NDArray[np.bool_],
    path: Path,
    config: dict[str, object],
    *,
    progress: bool,
) -> None:
    checkpoint = path.with_suffix(".pt")
    with cpu_threads(plan.threads):
        whole = Inputs(dataset, plan.device)
        trained = train(
            lambda: build_model(plan.model, dataset.input_shape, dataset.num_classes),
            whole.subset(np.flatnonzero(~held_out)),
            plan.recipe,
            {},
            seed=derive_seed(plan.seed, path.stem),
            checkpoint=checkpoint,
            config=config,
            progress=progress,
        )
        inputs = whole.subset(np.flatnonzero(held_out), scaled_like=trained.inputs)
        probs = F.softmax(CleanPass(trained.model, inputs).logits, dim=1).numpy()
    seconds = sum(epoch["seconds"] for epoch in trained.history)
    write_npz(path, {"pred_probs": probs, "seconds": np.array(seconds)})
    checkpoint.unlink(missing_ok=True)

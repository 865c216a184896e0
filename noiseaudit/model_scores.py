"""Scores of a model that is already trained: any checkpoint, at any epoch of a loop of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noiseaudit.dataset import LabeledDataset
from noiseaudit.detectors.curvature import Curvature, CurvatureObserver
from noiseaudit.errors import UsageError, check_name
from noiseaudit.loss_curvature import random_signs, squared_trace, squared_trace_piecewise_linear
from noiseaudit.observers import GradientBatch
from noiseaudit.seeding import derive_seed
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs

__all__ = ["CURVATURES", "curvature"]

CURVATURES = ("finite_difference", "hessian", "hessian_piecewise_linear")
"""Ways to measure it; the first is another quantity than the other two."""


def curvature(
    model: nn.Module,
    dataset: LabeledDataset,
    *,
    method: Literal["finite_difference", "hessian", "hessian_piecewise_linear"] = (
        "finite_difference"
    ),
    h: float = 0.01,
    probes: int = 1,
    units: Literal["pixel", "normalised"] = "pixel",
    squared: bool = False,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Curvature of the loss around each input, as the model stands.

    What finds wrong labels is the mean over the epochs of training: in a loop of your own call this
    at each epoch's end with another seed and average, or use `noiseaudit audit --detectors
    curvature`. A score depends on the example, the model and the seed, not on the other examples;
    weights, buffers, gradients and the model's mode stay as they are.

    Cost: "finite_difference" 1 + probes forward passes and backward passes by the inputs; "hessian"
    four to five for each probe; "hessian_piecewise_linear" one forward and k backward passes.

    Args:
        model: from (b, c, h, w) images or (b, d) vectors, normalised, to logits (b, k); on any
            device.
        dataset: images are scaled to [0, 1] and then normalised.
        method: "finite_difference": the change of the gradient over a step h, the published score.
            "hessian": tr(H^2) by exact Hessian-vector products. "hessian_piecewise_linear": the
            same in closed form, for networks of ReLU, max-pool and batch norm; it ignores labels.
            On such networks the first differs from the others by orders of magnitude and ranks
            differently: `noiseaudit.loss_curvature`.
        h: step of the finite difference, per element.
        probes: random directions of the first two.
        units: of h and the gradients: raw inputs (pixels in [0, 1]) or normalised ones.
        squared: of the finite difference: the squared length, as the paper prints it, instead of
            the length.
        seed: of the directions.
        mean: per channel (of pixels in [0, 1]) or feature, that the model was trained with;
            default: that of `dataset`, as in noiseaudit's own training.
        std: likewise.

    Returns:
        (n,) float64, at least 0, in the order of `dataset`.

    Raises:
        UsageError: for an option with a value that it cannot have.

    Source: Garg, Ravikumar & Roy, ICML 2024, equations 3 and 6.
    """
    check_name(method, CURVATURES, "method")
    settings = Curvature(h=h, probes=probes, units=units, squared=squared)
    first = next(model.parameters(), None)
    inputs = Inputs(dataset, torch.device("cpu") if first is None else first.device)
    inputs.mean = _normalisation(inputs.mean, mean, "mean")
    inputs.std = _normalisation(inputs.std, std, "std")
    if bool((inputs.std <= 0).any()):
        raise UsageError("std must be positive")
    view = CleanPass(model, inputs)
    if method == "finite_difference":
        observer = CurvatureObserver(settings, dataset.ids, seed)
        observer.on_epoch_end(view)
        view.finish()
        return observer.compute()[settings.statistic]
    values = np.empty(len(dataset), dtype=np.float64)

    def visit(batch: GradientBatch) -> None:
        scale = batch.pixel if units == "pixel" else torch.ones_like(batch.pixel)
        if method == "hessian_piecewise_linear":
            found = squared_trace_piecewise_linear(batch.model, batch.inputs, scale)
        else:
            ids = torch.from_numpy(dataset.ids[batch.rows]).to(batch.inputs.device)
            found = torch.zeros(len(ids), device=batch.inputs.device)
            for probe in range(probes):
                signs = random_signs(
                    ids, tuple(batch.inputs.shape[1:]), derive_seed(seed, "hessian", probe)
                )
                found += squared_trace(batch.model, batch.inputs, batch.labels, signs, scale)
            found /= probes
        values[batch.rows] = found.cpu().numpy()

    view.visit_gradients(visit, lambda: None)
    view.finish()
    return values


def _normalisation(of_data: Tensor, given: Sequence[float] | None, name: str) -> Tensor:
    if given is None:
        return of_data
    values = torch.as_tensor(given, dtype=of_data.dtype, device=of_data.device)
    if values.numel() != of_data.numel():
        raise UsageError(f"{name} must have {of_data.numel()} values; got {values.numel()}")
    return values.reshape(of_data.shape)

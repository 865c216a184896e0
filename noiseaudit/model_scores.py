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
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.loss_curvature import random_signs, squared_trace, squared_trace_piecewise_linear
from noiseaudit.seeding import derive_seed
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.watching import GradientBatch

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
    units: Literal["auto", "pixel", "normalised"] = "auto",
    squared: bool = False,
    bfloat16: bool = False,
    seed: int = 0,
    scaled_like: LabeledDataset | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Curvature of the loss around each input, as the model stands.

    What finds wrong labels is the mean over the epochs of training: in a loop of your own call this
    at each epoch's end with another seed and average, or use `noiseaudit audit --detectors
    curvature`. Weights, buffers, gradients and the model's mode stay as they are. Given how inputs
    are normalised, a score depends on the example, the model and the seed, not on other examples.

    Cost: one forward pass and one backward pass by the inputs, and further: "finite_difference" as
    many for each probe, "hessian" 2 to 5 times as much for each, "hessian_piecewise_linear" one
    forward and k backward passes.

    Args:
        model: from (b, c, h, w) images or (b, d) vectors, normalised, to logits (b, k); on any
            device.
        dataset: at least one example; images are scaled to [0, 1] and then normalised.
        method: "finite_difference": the change of the gradient over a step h, the published score.
            "hessian": tr(H^2) by exact Hessian-vector products. "hessian_piecewise_linear": the
            same in closed form, for networks of ReLU, max-pool and batch norm; it ignores labels.
            On such networks the first is another quantity: `noiseaudit.loss_curvature`.
        h: step of the finite difference, per element.
        probes: random directions of the first two.
        units: of h and the gradients: "pixel", raw inputs (pixels in [0, 1]); "normalised", the
            model's; "auto", the first for pictures, the second for vectors.
        squared: of the finite difference: the squared length, as the paper prints it, instead of
            the length.
        bfloat16: of the finite difference, for h of at least 0.01: gradients under autocast.
        seed: of the directions.
        scaled_like: the examples that the model was trained on, whose mean and deviation its
            inputs are normalised with; default: `dataset`, right only where that is them.
        mean: instead, per channel (of pixels in [0, 1]) or feature.
        std: likewise.

    Returns:
        (n,) float64, at least 0, in the order of `dataset`.

    Raises:
        DataError: if there is no example.
        UsageError: for an option with a value that it cannot have.

    Source: Garg, Ravikumar & Roy, ICML 2024, equations 3 and 6.
    """
    check_name(method, CURVATURES, "method")
    settings = Curvature(h=h, probes=probes, units=units, squared=squared, bfloat16=bfloat16)
    if bfloat16 and method != CURVATURES[0]:
        raise UsageError(f"bfloat16 is of {CURVATURES[0]}; {method} is computed in float32")
    if not len(dataset):
        raise DataError("there are no examples")
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    like = None if scaled_like is None else Inputs(scaled_like, device)
    inputs = Inputs(dataset, device, scaled_like=like)
    inputs.scale = (
        _normalisation(inputs.mean, mean, "mean"), _normalisation(inputs.std, std, "std")
    )  # fmt: skip
    if not bool((inputs.std > 0).all()):
        raise UsageError("std must be positive")
    view = CleanPass(model, inputs)
    if method == "finite_difference":
        observer = CurvatureObserver(settings, dataset.ids, seed)
        observer.on_epoch_end(view)
        view.finish()
        return observer.compute()[settings.statistic]
    values = np.empty(len(dataset), dtype=np.float64)

    def visit(batch: GradientBatch) -> None:
        scale = settings.scale_of(batch)
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
    if not bool(torch.isfinite(values).all()):
        raise UsageError(f"{name} must be finite; got {list(given)}")
    return values.reshape(of_data.shape)

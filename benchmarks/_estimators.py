"""The finite difference beside the exact score and in bfloat16: what each finds, and its time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from noiseaudit.evaluation import auroc
from noiseaudit.label_noise import flip_uniform
from noiseaudit.loss_curvature import (
    gradient_change,
    hessian_product,
    loss_gradient,
    random_signs,
    squared_trace_piecewise_linear,
)
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import make_plan
from noiseaudit.watching import CleanView, GradientBatch

SMALL, USUAL = 0.001, 0.01
RATE = 0.1
TIMED, REPEATS = 256, 9


class Estimators:
    """Sums over epochs of every score of each example, and seconds; ratios epoch by epoch."""

    def __init__(self, n: int) -> None:
        names = (f"h = {SMALL}", f"h = {USUAL}", f"h = {USUAL}, bfloat16", "exact")
        self.scores = {name: np.zeros(n) for name in names}
        self.seconds = dict.fromkeys(names, 0.0)
        self.over_exact: list[float] = []
        self.last: GradientBatch | None = None

    def on_batch(self, *_: Any) -> None: ...

    def on_epoch_end(self, clean: CleanView) -> None:
        ratios: list[torch.Tensor] = []

        def add(name: str, rows: slice, measure: Callable[[], torch.Tensor]) -> torch.Tensor:
            began = time.perf_counter()
            found = measure()
            self.seconds[name] += time.perf_counter() - began
            self.scores[name][rows] += found.sqrt().cpu().numpy()
            return found

        def visit(batch: GradientBatch) -> None:
            rows, exact = batch.rows, "exact"
            ids = torch.arange(rows.start, rows.stop, device=batch.inputs.device)
            signs = random_signs(ids, tuple(batch.inputs.shape[1:]), len(self.over_exact))
            trace = add(
                exact, rows,
                lambda: squared_trace_piecewise_linear(batch.model, batch.inputs, batch.pixel),
            )  # fmt: skip
            for name in self.scores:
                if name == exact:
                    continue
                h = SMALL if name == f"h = {SMALL}" else USUAL
                change = add(name, rows, lambda h=h, name=name: self._change(batch, signs, h, name))
                if h == SMALL:
                    ratios.append(change / h**2 / trace)
            self.last = batch

        def done() -> None:
            self.over_exact.append(float(torch.cat(ratios).nanmedian()))

        clean.visit_gradients(visit, done)

    @staticmethod
    def _change(batch: GradientBatch, signs: torch.Tensor, h: float, name: str) -> torch.Tensor:
        """With its own clean gradient, so that times can be compared."""
        device = batch.inputs.device.type
        with torch.autocast(device, torch.bfloat16, enabled=name.endswith("bfloat16")):
            _, gradient = loss_gradient(batch.model, batch.inputs, batch.labels)
            return gradient_change(
                batch.model, batch.inputs, batch.labels, gradient, signs, h, batch.pixel
            )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def milliseconds(batch: GradientBatch) -> dict[str, float]:
    """Medians for 256 examples: an input gradient, and Hessian-vector products both ways."""
    repeats = -(-TIMED // len(batch.inputs))
    inputs = batch.inputs.repeat(repeats, *[1] * (batch.inputs.ndim - 1))[:TIMED]
    labels, vectors = batch.labels.repeat(repeats)[:TIMED], torch.ones_like(inputs)
    measured: dict[str, Callable[[], Any]] = {
        "gradient": lambda: loss_gradient(batch.model, inputs, labels),
        "double_backward": lambda: hessian_product(batch.model, inputs, labels, vectors),
        "forward": lambda: hessian_product(batch.model, inputs, labels, vectors, "forward"),
    }
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(REPEATS):
        for name, call in measured.items():
            began = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: float(np.median(values[1:])) for name, values in taken.items()}


def estimators(setup: Any, options: argparse.Namespace) -> dict[str, Any]:
    clean = setup.load(options.data_root)
    labels = flip_uniform(clean.labels, clean.num_classes, RATE, seed=0)
    data, key = clean.with_labels(labels), labels != clean.labels
    plan = make_plan(data, threads=options.threads, **setup.training)
    watching = Estimators(len(data))
    trained = train(
        lambda: build_model(plan.model, data.input_shape, data.num_classes),
        Inputs(data, plan.device), plan.recipe, {"all": watching}, seed=0, progress=True,
    )  # fmt: skip
    trained.model.eval()
    return {
        "setup": setup.name, "examples": len(data), "epochs": plan.recipe.epochs,
        "auroc": {name: auroc(scores, key) for name, scores in watching.scores.items()},
        "seconds": watching.seconds,
        f"median_over_exact_at_{SMALL}": watching.over_exact,
        "milliseconds_of_256": milliseconds(watching.last),
    }  # fmt: skip

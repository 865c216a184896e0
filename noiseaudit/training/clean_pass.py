"""The lazy clean pass: the whole data set through the model in eval mode, only when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from noiseaudit.device import full_float32
from noiseaudit.loss_curvature import loss_gradient
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.models import last_linear
from noiseaudit.watching import GradientBatch

__all__ = ["CleanPass"]

_BATCH = 1024
_CPU_ROWS = 128  # of a backward pass
_ELEMENTS = 2**22  # of inputs that a backward pass takes on CUDA


class _Visitor(NamedTuple):
    visit: Callable[[GradientBatch], None]
    done: Callable[[], None]
    bfloat16: bool


class CleanPass:
    """Arrays of one epoch's end; each is computed once, by the first observer that asks.

    Eval mode, no augmentation; the model's mode, weights, buffers and gradients are as before.

    Args:
        model: on the device of `inputs`.
        inputs: the data set.
        feature_layer: the layer whose input is "the features"; default: the last linear layer.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, *, feature_layer: nn.Module | None = None
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._feature_layer = feature_layer
        self._visitors: list[_Visitor] = []

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._inputs), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(self._inputs)))
            batch = self._inputs.normalise(self._inputs.raw(rows))
            yield batch, self._inputs.labels[start : start + _BATCH]

    @contextmanager
    def _eval_mode(self) -> Iterator[None]:
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

    @cached_property
    def logits(self) -> Tensor:
        """(n, k) float32 on the host. Cost: one forward pass."""
        if "_forward_with_features" in self.__dict__:
            return self._forward_with_features[0]
        if "_forward_with_gradient" in self.__dict__:
            return self._forward_with_gradient[0]
        with self._eval_mode(), torch.no_grad():
            return torch.cat([self._model(batch).float().cpu() for batch, _ in self._batches()])

    @property
    def features(self) -> Tensor:
        """(n, d) float32 on the host: input of the last linear layer. Cost: one forward pass."""
        return self._forward_with_features[1]

    @property
    def input_gradient(self) -> Tensor:
        """(n, ...) float32 on the host: gradient of each example's own loss (a sum, not a mean).

        With respect to the normalised input. Cost: one forward and one backward pass.
        """
        return self._forward_with_gradient[1]

    @cached_property
    def _forward_with_features(self) -> tuple[Tensor, Tensor]:
        layer = self._feature_layer or last_linear(self._model)
        caught: list[Tensor] = []
        handle = layer.register_forward_pre_hook(
            lambda _module, arguments: caught.append(arguments[0].detach().flatten(1))
        )
        logits, features = [], []
        try:
            with self._eval_mode(), torch.no_grad():
                for batch, _ in self._batches():
                    caught.clear()
                    logits.append(self._model(batch).float().cpu())
                    features.append(caught[-1].float().cpu())
        finally:
            handle.remove()
        return torch.cat(logits), torch.cat(features)

    @cached_property
    def _forward_with_gradient(self) -> tuple[Tensor, Tensor]:
        logits: dict[int, Tensor] = {}
        gradients: dict[int, Tensor] = {}

        def visit(batch: GradientBatch) -> None:
            logits[batch.rows.start] = batch.logits.float().cpu()
            gradients[batch.rows.start] = batch.gradient.float().cpu()

        self._visit([visit])
        return torch.cat(list(logits.values())), torch.cat(list(gradients.values()))

    def visit_gradients(
        self,
        visit: Callable[[GradientBatch], None],
        done: Callable[[], None],
        *,
        bfloat16: bool = False,
    ) -> None:
        """Ask for every batch with its input gradient, in order; `done` is called after the last.

        The batches come with `finish`: all who ask for the same precision share one pass, a forward
        and a backward pass by the inputs alone.
        """
        self._visitors.append(_Visitor(visit, done, bfloat16))

    def finish(self) -> None:
        """Serve those who asked for gradients."""
        visitors, self._visitors = self._visitors, []
        for bfloat16 in (False, True):
            visits = [visitor.visit for visitor in visitors if visitor.bfloat16 == bfloat16]
            if visits:
                self._visit(visits, bfloat16=bfloat16)
        for visitor in visitors:
            visitor.done()

    def _visit(
        self, visits: Sequence[Callable[[GradientBatch], None]], *, bfloat16: bool = False
    ) -> None:
        """All batches; where memory ends, in smaller ones, some rows then come twice."""
        start, size = 0, self._rows_at_once()
        device = self._inputs.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
        with self._eval_mode(), full_float32(device), autocast:
            while start < len(self._inputs):
                stop = min(start + size, len(self._inputs))
                if self._visit_rows(slice(start, stop), visits, is_last_try=size == 1):
                    start = stop
                else:
                    size //= 2
                    torch.cuda.empty_cache()

    def _visit_rows(
        self,
        rows: slice,
        visits: Sequence[Callable[[GradientBatch], None]],
        *,
        is_last_try: bool,
    ) -> bool:
        """Whether the device's memory was enough."""
        try:
            raw = self._inputs.raw(np.arange(rows.start, rows.stop))
            batch, labels = self._inputs.normalise(raw), self._inputs.labels[rows]
            logits, gradient = loss_gradient(self._model, batch, labels)
            pixel = 1 / self._inputs.std
            told = GradientBatch(self._model, rows, batch, labels, logits, gradient, pixel)
            for visit in visits:
                visit(told)
        except torch.cuda.OutOfMemoryError:
            if is_last_try:
                raise
            return False
        return True

    def _rows_at_once(self) -> int:
        """Few on a CPU, whose caches they leave; on CUDA fewer of large inputs."""
        if self._inputs.device.type == "cpu":
            return _CPU_ROWS
        elements = self._inputs.raw(np.zeros(1, dtype=np.int64)).numel()
        return max(1, min(_BATCH, _ELEMENTS // elements))

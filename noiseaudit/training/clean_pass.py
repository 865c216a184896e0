"""The lazy clean pass: the whole data set through the model in eval mode, only when asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseaudit.training.inputs import Inputs
from noiseaudit.training.models import last_linear

__all__ = ["CleanPass"]

_BATCH = 1024


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
        logits, gradients = [], []
        with self._eval_mode(), torch.enable_grad():
            for batch, labels in self._batches():
                batch = batch.detach().requires_grad_()
                output = self._model(batch)
                loss = F.cross_entropy(output.float(), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, batch)
                logits.append(output.detach().float().cpu())
                gradients.append(gradient.float().cpu())
        return torch.cat(logits), torch.cat(gradients)

"""Curvature of the loss around an input: finite differences, exact products, closed form.

All of it is of one batch through a model in eval mode whose weights stay as they are. The loss is
each example's own cross-entropy (a sum over the batch, never a mean), so that no score depends on
what else is in the batch.

**Two different quantities go by one name.** The change of the gradient over a step h (the paper's
Eq. 4-6, `gradient_change`) contains every kink of a ReLU that the step crosses; the exact score
tr(H^2) (`squared_trace`, `squared_trace_piecewise_linear`) contains none. Divided by h^2 they agree
on smooth activations. On ReLU networks the first is the larger, the more kinks a step crosses: on
MNIST with h = 0.001 its median was 400 to 8,000 times the exact score with `cnn`, and about equal
to it with `mlp`. And the kinks help to find wrong labels: averaged over 10 epochs without
augmentation, with 10% flipped, a step of 0.01 had AUROC 0.99 (`cnn`, 3,000 examples) and 0.97
(`mlp`, 5,000), the exact score 0.91 and 0.88 (`benchmarks/curvature.py`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

__all__ = [
    "gradient_change",
    "hessian_product",
    "loss_gradient",
    "random_signs",
    "squared_trace",
    "squared_trace_piecewise_linear",
]

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # of splitmix64 (Steele, Lea & Flood, OOPSLA 2014), int64
_MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_WORD = 64
_JACOBIAN = 2**26  # elements held at once


def _mixed(words: Tensor) -> Tensor:
    """splitmix64's finaliser: every bit of the result depends on every bit of the word."""
    for shift, factor in _MIX:
        words = (words ^ _shifted(words, shift)) * factor
    mixed: Tensor = words ^ _shifted(words, 31)
    return mixed


def _shifted(words: Tensor, bits: int) -> Tensor:
    """A logical right shift: int64 has only the arithmetic one."""
    shifted: Tensor = (words >> bits) & (2 ** (_WORD - bits) - 1)
    return shifted


def random_signs(ids: Tensor, shape: tuple[int, ...], seed: int) -> Tensor:
    """Rademacher variables, +1 or -1: those of an example depend on its id and the seed alone.

    Counter-based, not drawn from a generator, so that neither batches nor their order nor the
    device matter.

    Args:
        ids: (b,) int64.
        shape: of one example's variables.
        seed: 63 bits.

    Returns:
        (b, *shape) float32 on the device of `ids`.
    """
    elements = int(torch.Size(shape).numel())
    counters = torch.arange(-(-elements // _WORD), device=ids.device) * _GOLDEN
    key = int(_mixed(torch.tensor(seed) + _GOLDEN))  # on the host: nothing is sent to the device
    words = _mixed(_mixed(ids ^ key)[:, None] + counters)
    bits = (words[..., None] >> torch.arange(_WORD, device=ids.device)) & 1
    signs = bits.reshape(len(ids), -1)[:, :elements].float().mul_(2).sub_(1)
    return signs.reshape(len(ids), *shape)


def loss_gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (b, k) and the gradient of each example's loss by its own input, (b, ...) float32."""
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        logits = _full(model(inputs))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
    return logits.detach(), gradient


def gradient_change(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    gradient: Tensor,
    signs: Tensor,
    h: float,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """Squared length of the gradient's change over a step: one probe of the paper's Eq. 6.

    Cost: one forward pass and one backward pass by the inputs alone.

    Args:
        model: in eval mode.
        inputs: (b, ...) as the model takes them.
        labels: (b,) int64.
        gradient: (b, ...), `loss_gradient` at `inputs`, shared by all probes.
        signs: (b, ...) of +1 and -1; the step is `h * scale * signs`, of length h sqrt(D) in units
            of `scale`.
        h: size of the step.
        scale: what one unit of h is in the model's inputs, broadcast over them: 1, or 1/std where
            h is of pixels in [0, 1]; gradients are then by pixels too.

    Returns:
        (b,), not divided by h^2 (as published).
    """
    _, moved = loss_gradient(model, inputs + h * scale * signs, labels)
    return ((moved - gradient) * scale).flatten(1).square().sum(dim=1)


def hessian_product(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    vectors: Tensor,
    method: Literal["double_backward", "forward"] = "double_backward",
) -> Tensor:
    """Hessian of each example's loss by its own input, times that example's vector, (b, ...).

    Args:
        model: in eval mode.
        inputs: (b, ...).
        labels: (b,) int64.
        vectors: (b, ...).
        method: "double_backward" (reverse mode twice), or "forward" (forward over reverse mode):
            equal values. On one CPU thread the first took 1.9 times an input gradient with `mlp`
            and 4.4 to 4.7 with `cnn`, the second 3.6 and 4.5 to 4.7 (`benchmarks/curvature.py`).
    """
    if method == "forward":
        gradient = torch.func.grad(lambda points: _summed_loss(model, points, labels))
        product: Tensor = jvp(gradient, (inputs.detach(),), (vectors,))[1]
        return product.detach()
    with torch.enable_grad():
        points = inputs.detach().requires_grad_()
        (found,) = torch.autograd.grad(
            _summed_loss(model, points, labels), points, create_graph=True
        )
        (product,) = torch.autograd.grad(found, points, grad_outputs=vectors)
    return product.detach()


def _summed_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(_full(model(inputs)), labels, reduction="sum")


def squared_trace(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    signs: Tensor,
    scale: Tensor | float = 1.0,
    method: Literal["double_backward", "forward"] = "double_backward",
) -> Tensor:
    """One probe of the exact score: ||H v||^2, whose mean over Rademacher v is tr(H^2).

    Source: the paper's Eq. 3, with an exact Hessian-vector product. Cost, args and returns are
    those of `hessian_product` and `gradient_change`.
    """
    product = hessian_product(model, inputs, labels, scale * signs, method) * scale
    return product.flatten(1).square().sum(dim=1)


def squared_trace_piecewise_linear(
    model: nn.Module, inputs: Tensor, scale: Tensor | float = 1.0
) -> Tensor:
    """tr(H^2) in closed form, (b,), where the model is piecewise linear in its input.

    For ReLU, max-pool and batch norm in eval mode, H = J' S J with the logits' Jacobian J (k, D)
    and S = diag(p) - p p', hence tr(H^2) = tr((S J J')^2): no probes, and **no label**: it depends
    on the labels through the weights alone. On other networks the second derivatives of the logits
    are missing from it.

    Cost: one forward and k backward passes; memory k times that of the inputs, taken in parts of at
    most 256 MiB.
    """
    size = max(1, _JACOBIAN // (inputs[0].numel() * _classes(model, inputs)))
    parts = [_squared_trace_part(model, part, scale) for part in inputs.split(size)]
    return torch.cat(parts)


def _classes(model: nn.Module, inputs: Tensor) -> int:
    with torch.no_grad():
        return int(model(inputs[:1]).shape[1])


def _squared_trace_part(model: nn.Module, inputs: Tensor, scale: Tensor | float) -> Tensor:
    with torch.enable_grad():
        points = inputs.detach().requires_grad_()
        logits = _full(model(points))
        jacobian = torch.empty(
            (len(points), logits.shape[1], points[0].numel()), dtype=points.dtype,
            device=points.device,
        )  # fmt: skip
        for c in range(logits.shape[1]):
            (row,) = torch.autograd.grad(logits[:, c].sum(), points, retain_graph=True)
            jacobian[:, c] = (row * scale).flatten(1)
    probs = logits.detach().softmax(dim=1)
    weights = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    product = weights @ (jacobian @ jacobian.transpose(1, 2)).to(weights.dtype)
    return (product * product.transpose(1, 2)).sum(dim=(1, 2))


def _full(logits: Tensor) -> Tensor:
    """float64: of a label that is fitted well, p - 1 has few digits left in float32."""
    return logits.double()

"""Per-example gradients by a model's weights, projected to a few hundred random directions.

Nothing of the size of the weights is ever formed for an example. The gradient by a dense layer's
weights is an outer product of what comes into the layer and what the loss sends back; by a
convolution's, a sum of such products over positions. Each side is multiplied by random signs before
the product is taken, P for what is sent back and Q for what comes in: since P and Q are independent
with E[P'P] = E[Q'Q] = I, inner products of the projected gradients are those of the gradients
themselves in expectation, with an error of the order of their lengths' product over sqrt(width).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseaudit.errors import UsageError
from noiseaudit.seeding import torch_generator

__all__ = ["project_gradients"]

_WIDTH = 16


def project_gradients(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, seed: int, width: int = _WIDTH
) -> Tensor:
    """Each example's gradient of its own loss by the weights and biases of dense layers and Conv2d.

    Parameters of other layers (batch norm, attention's own) are left out. The directions depend on
    the seed and the model's structure alone. Cost: one forward pass, one backward pass by the
    inputs, and `width / channels` of a forward pass in each layer.

    Args:
        model: in eval mode; weights, buffers and gradients stay as they are.
        inputs: (b, ...) as the model takes them.
        labels: (b,) int64.
        seed: of the directions.
        width: w, of either side; each layer gets w^2 directions.

    Returns:
        (b, layers * w^2) float32.

    Raises:
        UsageError: if the model has no such layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not layers:
        raise UsageError(f"{type(model).__name__} has neither nn.Linear nor nn.Conv2d layers")
    found = torch.zeros(len(layers), len(inputs), width * width, device=inputs.device)
    with torch.enable_grad(), _caught(layers, found, seed, width):
        points = inputs.detach().requires_grad_()
        loss = F.cross_entropy(model(points).double(), labels, reduction="sum")
        torch.autograd.grad(loss, points)
    return found.transpose(0, 1).flatten(1)


@contextmanager
def _caught(
    layers: list[nn.Linear | nn.Conv2d], found: Tensor, seed: int, width: int
) -> Iterator[None]:
    """While it lasts, what is sent back to a layer's output adds to its place in `found`."""
    handles = []
    for number, layer in enumerate(layers):
        generator = torch_generator(seed, "gradient-directions", number)
        sides = _directions(layer, width, generator, found.device)

        def on_forward(
            layer: nn.Module,
            arguments: tuple[Tensor, ...],
            output: Tensor,
            place: Tensor = found[number],
            sides: tuple[Tensor, Tensor, Tensor] = sides,
        ) -> None:
            came = arguments[0].detach()

            # On the tensor, not the module: the next layer may overwrite it in place.
            def on_backward(sent: Tensor) -> None:
                place.add_(_product(layer, came, sent.detach(), sides))

            output.register_hook(on_backward)

        handles.append(layer.register_forward_hook(on_forward))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _directions(
    layer: nn.Linear | nn.Conv2d, width: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """P (g, w, outputs), Q of the layer's own kind of weights with g w outputs, and Q's of bias."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    outputs, *shape = layer.weight.shape
    sent = _signs((groups, width, outputs // groups), generator)
    came = _signs((groups * width, *shape), generator)
    bias = _signs((groups * width,), generator)
    if layer.bias is None:
        bias.zero_()
    scale = width**-0.5
    return tuple((side * scale).to(device) for side in (sent, came, bias))


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator).float().mul_(2).sub_(1)


def _product(
    layer: nn.Module, came: Tensor, sent: Tensor, sides: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """(b, w^2), summed over positions."""
    left, right, bias = sides
    groups = len(left)
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros":
            edges = layer._reversed_padding_repeated_twice
            came = F.pad(came, edges, mode=layer.padding_mode)
        padding = layer.padding if layer.padding_mode == "zeros" else 0
        inward = F.conv2d(
            came, right, bias, layer.stride, padding, layer.dilation, layer.groups
        ).flatten(2)
        outward = sent.flatten(2)
    else:
        inward = F.linear(came, right, bias).reshape(len(came), -1, right.shape[0]).transpose(1, 2)
        outward = sent.reshape(len(sent), -1, sent.shape[-1]).transpose(1, 2)
    inward = inward.unflatten(1, (groups, -1))
    outward = torch.einsum("gpo,bgol->bgpl", left, outward.unflatten(1, (groups, -1)).float())
    return torch.einsum("bgpl,bgql->bpq", outward, inward).flatten(1)

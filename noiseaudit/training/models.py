"""Models: plain `nn.Module`s built from an input shape and a number of classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noiseaudit.errors import UsageError, check_name

__all__ = [
    "MODELS",
    "ModelFactory",
    "build_model",
    "choose_model",
    "choose_threads",
    "forward_operations",
    "last_linear",
]

ModelFactory = Callable[[tuple[int, ...], int], nn.Module]
"""From `LabeledDataset.input_shape` and the number of classes to a model that returns logits."""

_TORCHVISION = "torchvision:"
_CNN_GRID = 16  # patches a side that the cnn's stem aims at
_WORTH_THREADS = 250e6  # operations of a batch's forward pass
_SMALL_PICTURE = 64  # up to here resnet18 keeps full resolution in its stem


def build_model(
    model: str | ModelFactory, input_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    """A freshly initialised model that maps (b, *input_shape) float32 to (b, k) logits.

    Weights are drawn from torch's global generator: wrap the call in
    `seeding.isolated_torch_rng` to make them a function of a seed.

    Args:
        model: one of `MODELS`, `torchvision:<name>` for any torchvision classification model
            (untrained; grey pictures are repeated to three channels), or a function of the two
            arguments that follow.
        input_shape: (channels, h, w) of pictures, (d,) of vectors.
        num_classes: k, the number of logits.

    Raises:
        UnknownNameError: for a name that does not exist.
        UsageError: if the model cannot take inputs of this shape (a picture model on vectors,
            pictures too small for it), or does not return (b, k) logits.
    """
    if not isinstance(model, str):
        return _checked(model(input_shape, num_classes), "the model", input_shape, num_classes)
    if model.startswith(_TORCHVISION):
        factory: ModelFactory = partial(_torchvision, model.removeprefix(_TORCHVISION))
    else:
        hint = [*MODELS, f"{_TORCHVISION}<name>"]
        factory = _BUILDERS[check_name(model, hint, "model")]
    if factory not in (_mlp, _head) and len(input_shape) != 3:
        raise UsageError(
            f"model {model!r} needs pictures, and these inputs are vectors of length "
            f"{input_shape[0]}; use --model mlp"
        )
    try:
        built = factory(input_shape, num_classes)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise _unfit(f"model {model!r}", input_shape, error) from error
    return _checked(built, f"model {model!r}", input_shape, num_classes)


def choose_model(input_shape: tuple[int, ...], device_type: str) -> str:
    """The name in `MODELS` that suits these inputs on this kind of device ("cpu", "cuda").

    Vectors, and pictures of less than 16 pixels a side: `mlp`, which on digits (8 x 8) ranks
    planted flips as well as `cnn` (AUROC of the mean loss 0.9998 and 1.0000) in a tenth of the
    time. Other pictures: `cnn` on a CPU; `resnet18` on a GPU, where its cost hardly matters
    (not measured).
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        return "mlp"
    return "resnet18" if device_type == "cuda" else "cnn"


def choose_threads(model: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """CPU threads that suit one of `MODELS`: one where a batch is so little work that more wait.

    On two cores, two threads took 1.7 and 1.6 times as long as one on digits (`mlp` and `cnn`, 11
    and 114 million operations a batch), 1.3 and 1.0 times with `mlp` on MNIST and CIFAR-10 (69 and
    109), and 1.0 and 0.9 with `cnn` on CIFAR-10 and MNIST (459 and 605): `benchmarks/threads.py`.
    """
    work = batch_size * forward_operations(model, input_shape)
    return torch.get_num_threads() if work >= _WORTH_THREADS else 1


def forward_operations(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiplications and additions of one example's forward pass, in dense layers and Conv2d."""
    counted: list[int] = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        counted.append(2 * weight.numel() * output.numel() // len(weight))

    kinds = (nn.Linear, nn.Conv2d)
    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return sum(counted)


def last_linear(model: nn.Module) -> nn.Linear:
    """The last `nn.Linear` in module order; its input is what we call the features.

    Raises:
        UsageError: if the model has none.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise UsageError(
            f"{type(model).__name__} has no nn.Linear layer whose input could serve as features"
        )
    return linears[-1]


def _mlp(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The C-score paper's MNIST net: 512-256-k, ReLU (ICML 2021, Table 1)."""
    size = int(torch.Size(input_shape).numel())
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, num_classes),
    )


def _head(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """One hidden layer with dropout, for the embeddings of a frozen encoder.

    Dropout of inputs and hidden units keeps a few hundred examples of a thousand features from
    being fitted at once: `benchmarks/encoders.py`, part `head`.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(int(torch.Size(input_shape).numel()), 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, num_classes),
    )


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU; "same" padding."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _cnn(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A patch stem, four 3x3 convolutions and a global maximum, made for two CPU cores.

    Non-overlapping patches bring any picture to about 16 x 16 positions, so that the cost of
    an example hardly depends on its size. Narrow early layers buy epochs, and epochs find wrong
    labels. With 10% flips in 10,000 CIFAR-10 pictures (one seed, benchmarks/model_choice.py)
    widths 32-32-64-128 reached a margin AUROC of 0.972 in two thirds of the time in which
    64-64-128-128 reached 0.961 (without batch norm 0.943) and three strided convolutions with
    average pooling 0.956. For equal epochs the last convolution added 0.005, at 10 to 15% more
    time, and the maximum 0.004 over the average.
    """
    channels, height, width = input_shape
    patch = max(1, round((height * width) ** 0.5 / _CNN_GRID))
    padding = ((-height % patch + 1) // 2, (-width % patch + 1) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 32, patch, patch, padding, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _conv(32, 32),
        nn.MaxPool2d(2),
        _conv(32, 64),
        nn.MaxPool2d(2),
        _conv(64, 128),
        _conv(128, 128),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def _resnet18(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """ResNet-18; up to 64 pixels a side with the CIFAR stem: 3x3, stride 1, no max-pool."""
    from torchvision.models import resnet18

    channels, height, width = input_shape
    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    if max(height, width) <= _SMALL_PICTURE:
        stem = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        stem = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    else:
        return model
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    return model


class _Block(nn.Module):
    """The Inception table's Block(C1, C2): a 1x1 and a 3x3 convolution side by side."""

    def __init__(self, inputs: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.narrow = _conv(inputs, narrow, kernel=1)
        self.wide = _conv(inputs, wide)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.narrow(images), self.wide(images)], dim=1)


def _inception(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The C-score paper's small Inception for CIFAR (ICML 2021, Table 1)."""
    return nn.Sequential(
        _conv(input_shape[0], 96),
        # Stage 1
        _Block(96, 32, 32),
        _Block(64, 32, 48),
        _conv(80, 160, stride=2),
        # Stage 2
        _Block(160, 112, 48),
        _Block(160, 96, 64),
        _Block(160, 80, 80),
        _Block(160, 48, 96),
        _conv(144, 240, stride=2),
        # Stage 3
        _Block(240, 176, 160),
        _Block(336, 176, 160),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(336, num_classes),
    )


class _GreyToRGB(nn.Module):
    """Repeats a single channel three times."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


def _torchvision(name: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    from torchvision import models

    check_name(name, models.list_models(module=models), "torchvision model")
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # Without auxiliary heads the training forward returns logits like any other model's.
        options |= {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options["image_size"] = max(input_shape[1:])
    elif name.startswith("maxvit_"):
        options["input_size"] = input_shape[1:]
    model: nn.Module = models.get_model(name, **options)
    return model if input_shape[0] == 3 else nn.Sequential(_GreyToRGB(), model)


_BUILDERS: dict[str, ModelFactory] = {
    "mlp": _mlp,
    "head": _head,
    "cnn": _cnn,
    "resnet18": _resnet18,
    "inception": _inception,
}

MODELS: tuple[str, ...] = tuple(_BUILDERS)
"""Names that `build_model` knows, besides `torchvision:<name>`."""


def _checked(model: object, what: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """`model` after one forward pass of zeros in eval mode: its shapes fit, or the error says."""
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a model factory must return a torch.nn.Module; got {type(model).__name__}"
        )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unfit(what, input_shape, error) from error
    finally:
        model.train(was_training)
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{what} must return logits of shape (b, {num_classes}); got {got} for b=1"
        )
    return model


def _unfit(what: str, input_shape: tuple[int, ...], error: Exception) -> UsageError:
    shape = " x ".join(str(size) for size in input_shape)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UsageError(f"{what} cannot take inputs of shape {shape} (too small?): {reason}")

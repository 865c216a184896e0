"""The noise models: what each does to a clean dataset.

`round(rate * count)` examples of every class are chosen, so that noise is balanced and its
amount exact. The models, and what they do to the chosen examples:

- "uniform": another class, all equally likely; "uniform_any": any class, their own included;
- "pair": the next class;
- "asymmetric": the class that `class_map` gives; other classes stay. `class_map` is {from: to}
  of class names or numbers, a JSON file of it, or "cifar10" (default: its usual map);
- "confusion": by `matrix`, (k, k) row-stochastic, an array or a .npy, .npz#KEY or .csv file;
  without `rate` as it is, with `rate` its off-diagonal scaled to that share of all examples;
- "instance": where classes meet (`flip_by_instance`), by `pred_probs` (n, k), an array aligned
  with the rows or a .npy file, or else by `estimate_class_probabilities`;
- "human": no rate; all labels come from `labels`, an array aligned with the rows, or a file
  that sample ids index: .npy, .npz#KEY, .csv#COLUMN; class numbers or names. A `clean_label`
  beside them in an .npz must be equal to the labels here;
- "duplicates": `round(rate * n)` exact copies are appended, each with another label;
- "out_of_distribution": as many examples of `donor`, a LabeledDataset or an array of inputs,
  are appended with labels of this dataset in its proportions; clean label -1. Pictures are
  cropped, resized and made grey or RGB as needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_labels, check_same_length, first_rows
from noiseaudit.array_files import array_or_file, read_array
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, UsageError
from noiseaudit.label_noise import (
    apportion,
    assign_random,
    check_transition_matrix,
    estimate_class_probabilities,
    flip_by_instance,
    flip_by_map,
    flip_by_matrix,
    flip_pair,
    flip_uniform,
)
from noiseaudit.seeding import generator

__all__ = ["MODELS", "Labels", "NoiseModel", "Planted"]

Labels = NDArray[np.int64]

_CIFAR10 = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}


@dataclass(frozen=True)
class Planted:
    """Examples to be appended: inputs, given and clean labels, and which rows they copy."""

    inputs: NDArray[Any]
    given: Labels
    clean: Labels
    rows: NDArray[np.int64] | None  # which examples these are copies of


@dataclass(frozen=True)
class NoiseModel:
    """A function of (dataset, rate, seed, **options), its option and whether it takes a rate."""

    apply: Callable[..., Labels | Planted]  # (dataset, rate, seed, **options)
    option: str | None = None
    needs_option: bool = False
    rate: Literal["set", "optional", "measured"] = "set"


def _asymmetric(
    dataset: LabeledDataset, rate: float, seed: int, *, class_map: object = "cifar10"
) -> Labels:
    if class_map == "cifar10":
        class_map = _CIFAR10
    elif not isinstance(class_map, Mapping):
        path = _as_path(class_map, "class_map")
        try:
            class_map = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(class_map, dict):
            raise DataError(f'{path} must hold an object of classes, {{"from": "to"}}')
    codes = {_code_of(dataset, old): _code_of(dataset, new) for old, new in class_map.items()}
    return flip_by_map(dataset.labels, dataset.num_classes, rate, class_map=codes, seed=seed)


def _code_of(dataset: LabeledDataset, name: object) -> int:
    """A class by its name, or by its number."""
    if isinstance(name, str) and name in dataset.class_names:
        return dataset.class_names.index(name)
    if isinstance(name, int | np.integer) or (isinstance(name, str) and name.isdecimal()):
        return int(name)
    raise DataError(
        f"{dataset.name} has no class {name!r} for asymmetric noise; its classes are "
        f"{', '.join(dataset.class_names[:10])}{', ...' if dataset.num_classes > 10 else ''}; "
        "give class_map={from: to} (asymmetric:FILE, a JSON file)"
    )


def _confusion(
    dataset: LabeledDataset, rate: float | None, seed: int, *, matrix: ArrayLike | Path
) -> Labels:
    transition = check_transition_matrix(array_or_file(matrix, "matrix"))
    if len(transition) != dataset.num_classes:
        raise DataError(
            f"matrix must have shape (k, k) with k = {dataset.num_classes} classes; "
            f"got {transition.shape}"
        )
    if rate is not None:
        leaving = 1 - np.diag(transition)
        present = np.bincount(dataset.labels, minlength=len(leaving)) / max(1, len(dataset))
        flipped = float(present @ leaving)
        factor = rate / flipped if flipped else 0.0
        if (rate and len(dataset) and not flipped) or (factor * leaving > 1 + 1e-9).any():
            most = 0.0 if not flipped else flipped / leaving.max()
            raise UsageError(f"this matrix can flip at most {most:.3g} of the labels; got {rate}")
        transition = factor * transition
        transition[np.diag_indices(len(leaving))] = np.maximum(0, 1 - factor * leaving)
    return flip_by_matrix(dataset.labels, transition, seed=seed)


def _instance(
    dataset: LabeledDataset, rate: float, seed: int, *, pred_probs: ArrayLike | Path | None = None
) -> Labels:
    labels, k = dataset.labels, dataset.num_classes
    if pred_probs is None:
        pred_probs = estimate_class_probabilities(dataset.inputs, labels, k, seed=seed)
    return flip_by_instance(labels, array_or_file(pred_probs, "pred_probs"), rate, seed=seed)


def _human(dataset: LabeledDataset, _rate: None, _seed: int, *, labels: ArrayLike | Path) -> Labels:
    if not isinstance(labels, str | Path):
        values = np.asarray(labels)
        check_same_length(dataset=dataset, labels=values)
        return _codes(values, dataset, "labels")
    values, clean = read_array(labels, "labels")
    beyond = (dataset.ids < 0) | (dataset.ids >= len(values))
    if values.ndim != 1 or beyond.any():
        raise DataError(
            f"{labels} has shape {values.shape}, but sample ids reach {dataset.ids.max(initial=-1)}"
            "; it must have one label for each example of the source, in its order "
            "(of the train split alone: load only that)"
        )
    if clean is not None:
        check_same_length(labels=values, clean_label=clean)
        if (odd := clean[dataset.ids] != dataset.labels).any():
            raise DataError(
                f"clean_label of {labels} is not the label of {dataset.name} in {first_rows(odd)}: "
                "these labels belong to another dataset, or stand in another order"
            )
    return _codes(values[dataset.ids], dataset, str(labels))


def _codes(values: NDArray[Any], dataset: LabeledDataset, what: str) -> Labels:
    """Class numbers of labels given as numbers or names."""
    if not len(values) or values.dtype.kind in "iu":
        return check_labels(values, dataset.num_classes)
    code_of = {name: code for code, name in enumerate(dataset.class_names)}
    codes = np.array([code_of.get(str(value), -1) for value in values.ravel()])
    if (odd := codes < 0).any():
        row = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"{what} must be class numbers or names of {dataset.name}; {int(odd.sum())} are not, "
            f"first {str(values.ravel()[row])!r} at row {row}"
        )
    return check_labels(codes.reshape(values.shape), dataset.num_classes)


def _as_path(value: object, what: str) -> Path:
    if not isinstance(value, str | Path):
        raise UsageError(f"{what} must be values or a file; got {type(value).__name__}")
    return Path(value)


def _share_out(
    dataset: LabeledDataset, rate: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """How many of `round(rate * n)` examples fall to each class, in proportion to its size."""
    total, sizes = round(rate * len(dataset)), np.bincount(dataset.labels)
    counts = np.zeros(dataset.num_classes, dtype=np.int64)
    if total:
        counts[: len(sizes)] = apportion(sizes.astype(np.float64), total, random)
    return counts


def _duplicates(dataset: LabeledDataset, rate: float, seed: int) -> Planted:
    k = dataset.num_classes
    if k < 2:
        raise UsageError("duplicates with conflicting labels need at least two classes; got one")
    random = generator(seed, "plant-duplicates")
    chosen = [
        random.permutation(np.flatnonzero(dataset.labels == label))[:count]
        for label, count in enumerate(_share_out(dataset, rate, random))
    ]
    rows = random.permutation(np.concatenate(chosen))
    clean = dataset.labels[rows]
    given = (clean + random.integers(1, k, len(rows))) % k
    return Planted(dataset.inputs[rows], given, clean, rows)


def _out_of_distribution(
    dataset: LabeledDataset, rate: float, seed: int, *, donor: LabeledDataset | NDArray[Any]
) -> Planted:
    if not isinstance(donor, LabeledDataset):
        if not isinstance(donor, np.ndarray):
            raise UsageError(
                "donor must be a LabeledDataset or an array of inputs; load it first: "
                f"noiseaudit.load(...); got {type(donor).__name__}"
            )
        donor = LabeledDataset(donor, np.zeros(len(donor), np.int64), ("donor",), name="donor")
    random = generator(seed, "plant-out-of-distribution")
    counts = _share_out(dataset, rate, random)
    given = random.permutation(np.repeat(np.arange(len(counts)), counts))
    if len(donor) < len(given):
        raise DataError(f"donor has {len(donor)} examples; {len(given)} are to be planted")
    rows = np.sort(random.permutation(len(donor))[: len(given)])
    inputs = _like(donor.inputs[rows], dataset.inputs)
    return Planted(inputs, given, np.full(len(given), -1, dtype=np.int64), None)


def _like(inputs: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Inputs in the shape of others: pictures cropped to their aspect, resized, grey or RGB."""
    if inputs.shape[1:] == others.shape[1:] and inputs.dtype == others.dtype:
        return inputs
    if inputs.dtype != np.uint8 or others.dtype != np.uint8:
        raise DataError(
            f"donor and dataset must both be pictures, or vectors of one length; got {inputs.dtype}"
            f" of shape {inputs.shape[1:]} for {others.dtype} of shape {others.shape[1:]}"
        )
    from PIL import Image, ImageOps

    size, mode = (others.shape[2], others.shape[1]), "L" if others.ndim == 3 else "RGB"
    pictures = np.empty((len(inputs), *others.shape[1:]), dtype=np.uint8)
    for row, pixels in enumerate(inputs):
        picture = Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)
        pictures[row] = np.asarray(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
    return pictures


_Flip = Callable[..., Labels]


def _by_labels(flip: _Flip) -> _Flip:
    """A noise model of a flip that looks at nothing but labels."""
    return lambda dataset, rate, seed: flip(dataset.labels, dataset.num_classes, rate, seed=seed)


MODELS: dict[str, NoiseModel] = {
    "uniform": NoiseModel(_by_labels(flip_uniform)),
    "uniform_any": NoiseModel(_by_labels(assign_random)),
    "pair": NoiseModel(_by_labels(flip_pair)),
    "asymmetric": NoiseModel(_asymmetric, "class_map"),
    "confusion": NoiseModel(_confusion, "matrix", needs_option=True, rate="optional"),
    "instance": NoiseModel(_instance, "pred_probs"),
    "human": NoiseModel(_human, "labels", needs_option=True, rate="measured"),
    "duplicates": NoiseModel(_duplicates),
    "out_of_distribution": NoiseModel(_out_of_distribution, "donor", needs_option=True),
}
"""Every noise model by name."""

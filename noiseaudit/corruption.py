"""Corruption: a noisy dataset with its answer key, made by one of the noise models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import NPZ_ERRORS, write_npz
from noiseaudit._validation import check_same_length, find_rows
from noiseaudit.dataset import LabeledDataset, digest_array
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.label_noise import check_rate
from noiseaudit.manifest import differences
from noiseaudit.noise_models import MODELS, Labels, NoiseModel, Planted

__all__ = [
    "NOISE_MODELS",
    "Corruption",
    "apply_corruption",
    "inject_noise",
    "is_measured",
    "parse_noise",
]

NOISE_MODELS = tuple(MODELS)
"""Names for `inject_noise`."""

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Corruption:
    """A noisy dataset and its answer key; no detector may see the key.

    Attributes:
        dataset: the noisy dataset, n examples; planted ones stand last, with ids of their own.
        clean_labels: (n,) int64; -1 for planted examples that belong to no class.
        is_corrupted: (n,) bool: the given label is not the clean one.
        model: one of `NOISE_MODELS`.
        rate: as it was set; the measured share of wrong labels where none was.
        seed: as it was set.
        options: plain values that describe the other settings.
        fingerprint: of the clean dataset, to re-apply this to no other.
        copied_ids: (m,) int64, of `duplicates`: whose copies the m planted examples are.
    """

    dataset: LabeledDataset
    clean_labels: Labels
    is_corrupted: NDArray[np.bool_]
    model: str
    rate: float
    seed: int
    options: dict[str, Any]
    fingerprint: dict[str, Any]
    copied_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        check_same_length(
            dataset=self.dataset, clean_labels=self.clean_labels, is_corrupted=self.is_corrupted
        )

    def save(self, path: str | Path) -> None:
        """Write all but the clean examples to an .npz, for `apply_corruption`."""
        told = {
            "model": self.model,
            "rate": self.rate,
            "seed": self.seed,
            "options": self.options,
            "fingerprint": self.fingerprint,
        }
        arrays = {
            "format": np.array(_FORMAT),
            "settings": np.array(json.dumps(told)),
            "ids": self.dataset.ids,
            "labels": self.dataset.labels,
            "clean_labels": self.clean_labels,
            "is_corrupted": self.is_corrupted,
        }
        if self.copied_ids is not None:
            arrays["copied_ids"] = self.copied_ids
        elif len(self.dataset) > self.fingerprint["examples"]:
            arrays["planted_inputs"] = self.dataset.inputs[self.fingerprint["examples"] :]
        write_npz(Path(path), arrays)

    @classmethod
    def load(cls, path: str | Path, dataset: LabeledDataset) -> Corruption:
        """What `save` wrote, on the same clean dataset: `apply_corruption`."""
        return apply_corruption(path, dataset)


def inject_noise(
    dataset: LabeledDataset,
    model: str,
    *,
    rate: float | None = None,
    seed: int = 0,
    **options: object,
) -> Corruption:
    """Corrupt a dataset whose labels are taken as clean.

    What the models do and which options they have is said in `noiseaudit.noise_models`.

    Args:
        dataset: left as it is; appending copies its inputs into memory.
        model: one of `NOISE_MODELS`.
        rate: in [0, 1].
        seed: of which examples are chosen and what becomes of them.
        options: those of the model.

    Raises:
        UnknownNameError: if there is no such model.
        UsageError: if the rate or an option is missing, or cannot be used.
        DataError: if a file, matrix, map or donor does not fit the dataset.

    Examples:
        >>> clean = LabeledDataset(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), ("a", "b"))
        >>> inject_noise(clean, "uniform", rate=0.5).is_corrupted.sum()
        np.int64(2)
    """
    kind = MODELS[check_name(model, MODELS, "noise model")]
    _check_call(model, kind, rate, options)
    made = kind.apply(dataset, rate, seed, **options)
    copied = None
    if isinstance(made, Planted):
        used = [int(dataset.ids.max(initial=-1)), *(lost.sample_id for lost in dataset.skipped)]
        noisy = _append(dataset, made, max(used) + 1 + np.arange(len(made.given)))
        clean = np.concatenate([dataset.labels, made.clean])
        copied = None if made.rows is None else dataset.ids[made.rows]
    else:
        noisy, clean = dataset.with_labels(made), dataset.labels
    wrong = noisy.labels != clean
    return Corruption(
        dataset=noisy,
        clean_labels=clean,
        is_corrupted=wrong,
        model=model,
        rate=float(wrong.sum() / max(1, len(wrong)) if rate is None else rate),
        seed=int(seed),
        options={name: _describe(value) for name, value in options.items()},
        fingerprint=dataset.fingerprint,
        copied_ids=copied,
    )


def apply_corruption(path: str | Path, dataset: LabeledDataset) -> Corruption:
    """Do to a clean dataset what `Corruption.save` stored.

    Raises:
        DataError: if the file is no saved corruption, is of a newer format, or was made from
            another dataset than this one; the message lists what differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        version, settings = int(stored["format"]), json.loads(str(stored["settings"]))
    except NPZ_ERRORS as error:
        raise DataError(f"{path} is not a saved corruption: {error}") from error
    if version > _FORMAT:
        raise DataError(f"{path} has format {version}; update noiseaudit")
    if lines := differences(settings["fingerprint"], dataset.fingerprint):
        raise DataError(
            f"{path} was made from another dataset than this one:\n  " + "\n  ".join(lines)
        )
    n, copied = len(dataset), stored.get("copied_ids")
    noisy = dataset.with_labels(stored["labels"][:n])
    if len(stored["labels"]) > n:
        given, clean = stored["labels"][n:], stored["clean_labels"][n:]
        rows = None if copied is None else find_rows(dataset.ids, copied)
        inputs = stored["planted_inputs"] if rows is None else dataset.inputs[rows]
        noisy = _append(noisy, Planted(inputs, given, clean, rows), stored["ids"][n:])
    key = stored["clean_labels"], stored["is_corrupted"]
    return Corruption(noisy, *key, **settings, copied_ids=copied)


def parse_noise(text: str) -> tuple[str, dict[str, str]]:
    """Model and options of one word of the command line: "uniform", "human:FILE#KEY".

    What follows the colon is the model's file: of labels for human, `class_map` for asymmetric,
    `matrix` for confusion, `pred_probs` for instance. `donor` of out_of_distribution is a source,
    to be loaded before it is handed to `inject_noise`.

    Raises:
        UnknownNameError: if there is no such model.
        UsageError: if it needs something after a colon and there is nothing, or the other way.

    Examples:
        >>> parse_noise("human:cifar10n.npz#aggre_label")
        ('human', {'labels': 'cifar10n.npz#aggre_label'})
    """
    model, colon, value = text.strip().partition(":")
    kind = MODELS[check_name(model, MODELS, "noise model")]
    if colon and not (value and kind.option):
        what = f"nothing after the colon of {text!r}" if kind.option else f"{model} takes no file"
        raise UsageError(f"{what}; write {model}{':FILE' if kind.option else ''}")
    if kind.needs_option and not value:
        raise UsageError(f"{model} needs {kind.option}: write {model}:FILE")
    return model, {kind.option: value} if kind.option and value else {}


def is_measured(text: str) -> bool:
    """Whether a word names a noise model whose rate is measured, not set."""
    kind = MODELS.get(text.strip().partition(":")[0])
    return kind is not None and kind.rate == "measured"


def _check_call(
    model: str, kind: NoiseModel, rate: float | None, options: Mapping[str, object]
) -> None:
    if unknown := sorted(options.keys() - {kind.option}):
        valid = f"its option is {kind.option}" if kind.option else "it has no options"
        raise UsageError(f"{model} does not take {', '.join(unknown)}; {valid}")
    if kind.needs_option and options.get(str(kind.option)) is None:
        raise UsageError(f"{model} needs {kind.option}")
    if rate is None and kind.rate == "set":
        raise UsageError(f"{model} needs a rate in [0, 1]")
    if rate is not None and kind.rate == "measured":
        raise UsageError(f"the rate of {model} labels is measured; leave rate out")
    if rate is not None:
        check_rate(rate)


def _describe(value: object) -> object:
    """Plain and short, for a JSON file: arrays by shape and digest."""
    if isinstance(value, LabeledDataset):
        return {"name": value.name, "inputs": value.content_digest}
    if isinstance(value, Mapping):
        return {str(name): _describe(item) for name, item in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    array = np.asarray(value)
    shape = list(array.shape)
    if array.dtype.kind not in "biuf":
        array = np.frombuffer("\x1f".join(map(str, array.ravel())).encode(), dtype=np.uint8)
    return {"shape": shape, "digest": digest_array(array)}


def _append(dataset: LabeledDataset, planted: Planted, ids: NDArray[np.int64]) -> LabeledDataset:
    """The dataset with more examples at its end, of no file, in the split of what they copy."""
    if not len(ids):
        return dataset
    split = dataset.split
    if split is not None:
        usual = np.full(len(ids), max(np.unique(split), key=lambda name: (split == name).sum()))
        split = np.concatenate([split, usual if planted.rows is None else split[planted.rows]])
    sources = dataset.sources
    return replace(
        dataset,
        inputs=np.concatenate([dataset.inputs, planted.inputs]),
        labels=np.concatenate([dataset.labels, planted.given]),
        ids=np.concatenate([dataset.ids, ids]),
        sources=None if sources is None else np.concatenate([sources, np.full(len(ids), "")]),
        split=split,
        content=None,
    )

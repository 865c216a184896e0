"""Data sets with flags of every kind planted, and what an audit knows of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import noiseaudit as na
from noiseaudit.picture_vectors import picture_vectors
from noiseaudit.seeding import generator

MAIN = 7  # classes that stay; later ones are rare modes of the first few, or not of the data set
RARE = 3
RARE_SHARE = 0.03  # of the class that a rare mode is part of
SHARES = {"uniform": 0.04, "pair": 0.03, "ambiguous": 0.03, "duplicates": 0.02, "foreign": 0.03}
ENCODER = "efficientnet_lite0"


@dataclass(frozen=True)
class Planted:
    """A data set of n examples and its key.

    Attributes:
        data: with the labels as given.
        kind: (n,) what was planted, "" for nothing.
    """

    data: na.LabeledDataset
    kind: np.ndarray


def plant_kinds(
    source: na.LabeledDataset, donor: na.LabeledDataset | None, n: int, seed: int
) -> Planted:
    """About n examples of seven classes, with five kinds planted; no example has two.

    A pair flip is to the next class. A blend is half each of two pictures, labelled as the first.
    Pictures of classes 7, 8 and 9 are rare modes of classes 0, 1 and 2. Without a donor classes 8
    and 9 are what is out of distribution, and 7 alone is a rare mode.
    """
    random = generator(seed, "plant-kinds")
    rares = range(MAIN, MAIN + RARE if donor is not None else MAIN + 1)
    order = random.permutation(len(source))
    main = order[source.labels[order] < MAIN][:n]
    sizes = np.bincount(source.labels[main], minlength=MAIN)
    rare = [
        order[source.labels[order] == label][: max(2, round(RARE_SHARE * sizes[label - MAIN]))]
        for label in rares
    ]
    rows = np.concatenate([main, *rare])
    labels = source.labels[rows].copy()
    labels[len(main) :] -= MAIN
    kind = np.full(len(rows), "", dtype="<U24")
    kind[len(main) :] = "atypical"
    inputs = np.array(source.inputs[rows])
    places = random.permutation(len(main))
    parts = np.cumsum(
        [round(SHARES[name] * len(main)) for name in ("uniform", "pair", "ambiguous")]
    )
    uniform, pair, blends, rest = np.split(places, parts)
    labels[uniform] = (labels[uniform] + random.integers(1, MAIN, len(uniform))) % MAIN
    labels[pair] = (labels[pair] + 1) % MAIN
    kind[uniform] = kind[pair] = "mislabelled"
    for row in blends:
        other = random.choice(rest[labels[rest] != labels[row]])
        inputs[row] = ((inputs[row].astype(np.uint16) + inputs[other] + 1) // 2).astype(np.uint8)
    kind[blends] = "ambiguous"
    names = tuple(source.class_names[:MAIN])
    data = na.LabeledDataset(inputs, labels, names, name=source.name)
    foreign = donor or source.subset(np.flatnonzero(source.labels > MAIN))
    for model, options in (
        ("duplicates", {}), ("out_of_distribution", {"donor": foreign}),
    ):  # fmt: skip
        share = SHARES["duplicates" if model == "duplicates" else "foreign"]
        clean = np.flatnonzero(kind == "")
        if model == "duplicates":  # of examples that nothing else was done to
            some = data.subset(clean)
            made = na.inject_noise(some, model, rate=share * len(data) / len(clean), seed=seed)
            kind[np.isin(data.ids, made.copied_ids)] = "conflicting_duplicate"
            new = "conflicting_duplicate"
            extra = made.dataset.subset(np.arange(len(some), len(made.dataset)))
        else:
            made = na.inject_noise(data, model, rate=share, seed=seed, **options)
            new = "out_of_distribution"
            extra = made.dataset.subset(np.arange(len(data), len(made.dataset)))
        data = na.LabeledDataset(
            np.concatenate([data.inputs, extra.inputs]),
            np.concatenate([data.labels, extra.labels]), names, name=source.name,
        )  # fmt: skip
        kind = np.append(kind, np.full(len(extra), new))
    shuffled = random.permutation(len(data))
    data = na.LabeledDataset(data.inputs[shuffled], data.labels[shuffled], names, name=source.name)
    return Planted(data, kind[shuffled])


def audit_signals(data: na.LabeledDataset, seed: int, *, encode: bool) -> dict[str, Any]:
    """What an audit has of its examples: arguments of `explain_flags`, and the order of suspects.

    Encoded pictures are judged by leave-one-out predictions, others by one training run.
    """
    from noiseaudit.scoring import score_examples
    from noiseaudit.stages import choose_detectors
    from noiseaudit.training.plan import make_plan

    confirmed = na.find_duplicates(data).in_conflict()
    headline = "loo_consistency" if encode else "cumulative_loss"
    seen = na.encoded(data, na.embed(data, ENCODER)) if encode else data
    plan = make_plan(seen, seed=seed, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        scores = score_examples(
            seen, plan, choose_detectors([headline], seen), Path(folder), keep_features=not encode
        )
        run = scores.run
        suspicion = scores.rankings[headline].scores
        found: dict[str, Any] = {
            "pred_probs": np.array(scores.pred_probs),
            "correct_history": None if encode else run.correct_history,
            "features": None if encode else np.array(run.snapshots["features", None]),
        }
    found["vectors"] = seen.inputs if encode else picture_vectors(seen.inputs)
    return {**found, "confirmed": confirmed, "order": np.lexsort((-suspicion, ~confirmed))}

"""Pictures through a frozen encoder, beside training from scratch and beside cleanlab.

    python benchmarks/encoders.py --preset smoke
    python benchmarks/encoders.py --preset cpu --data-root DIR --out DIR [--parts photos,sizes]

Parts, each with a JSON of its own: `photos`, 500 photographs with planted noise; `cifar10`, small
pictures, planted and human noise (training from scratch on those is in `proxies.py` and
`detection.py`); `sizes`, what side the encoder needs for small pictures, by the
accuracy of ridge regression on clean labels, left out; `head`, recipes of the network for
embeddings. `--out` keeps embeddings, the seconds that they took when they were computed, and rows:
a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _results import RESULTS, save
from torch import nn

import noiseaudit as na
from noiseaudit.ridge import leave_one_out

NAME = "efficientnet_lite0"
PLANTED = {"uniform 10%": ("uniform", 0.1), "pair 20%": ("pair", 0.2)}
HUMAN = {"CIFAR-10N aggregate": "aggre_label", "CIFAR-10N worst": "worse_label"}
MANY, SOME = 20_000, 5_000  # examples from which some things are measured once, or not at all
RUN = ("cumulative_loss", "area_under_margin")
LOOK = ("loo_consistency", "knn_disagreement")
HEADS = {  # hidden units, dropout of inputs, of hidden units; optimizer; epochs
    "linear": (0, 0.5, 0.0, "adam", 10),
    "256, no dropout": (256, 0.0, 0.0, "adam", 10),
    "256, 5 epochs": (256, 0.2, 0.5, "adam", 5),
    "256, 10 epochs": (256, 0.2, 0.5, "adam", 10),
    "256, 20 epochs": (256, 0.2, 0.5, "adam", 20),
    "256, SGD": (256, 0.2, 0.5, "sgd", 10),
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "photos": ("digits", 60, 32, (0,)), "cifar10": [("digits", 60, 32, (0,), True)],
        "sizes": ("digits", 60, (32, 48)), "head": [("digits", 60, 32)],
    },
    "cpu": {
        "photos": ("photos", None, None, (0, 1, 2)),
        "cifar10": [
            ("cifar10", 10_000, 128, (0, 1, 2), False),
            ("cifar10", None, 128, (0, 1, 2), False),
        ],
        "sizes": ("cifar10", 2_000, (32, 64, 96, 128, 160, 224)),
        "head": [
            ("photos", None, None), ("cifar10", 3_000, 128), ("fashion_mnist", 3_000, 96),
        ],
    },
}  # fmt: skip


def opened(name: str, limit: int | None, data_root: Path | None) -> na.LabeledDataset:
    if name == "photos":
        return na.load(Path(data_root or ".", "photos"), limit=limit)
    return na.load(name, data_root=data_root, limit=limit)


def encode(data: na.LabeledDataset, size: int | None, out: Path) -> tuple[na.LabeledDataset, float]:
    """Its embeddings, and what they took in seconds when they were computed."""
    encoder = na.create_encoder(NAME, image_size=size)
    told = out / f"embedding_{data.name}_{len(data)}_{size}.json"
    if not told.exists():  # in a cache of its own: pictures may be known from another part
        with tempfile.TemporaryDirectory() as cache:
            os.environ["NOISEAUDIT_CACHE"] = cache
            found = na.embed(data, encoder)
        told.write_text(json.dumps({"seconds": found.seconds, "load": os.getloadavg()[0]}))
    os.environ["NOISEAUDIT_CACHE"] = str((out / "cache").absolute())
    found = na.embed(data, encoder)
    return na.encoded(data, found), json.loads(told.read_text())["seconds"]


def noises(data: na.LabeledDataset, seed: int, data_root: Path | None) -> Iterator[tuple[str, Any]]:
    for told, (model, rate) in PLANTED.items():
        if told == "uniform 10%" or len(data) <= MANY:
            yield told, na.inject_noise(data, model, rate=rate, seed=seed)
    if data.name == "cifar10" and len(data) == 50_000:
        for told, key in HUMAN.items():
            labels = f"{data_root}/cifar10n.npz#{key}"
            yield told, na.inject_noise(data, "human", labels=labels, seed=seed)


def cross_validated(data: na.LabeledDataset, seed: int) -> dict[str, na.Ranking]:
    """cleanlab's scores of what logistic regression on the embeddings predicts out of sample."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probs = cross_val_predict(model, data.inputs, data.labels, cv=folds, method="predict_proba")
    scores = {
        method: get_label_quality_scores(data.labels, probs, method=method)
        for method in ("self_confidence", "normalized_margin")
    }
    return {
        f"cleanlab {method}": na.Ranking(method, data.ids, -quality)
        for method, quality in scores.items()
    }


def scored(
    where: dict[str, Any], rankings: Any, is_corrupted: Any, seconds: float
) -> list[dict[str, Any]]:
    rows = []
    for name, ranking in rankings:
        found = na.evaluate(ranking, is_corrupted)
        rows.append(
            {
                **where, "detector": name, "auroc": found.auroc, "seconds": seconds,
                "average_precision": found.average_precision, "load": os.getloadavg()[0],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def compare(
    data: na.LabeledDataset,
    size: int | None,
    seeds: tuple[int, ...],
    scratch: bool,
    out: Path,
    data_root: Path | None,
) -> list[dict[str, Any]]:
    """Rows of both routes and of cleanlab, by noise and seed."""
    vectors, embedding = encode(data, size, out)
    rows = []
    for seed in seeds:
        for told, noisy in noises(data, seed, data_root):
            where = {"data": data.name, "examples": len(data), "noise": told, "seed": seed}
            encoded = {**where, "route": "encoder", "size": size, "embedding_seconds": embedding}
            given = vectors.with_labels(noisy.dataset.labels)
            for names in (RUN, *((name,) for name in LOOK)):
                # What takes minutes, or gives the same for the same labels, is measured once.
                if len(data) > MANY and names == ("knn_disagreement",):
                    continue
                if told in HUMAN and names != RUN and seed != seeds[0]:
                    continue
                rows += kept(out, {**encoded, "detectors": names}, noisy, partial(
                    audited, given, detectors=names, seed=seed
                ))  # fmt: skip
            if len(data) <= SOME or (len(data) <= MANY and seed == seeds[0]):
                rows += kept(out, {**encoded, "detectors": "cleanlab"}, noisy, partial(
                    cross_validated, given, seed
                ))  # fmt: skip
            if scratch:
                plain = {**where, "route": "scratch"}
                pictures = data.with_labels(noisy.dataset.labels)
                rows += kept(out, {**plain, "detectors": RUN}, noisy, partial(
                    audited, pictures, detectors=RUN, seed=seed, encoder="none"
                ))  # fmt: skip
    return rows


def audited(data: na.LabeledDataset, **options: Any) -> dict[str, na.Ranking]:
    return na.audit(data, duplicates=False, **options).rankings


def kept(
    out: Path, where: dict[str, Any], noisy: Any, rank: Callable[[], dict[str, na.Ranking]]
) -> list[dict[str, Any]]:
    """The rows of what `rank` gives, from an earlier run where they are kept."""
    name = "_".join(str(value) for key, value in where.items() if key != "embedding_seconds")
    path = out / "rows" / (re.sub(r"[^\w]+", "_", name) + ".json")
    if not path.exists():
        began = time.perf_counter()
        rankings = rank()
        took = time.perf_counter() - began
        where = {key: value for key, value in where.items() if key != "detectors"}
        rows = scored(where, rankings.items(), noisy.is_corrupted, took)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows))
    return json.loads(path.read_text())


def photos(preset: dict[str, Any], out: Path, data_root: Path | None) -> dict[str, Any]:
    name, limit, size, seeds = preset["photos"]
    data = opened(name, limit, data_root)
    return {"rows": compare(data, size, seeds, True, out, data_root)}


def cifar10(preset: dict[str, Any], out: Path, data_root: Path | None) -> dict[str, Any]:
    rows = []
    for name, limit, size, seeds, scratch in preset["cifar10"]:
        data = opened(name, limit, data_root)
        rows += compare(data, size, seeds, scratch, out, data_root)
    return {"rows": rows}


def sizes(preset: dict[str, Any], out: Path, data_root: Path | None) -> dict[str, Any]:
    name, limit, sides = preset["sizes"]
    data = opened(name, limit, data_root)
    rows = []
    for side in sides:
        vectors, seconds = encode(data, side, out)
        found = leave_one_out(vectors.inputs, data.labels, data.num_classes, rounds=0)
        right = float((found.scores.argmax(axis=1) == data.labels).mean())
        rows.append({"size": side, "accuracy": right, "seconds_a_picture": seconds / len(data)})
        print(rows[-1], flush=True)
    return {"data": name, "examples": len(data), "rows": rows}


def head(preset: dict[str, Any], out: Path, data_root: Path | None) -> dict[str, Any]:
    rows = []
    for name, limit, size in preset["head"]:
        vectors, _ = encode(opened(name, limit, data_root), size, out)
        for told, (model, rate) in PLANTED.items():
            for seed in (0, 1, 2):
                noisy = na.inject_noise(vectors, model, rate=rate, seed=seed)
                for recipe, (units, first, second, optimizer, epochs) in HEADS.items():
                    schedule = {"adam": "constant", "sgd": "triangular"}[optimizer]
                    changes = {"optimizer": optimizer, "schedule": schedule}
                    changes |= {"learning_rate": 1e-3} if optimizer == "adam" else {}
                    began = time.perf_counter()
                    found = na.audit(
                        noisy.dataset, detectors=RUN, model=network(units, first, second),
                        epochs=epochs, recipe=changes, seed=seed,
                    )  # fmt: skip
                    where = {
                        "data": name, "examples": len(vectors), "noise": told, "seed": seed,
                        "head": recipe,
                    }  # fmt: skip
                    took = time.perf_counter() - began
                    rows += scored(where, found.rankings.items(), noisy.is_corrupted, took)
    return {"rows": rows}


def network(units: int, first: float, second: float) -> Any:
    def build(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        if not units:
            return nn.Sequential(nn.Dropout(first), nn.Linear(input_shape[0], num_classes))
        return nn.Sequential(
            nn.Dropout(first), nn.Linear(input_shape[0], units), nn.ReLU(),
            nn.Dropout(second), nn.Linear(units, num_classes),
        )  # fmt: skip

    return build


PARTS = {"photos": photos, "cifar10": cifar10, "sizes": sizes, "head": head}


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="smoke")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/encoders"))
    parser.add_argument("--parts", default=",".join(PARTS), help="joined by commas")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = results
    for part in options.parts.split(","):
        found = PARTS[part](PRESETS[options.preset], options.out, options.data_root)
        name = f"encoders_{part}" + ("" if options.preset == "cpu" else "_smoke")
        path = save(name, {"preset": options.preset, **found}, results)
    return path


if __name__ == "__main__":
    main()

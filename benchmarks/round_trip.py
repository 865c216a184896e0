"""A folder of photographs with planted errors, from audit to a model trained on what was cleaned.

    python benchmarks/round_trip.py --photos DIR --out DIR [--encoder none]

By the commands of the README, as processes of their own: audit, decisions (a person who looks at
the first suspects and knows the right class), clean, verify. Then a classifier (logistic regression
on embeddings) is trained on the folder as it was and on the cleaned one, and tested on photographs
that were in neither. DIR holds `train/` and `val/` with a folder of pictures per class.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from _results import RESULTS, save

import noiseaudit as na

RATE = 0.1
LOOKED_AT = 0.15  # of the suspects, by rank


def plant(photos: Path, folder: Path, seed: int) -> dict[str, str]:
    """A copy of the training part with some pictures in a wrong class folder; their right ones."""
    clean = na.load(photos, split="train")
    noisy = na.inject_noise(clean, "uniform", rate=RATE, seed=seed)
    right = {}
    for source, label, true in zip(
        clean.sources, noisy.dataset.label_names(), clean.label_names(), strict=True
    ):
        # The names must not tell: folders of one class number their pictures alike.
        name = hashlib.sha256(source.encode()).hexdigest()[:12] + Path(source).suffix
        place = folder / label / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / source, place)
        right[f"{label}/{name}"] = true
    return right


def digest(folder: Path) -> str:
    """Of every file's path and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def noiseaudit(*arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("noiseaudit")), *arguments], check=True)


def review(audit: Path, right: dict[str, str], path: Path) -> dict[str, int]:
    """Decide on the first suspects as the report's page does, and save the file that it saves."""
    stored = json.loads((audit / "report.json").read_text())
    suspects = stored["suspects"][: round(LOOKED_AT * stored["examples"])]
    decisions = []
    for suspect in suspects:
        true = right[suspect["source"]]
        decision = {"sample_id": suspect["sample_id"], "given_label": suspect["given_label"]}
        is_right = true == suspect["given_label"]
        decision |= {"action": "keep"} if is_right else {"action": "relabel", "new_label": true}
        decisions.append(decision)
    told = {
        "kind": "noiseaudit decisions", "format": 1, "data": stored["data_digest"],
        "labels": stored["labels_digest"], "decisions": decisions,
    }  # fmt: skip
    path.write_text(json.dumps(told))
    wrong = [item["action"] == "relabel" for item in decisions]
    return {"looked_at": len(wrong), "relabelled": sum(wrong)}


def accuracy(folder: Path, photos: Path) -> float:
    """Of logistic regression on embeddings, trained on a folder, on photographs held out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = na.load(folder), na.load(photos, split="val")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(na.embed(train).vectors, train.label_names())
    return float(model.score(na.embed(test).vectors, test.label_names()))


def round_trip(photos: Path, work: Path, seed: int, encoder: str) -> dict[str, Any]:
    source, audit, cleaned = work / "photos", work / "audit", work / "cleaned"
    right = plant(photos, source, seed)
    before = digest(source)
    noiseaudit("audit", str(source), "--out", str(audit), "--encoder", encoder, "--quiet")
    told = review(audit, right, work / "decisions.json")
    decisions = ("--decisions", str(work / "decisions.json"))
    noiseaudit("clean", str(audit), "--out", str(cleaned), *decisions)
    noiseaudit("clean", str(audit), "--out", str(cleaned), "--verify")
    wrong = sum(path.split("/")[0] != true for path, true in right.items())
    corrected = work / "clean"
    for path, true in right.items():
        place = corrected / true / Path(path).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, place)
    return {
        "seed": seed, "encoder": encoder, "examples": len(right), "planted": wrong, **told,
        "source_unchanged": digest(source) == before,
        "accuracy_as_it_was": accuracy(source, photos),
        "accuracy_cleaned": accuracy(cleaned, photos),
        "accuracy_of_right_labels": accuracy(corrected, photos),
    }  # fmt: skip


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--encoder", default="auto")
    options = parser.parse_args(arguments)
    rows = []
    for seed in (int(word) for word in options.seeds.split(",")):
        work = options.out / f"{options.encoder}_{seed}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        rows.append(round_trip(options.photos, work, seed, options.encoder))
        print(rows[-1], flush=True)
    return save("round_trip", {"rows": rows}, results)


if __name__ == "__main__":
    main()

"""Files of the aum package and of dataset-cartography, read and written.

aum (`aum_values.csv`): both ways. dataset-cartography: its per-epoch logits
(`training_dynamics/dynamics_epoch_0.jsonl`, ...) become a Recorder with all our statistics; its
final metrics (`td_metrics.jsonl`) are written from a Recorder that kept trajectories, or from any
finished audit, and read as a Ranking.

What cannot be done: a Recorder keeps no logits, so neither aum's `full_aum_records.csv` nor
cartography's per-epoch files can be made from one; `write_dynamics_epoch` writes the latter from
the logits of your own loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from noiseaudit._io import make_folder, read_npz, write_text
from noiseaudit._validation import check_labels, check_same_length
from noiseaudit.audit_report import AuditReport
from noiseaudit.detector import create_detectors
from noiseaudit.errors import DataError, UsageError
from noiseaudit.evidence import Evidence
from noiseaudit.ranking import Ranking
from noiseaudit.recorder import Recorder

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "data_map",
    "data_map_of_audit",
    "read_aum",
    "read_dynamics",
    "read_td_metrics",
    "write_aum",
    "write_dynamics_epoch",
    "write_td_metrics",
]

_AUM = "area_under_margin"
_EPOCH_FILE = re.compile(r"dynamics_epoch_(\d+)\.jsonl?")
_INTEGER = re.compile(r"-?\d+")
_NEVER_LEARNED = 1000  # cartography's "forgetfulness" of an example never predicted right


def write_aum(found: Recorder | AuditReport | Ranking, path: str | Path) -> Path:
    """Write aum's `aum_values.csv`: columns sample_id and aum, highest aum (cleanest) first.

    Args:
        found: a Recorder or report, or a Ranking by "area_under_margin".
        path: the file, or a folder that gets `aum_values.csv`.

    Returns:
        The file's path. Values are aum's own, but for an example seen twice in an epoch, which
        counts once here and twice there.

    Raises:
        UsageError: for a Ranking by something else.
        OutputError: if it cannot be written.
    """
    import pandas as pd

    if isinstance(found, Recorder):
        ranking = found.rank(_AUM)
    else:
        ranking = found if isinstance(found, Ranking) else found.rankings.get(_AUM, found.ranking)
    if ranking.detector != _AUM:
        raise UsageError(f"aum values come from {_AUM!r}; this ranking is by {ranking.detector!r}")
    frame = pd.DataFrame({"sample_id": ranking.ids, "aum": -ranking.scores})
    text = frame.sort_values(by="aum", ascending=False, kind="stable").to_csv(index=False)
    path = Path(path)
    path = path if path.suffix else make_folder(path) / "aum_values.csv"
    write_text(path, text)
    return path


def read_aum(path: str | Path, *, sample_ids: Sequence[Any] | None = None) -> Ranking:
    """The Ranking "area_under_margin" of aum's `aum_values.csv`; suspicion is minus its aum.

    Args:
        path: the file, or the folder that holds `aum_values.csv`.
        sample_ids: the file's ids in the order of your data; the Ranking's ids are then positions
            in it. Needed where they are texts; default: the file's own integers.

    Raises:
        DataError: if it is no such file, or its ids are not those given.
    """
    import pandas as pd

    path = Path(path)
    path = path / "aum_values.csv" if path.is_dir() else path
    try:
        frame: Any = pd.read_csv(path, dtype={"sample_id": str}, keep_default_na=False)
        ids, aum = frame["sample_id"].tolist(), frame["aum"].to_numpy(dtype=np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not aum's CSV with sample_id and aum: {error}") from error
    return Ranking(_AUM, *_in_order(ids, -aum, sample_ids, "sample_ids"))


def read_dynamics(
    folder: str | Path, *, guids: Sequence[Any] | None = None, class_sums: bool = True
) -> Recorder:
    """A Recorder of the logits that dataset-cartography logged: every detector of ours then ranks.

    Args:
        folder: holds `dynamics_epoch_0.jsonl` and so on, or `training_dynamics/` with them.
        guids: the files' guids in the order of your data; sample ids are then positions in it.
            Needed where they are texts; default: their own integers, in the first file's order.
        class_sums: as in `Recorder`.

    Raises:
        DataError: if files are missing or damaged, or differ in examples or gold labels.
    """
    paths = _epoch_files(Path(folder))
    names, golds, logits = _read_epoch(paths[0], 0)
    ids, labels = _in_order(names, golds, guids, "guids")
    recorder = Recorder(labels, logits.shape[1], sample_ids=ids, class_sums=class_sums)
    listed = names if guids is None else [str(guid) for guid in guids]
    places = dict(zip(listed, ids.tolist(), strict=True))
    for epoch, path in enumerate(paths):
        if epoch:
            names, golds, logits = _read_epoch(path, epoch)
        unknown = [name for name in names if name not in places]
        if unknown:
            raise DataError(f"{path}: guid {unknown[0]!r} is not in {paths[0].name}")
        rows = torch.tensor([places[name] for name in names])
        recorder.update(logits, torch.from_numpy(golds), rows)
        recorder.end_epoch()
    return recorder


def write_dynamics_epoch(
    folder: str | Path, epoch: int, logits: Tensor, targets: ArrayLike, guids: Sequence[Any]
) -> Path:
    """Write one `training_dynamics/dynamics_epoch_{epoch}.jsonl`, as cartography logs it.

    Args:
        folder: the model's folder.
        epoch: from 0.
        logits: (n, k) of that epoch's training forward passes.
        targets: (n,) integers.
        guids: n integers or texts.

    Raises:
        DataError: if lengths differ.
        OutputError: if it cannot be written.
    """
    import pandas as pd

    rows, golds = logits.detach().float().cpu().tolist(), np.asarray(targets)
    check_same_length(logits=rows, targets=golds, guids=guids)
    frame = pd.DataFrame({"guid": list(guids), f"logits_epoch_{epoch}": rows, "gold": golds})
    path = make_folder(Path(folder) / "training_dynamics") / f"dynamics_epoch_{epoch}.jsonl"
    write_text(path, frame.to_json(lines=True, orient="records"))
    return path


def data_map(recorder: Recorder, trajectories: str | Path) -> pd.DataFrame:
    """Cartography's metrics of a Recorder that had `keep_trajectories=trajectories`.

    One row per example in the order of its labels; columns as in `td_metrics.jsonl`: guid (the
    sample id), index, threshold_closeness, confidence (mean probability of the given label),
    variability (its standard deviation over epochs), correctness (in how many epochs it was
    predicted), forgetfulness (1000 if never). Epochs in which an example was not seen are left out.
    Source: Swayamdipta et al., EMNLP 2020, section 2, and `train_dy_filtering.py`.

    Raises:
        OutputError: if trajectories are missing or damaged.
        DataError: if an example was never seen.
    """
    return _data_map(recorder.sample_ids, recorder.evidence().history(), Path(trajectories))


def data_map_of_audit(folder: str | Path) -> pd.DataFrame:
    """Cartography's metrics of a finished audit's folder: see `data_map`.

    Raises:
        OutputError: if the folder holds no finished audit.
    """
    stage = Path(folder) / "training"
    stored = read_npz(stage / "statistics.npz", ("sample_ids", "correct_history"))
    return _data_map(stored["sample_ids"], stored["correct_history"], stage / "trajectories")


def _data_map(
    ids: NDArray[np.int64], history: NDArray[np.int8], trajectories: Path
) -> pd.DataFrame:
    import pandas as pd

    n = len(ids)
    evidence = Evidence(ids, np.zeros(n, np.int64), 2, correct_history=history)
    forgotten = create_detectors(["forgetting_events"])[0].rank(evidence).scores.astype(np.int64)
    correctness = (history == 1).sum(axis=0)
    count = (history >= 0).sum(axis=0)
    confidence = sum(_curves(trajectories, history)) / count
    squares = sum(
        np.where(seen >= 0, curve - confidence, 0.0) ** 2
        for seen, curve in zip(history, _curves(trajectories, history), strict=True)
    )
    return pd.DataFrame(
        {
            "guid": ids,
            "index": np.arange(n),
            "threshold_closeness": confidence * (1 - confidence),
            "confidence": confidence,
            "variability": np.sqrt(squares / count),
            "correctness": correctness,
            "forgetfulness": np.where(correctness > 0, forgotten, _NEVER_LEARNED),
        }
    )


def _curves(trajectories: Path, history: NDArray[np.int8]) -> Iterator[NDArray[np.float64]]:
    """Per epoch the probability of the given label, 0 where the example was not seen."""
    for epoch, row in enumerate(history, start=1):
        path = trajectories / f"epoch_{epoch:04d}.npz"
        curve = read_npz(path, ("confidence",))["confidence"].astype(np.float64)
        if not np.array_equal(~np.isnan(curve), row >= 0):
            raise DataError(f"{path} is of another recording: not these examples were seen")
        yield np.nan_to_num(curve)


def write_td_metrics(metrics: pd.DataFrame, path: str | Path) -> Path:
    """Write what `data_map` gave as cartography's `td_metrics.jsonl`.

    Args:
        metrics: replace its column "guid" first, where your guids are no sample ids.
        path: the file, or the model's folder that gets `td_metrics.jsonl`.

    Raises:
        OutputError: if it cannot be written.
    """
    path = Path(path)
    path = path if path.suffix else make_folder(path) / "td_metrics.jsonl"
    write_text(path, metrics.to_json(orient="records", lines=True))
    return path


def read_td_metrics(path: str | Path, *, guids: Sequence[Any] | None = None) -> Ranking:
    """The Ranking "cumulative_confidence" of `td_metrics.jsonl`: 1 - its confidence.

    Args:
        path: the file, or the folder that holds `td_metrics.jsonl`.
        guids: as in `read_dynamics`.

    Raises:
        DataError: if it is no such file, or its guids are not those given.
    """
    path = Path(path)
    path = path / "td_metrics.jsonl" if path.is_dir() else path
    records = _records(path, ("guid", "confidence"))
    names = [str(record["guid"]) for record in records]
    doubt = 1 - np.array([record["confidence"] for record in records], dtype=np.float64)
    return Ranking("cumulative_confidence", *_in_order(names, doubt, guids, "guids"))


def _epoch_files(folder: Path) -> list[Path]:
    """Of epochs 0, 1, ...: none may be missing."""
    inner = folder / "training_dynamics"
    folder = inner if inner.is_dir() else folder
    numbered = sorted(
        (int(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _EPOCH_FILE.fullmatch(path.name))
    )
    if not numbered or [number for number, _ in numbered] != list(range(len(numbered))):
        found = ", ".join(path.name for _, path in numbered[:5]) or "none"
        raise DataError(
            f"{folder} must hold dynamics_epoch_0.jsonl, dynamics_epoch_1.jsonl and so on, none "
            f"missing; found: {found}"
        )
    return [path for _, path in numbered]


def _records(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, each of which has these fields."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {error}") from error
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or any(field not in record for field in fields):
            raise DataError(f"{path}, record {number}: no object with {', '.join(fields)}")
    return records


def _read_epoch(path: Path, epoch: int) -> tuple[list[str], NDArray[np.int64], Tensor]:
    """Guids as texts, gold labels and (n, k) logits of one file."""
    records = _records(path, ("guid", "gold", f"logits_epoch_{epoch}"))
    try:
        logits = torch.tensor([record[f"logits_epoch_{epoch}"] for record in records])
        golds = np.array([record["gold"] for record in records])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: logits must be lists of one length: {error}") from error
    if logits.ndim != 2:
        raise DataError(f"{path}: logits must be lists of one length, one number per class")
    names = [str(record["guid"]) for record in records]
    return names, check_labels(golds, logits.shape[1]), logits.float()


def _in_order(
    names: list[str], values: NDArray[Any], order: Sequence[Any] | None, what: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Ids and values: the file's own integer names in its order, or positions in `order`."""
    if order is None:
        if not all(_INTEGER.fullmatch(name) for name in names):
            odd = next(name for name in names if not _INTEGER.fullmatch(name))
            raise DataError(
                f"{odd!r} is no integer: pass {what}, the file's ids in the order of your data"
            )
        return np.array([int(name) for name in names], dtype=np.int64), values
    places = {name: row for row, name in enumerate(names)}
    wanted = [str(item) for item in order]
    missing = [name for name in wanted if name not in places]
    if missing or not len(wanted) == len(names) == len(places) == len(set(wanted)):
        absent = f", which has no {missing[0]!r}" if missing else ""
        raise DataError(
            f"{what} must name each of the file's {len(names):,} examples once{absent}; "
            f"got {len(wanted):,}"
        )
    return np.arange(len(wanted)), values[[places[name] for name in wanted]]

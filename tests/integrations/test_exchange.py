import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from aum import AUMCalculator
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit.errors import DataError, OutputError, UsageError
from noiseaudit.integrations.exchange import (
    data_map,
    data_map_of_audit,
    read_aum,
    read_dynamics,
    read_td_metrics,
    write_aum,
    write_dynamics_epoch,
    write_td_metrics,
)

K, N, EPOCHS = 3, 7, 4
LABELS = np.arange(N) % K
IDS = np.array([40, 3, 17, 5, 9, 22, 8])
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (EPOCHS, N, K))).float()

AUM_SNIPPET = """
from noiseaudit.integrations.exchange import read_aum, write_aum

write_aum(recorder, "runs/aum")  # runs/aum/aum_values.csv, as aum writes it
ranking = read_aum("runs/aum")  # Ranking: suspicion = -aum
"""
CARTOGRAPHY_SNIPPET = """
from noiseaudit.integrations.exchange import data_map, read_dynamics, write_td_metrics

recorder = read_dynamics("cartography_run")  # its dynamics_epoch_*.jsonl
recorder.rank("cumulative_loss").top(100)
write_td_metrics(data_map(own, "trajectories"), "own_run")  # own: keep_trajectories=
"""


def record(**options):
    recorder = na.Recorder(LABELS, K, sample_ids=IDS, **options)
    for logits in LOGITS:
        recorder.update(logits, torch.from_numpy(LABELS), torch.from_numpy(IDS))
        recorder.end_epoch()
    return recorder


@pytest.fixture
def aum_folder(tmp_path):
    calculator = AUMCalculator(str(tmp_path / "aum"))
    for logits in LOGITS:
        calculator.update(logits, torch.from_numpy(LABELS), IDS.tolist())
    calculator.finalize()
    return tmp_path / "aum"


@pytest.fixture
def dynamics(tmp_path):
    for epoch, logits in enumerate(LOGITS):
        order = np.random.default_rng(epoch).permutation(N)  # as a shuffled epoch logs them
        write_dynamics_epoch(tmp_path, epoch, logits[order], LABELS[order], IDS[order].tolist())
    return tmp_path


def test_we_write_what_aum_writes(aum_folder, tmp_path):
    path = write_aum(record(), tmp_path / "ours")
    ours, theirs = pd.read_csv(path), pd.read_csv(aum_folder / "aum_values.csv")
    assert list(ours.columns) == list(theirs.columns) == ["sample_id", "aum"]
    assert ours["sample_id"].tolist() == theirs["sample_id"].tolist()
    np.testing.assert_allclose(ours["aum"], theirs["aum"], rtol=1e-5)


def test_we_read_what_aum_writes(aum_folder):
    ours, theirs = record().rank("area_under_margin"), read_aum(aum_folder)
    assert theirs.detector == "area_under_margin"
    assert ours.top(N).tolist() == theirs.top(N).tolist()
    np.testing.assert_allclose(np.sort(theirs.scores), np.sort(ours.scores), rtol=1e-5)


def test_texts_as_aum_ids_need_the_order_of_the_data(tmp_path):
    names = [f"img/{i}.png" for i in IDS]
    calculator = AUMCalculator(str(tmp_path))
    calculator.update(LOGITS[0], torch.from_numpy(LABELS), names)
    calculator.finalize()
    with pytest.raises(DataError, match=r"is no integer: pass sample_ids"):
        read_aum(tmp_path)
    ranking = read_aum(tmp_path, sample_ids=names)
    assert ranking.ids.tolist() == list(range(N))
    only = na.Recorder(LABELS, K)
    only.update(LOGITS[0], torch.from_numpy(LABELS), torch.arange(N))
    only.end_epoch()
    np.testing.assert_allclose(ranking.scores, only.rank("area_under_margin").scores, rtol=1e-5)
    with pytest.raises(DataError, match="each of the file's 7 examples once, which has no 'x'"):
        read_aum(tmp_path, sample_ids=["x", *names[1:]])


def test_a_ranking_by_something_else_has_no_aum(tmp_path):
    with pytest.raises(UsageError, match="this ranking is by 'cumulative_loss'"):
        write_aum(record().rank("cumulative_loss"), tmp_path)


def test_no_aum_file(tmp_path):
    (tmp_path / "a.csv").write_text("id,margin\n1,2\n")
    with pytest.raises(DataError, match="not aum's CSV"):
        read_aum(tmp_path / "a.csv")
    with pytest.raises(DataError, match="not aum's CSV"):
        read_aum(tmp_path)


def test_logged_logits_become_a_recorder_with_every_statistic(dynamics):
    read, live = read_dynamics(dynamics), record(class_sums=True)
    np.testing.assert_allclose(
        read.scores().loc[IDS].drop(columns="random"),
        live.scores().loc[IDS].drop(columns="random"),
        rtol=1e-6,
        atol=1e-9,
    )
    rows = [read.sample_ids.tolist().index(i) for i in IDS]
    np.testing.assert_allclose(read.pred_probs()[rows], live.pred_probs(), rtol=1e-5)


def test_the_files_are_those_of_cartography(dynamics):
    # Fields and layout of allenai/cartography, selection_utils.py, log_training_dynamics.
    lines = (dynamics / "training_dynamics" / "dynamics_epoch_1.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == N
    assert list(first) == ["guid", "logits_epoch_1", "gold"]
    assert len(first["logits_epoch_1"]) == K


def test_text_guids_in_the_order_of_the_data(tmp_path):
    names = [f"train-{i}" for i in IDS]
    for epoch, logits in enumerate(LOGITS):
        write_dynamics_epoch(tmp_path, epoch, logits, LABELS, names)
    with pytest.raises(DataError, match="pass guids"):
        read_dynamics(tmp_path)
    read = read_dynamics(tmp_path, guids=names[::-1])
    assert read.labels.tolist() == LABELS[::-1].tolist()
    expected = record().rank("cumulative_loss").scores[::-1]
    np.testing.assert_allclose(read.rank("cumulative_loss").scores, expected, rtol=1e-6)


def cartography_metrics():
    """train_dy_filtering.py, compute_train_dy_metrics, by hand."""
    rows = []
    for i in range(N):
        probs = [float(F.softmax(logits[i], dim=-1)[LABELS[i]]) for logits in LOGITS]
        right = [int(logits[i].argmax()) == LABELS[i] for logits in LOGITS]
        forgotten = sum(a and not b for a, b in pairwise(right))
        mean = float(np.mean(probs))
        rows.append(
            [int(IDS[i]), i, mean * (1 - mean), mean, np.std(probs), sum(right),
             forgotten if any(right) else 1000]
        )  # fmt: skip
    return rows


def test_data_map_equals_cartographys_metrics(tmp_path):
    recorder = record(keep_trajectories=tmp_path / "t")
    path = write_td_metrics(data_map(recorder, tmp_path / "t"), tmp_path / "model")
    stored = pd.read_json(path, lines=True, orient="records")
    assert path.name == "td_metrics.jsonl"
    assert list(stored.columns) == [
        "guid", "index", "threshold_closeness", "confidence", "variability", "correctness",
        "forgetfulness",
    ]  # fmt: skip
    np.testing.assert_allclose(stored.to_numpy(), np.array(cartography_metrics()), rtol=1e-5)
    ranking = read_td_metrics(tmp_path / "model")
    np.testing.assert_allclose(
        ranking.scores, recorder.rank("cumulative_confidence").scores, atol=1e-6
    )


def test_data_map_leaves_out_epochs_in_which_an_example_was_not_seen(tmp_path):
    recorder = na.Recorder([0, 1], 2, keep_trajectories=tmp_path)
    for rows in ([0, 1], [0]):
        ids = torch.tensor(rows)
        recorder.update(torch.zeros(len(rows), 2), ids, ids)
        recorder.end_epoch()
    found = data_map(recorder, tmp_path)
    assert found["confidence"].tolist() == [0.5, 0.5]
    assert found["variability"].tolist() == [0.0, 0.0]
    assert found["correctness"].tolist() == [2, 0]  # ties go to class 0
    assert found["forgetfulness"].tolist() == [0, 1000]
    other = na.Recorder([0, 1], 2, keep_trajectories=tmp_path / "other")
    for _ in range(2):
        other.update(torch.zeros(2, 2), torch.arange(2), torch.arange(2))
        other.end_epoch()
    with pytest.raises(DataError, match="of another recording"):
        data_map(other, tmp_path)


def test_data_map_of_any_audit(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(30) % 2
    report = na.audit(
        (random.normal(0, 1, (30, 3)) + y[:, None], y), out=tmp_path / "audit", epochs=3
    )
    found = data_map_of_audit(tmp_path / "audit")
    expected = 1 - report.rankings["cumulative_confidence"].scores
    np.testing.assert_allclose(found["confidence"], expected, rtol=1e-5)
    with pytest.raises(OutputError, match="cannot be read"):
        data_map_of_audit(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON lines"),
        ("[1]\n", "record 1: no object with guid, gold, logits_epoch_0"),
        ('{"guid": 1, "gold": 0}\n', "record 1"),
        ('{"guid": 1, "gold": 0, "logits_epoch_0": 3}\n', "lists of one length"),
        ('{"guid": 1, "gold": 5, "logits_epoch_0": [1, 2]}\n', r"labels must be in \[0, 2\)"),
        (
            '{"guid": 1, "gold": 0, "logits_epoch_0": [1, 2]}\n'
            '{"guid": 2, "gold": 0, "logits_epoch_0": [1]}\n',
            "lists of one length",
        ),
    ],
)
def test_damaged_dynamics(tmp_path, text, words):
    (tmp_path / "dynamics_epoch_0.jsonl").write_text(text)
    with pytest.raises(DataError, match=words):
        read_dynamics(tmp_path)


def test_missing_epochs_and_strangers_are_noticed(dynamics):
    inner = dynamics / "training_dynamics"
    write_dynamics_epoch(dynamics, EPOCHS, LOGITS[0][:1], LABELS[:1], [999])
    with pytest.raises(DataError, match="guid '999' is not in dynamics_epoch_0"):
        read_dynamics(dynamics)
    (inner / "dynamics_epoch_1.jsonl").unlink()
    with pytest.raises(DataError, match=r"none missing; found: dynamics_epoch_0\.jsonl, dyn"):
        read_dynamics(dynamics)
    with pytest.raises(DataError, match="found: none"):
        read_dynamics(dynamics / "nowhere")
    with pytest.raises(DataError, match="lengths differ"):
        write_dynamics_epoch(dynamics, 0, LOGITS[0], LABELS[:2], IDS)


def test_snippets(dynamics, monkeypatch):
    monkeypatch.chdir(dynamics.parent)
    dynamics.rename(dynamics.parent / "cartography_run")
    names = {"own": record(keep_trajectories="trajectories"), "recorder": record()}
    exec(AUM_SNIPPET, names)
    assert len(names["ranking"]) == N
    exec(CARTOGRAPHY_SNIPPET, names)
    assert len(read_td_metrics("own_run")) == N

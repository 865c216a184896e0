import numpy as np
import pytest
import torch

import noiseaudit as na
from noiseaudit.errors import DataError, UnknownNameError, UsageError
from tests._oracles import recorded_means

K = 4


def make_epochs(n, epochs=3, seed=0):
    random = np.random.default_rng(seed)
    return [
        [(int(row), random.normal(0, 2, K).tolist()) for row in random.permutation(n)]
        for _ in range(epochs)
    ]


def feed(recorder, labels, epoch, batch=3, ids=None):
    for start in range(0, len(epoch), batch):
        rows, logits = zip(*epoch[start : start + batch], strict=True)
        rows = np.array(rows)
        recorder.update(
            torch.tensor(logits),
            torch.tensor(labels[rows]),
            torch.tensor(rows if ids is None else ids[rows]),
        )
    recorder.end_epoch()


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_recorder_equals_the_slow_loop_for_any_batch_size(batch):
    labels = np.arange(10) % K
    epochs = make_epochs(10)
    recorder = na.Recorder(labels=labels, num_classes=K)
    for epoch in epochs:
        feed(recorder, labels, epoch, batch)
    expected = recorded_means(epochs, labels.tolist(), ["loss", "logit_margin", "confidence"])
    np.testing.assert_allclose(recorder.rank("cumulative_loss").scores, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        recorder.rank("area_under_margin").scores, -expected["logit_margin"], rtol=1e-5
    )
    np.testing.assert_allclose(
        recorder.rank("cumulative_confidence").scores, 1 - expected["confidence"], rtol=1e-5
    )


def test_any_unique_ids_in_any_order():
    labels = np.array([0, 1, 2, 3, 0])
    ids = np.array([900, 5, 77, 6, 12])
    epochs = make_epochs(5)
    plain, named = (na.Recorder(labels, K, sample_ids=chosen) for chosen in (None, ids))
    for epoch in epochs:
        feed(plain, labels, epoch)
        feed(named, labels, epoch, ids=ids)
    assert named.rank("cumulative_loss").ids.tolist() == ids.tolist()
    assert np.array_equal(
        plain.rank("cumulative_loss").scores, named.rank("cumulative_loss").scores
    )


def test_an_id_seen_twice_counts_once_its_last_observation():
    recorder = na.Recorder([0, 1], 2)
    recorder.update(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]), torch.arange(2))
    again = torch.tensor([[0.0, 0.0], [0.0, np.log(3)]])
    recorder.update(again, torch.tensor([0, 0]), torch.tensor([0, 0]))
    recorder.end_epoch()
    assert recorder.rank("cumulative_loss").scores[0] == pytest.approx(np.log(4))


def test_targets_out_of_step_with_ids_are_noticed():
    recorder = na.Recorder([0, 1, 2], 3)
    recorder.update(torch.zeros(3, 3), torch.tensor([1, 1, 0]), torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match=r"2 observations .* targets that differ"):
        recorder.end_epoch()
    assert recorder.epoch == 0  # the epoch does not count, and the next one starts afresh
    recorder.update(torch.zeros(3, 3), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    recorder.end_epoch()
    assert recorder.rank("cumulative_loss").scores.tolist() == pytest.approx([np.log(3)] * 3)


@pytest.mark.parametrize("ids", [None, [3, 5, 9]])
def test_unknown_ids_are_noticed(ids):
    recorder = na.Recorder([0, 1, 2], 3, sample_ids=ids)
    recorder.update(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([-1, 4]))
    with pytest.raises(DataError, match=r"2 observations .* sample_ids that are not among the 3"):
        recorder.end_epoch()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"labels": [0, 7]}, DataError, r"\[0, 3\)"),
        ({"labels": [0.0, 1.0]}, DataError, "integers"),
        ({"num_classes": 1}, UsageError, "at least 2; got 1"),
        ({"sample_ids": [1, 1]}, DataError, "unique"),
        ({"sample_ids": [1, 2, 3]}, DataError, "lengths differ"),
    ],
)
def test_bad_construction(arguments, error, words):
    with pytest.raises(error, match=words):
        na.Recorder(**{"labels": [0, 1], "num_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("logits", "targets", "ids", "words"),
    [
        (torch.zeros(2, 5), [0, 1], [0, 1], r"logits must have shape \(b, 3\); got \(2, 5\)"),
        (torch.zeros(2, 3, dtype=torch.int64), [0, 1], [0, 1], "floating point"),
        (torch.zeros(2, 3), [0.5, 1.0], [0, 1], "targets must be integers"),
        (torch.zeros(2, 3), [0], [0, 1], r"targets must have shape \(2,\)"),
        (torch.zeros(2, 3), [0, 1], [0, 1, 2], r"sample_ids must have shape \(2,\)"),
    ],
)
def test_bad_updates(logits, targets, ids, words):
    recorder = na.Recorder([0, 1], 3)
    with pytest.raises(DataError, match=words):
        recorder.update(logits, torch.tensor(targets), torch.tensor(ids))


def test_ranking_needs_every_example_and_a_known_name():
    recorder = na.Recorder([0, 1], 2)
    with pytest.raises(UnknownNameError, match="did you mean 'cumulative_loss'"):
        recorder.rank("cumulative_los")
    with pytest.raises(DataError, match="never observed in training"):
        recorder.rank("cumulative_loss")
    recorder.update(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))
    recorder.end_epoch()
    for name in ("cumulative_loss", "forgetting_events"):
        with pytest.raises(DataError, match=r"1 examples were never observed.*sample_id 1"):
            recorder.rank(name)


def test_scores_has_one_column_per_detector():
    labels = np.arange(6) % K
    recorder = na.Recorder(labels, K, sample_ids=np.arange(6) * 10)
    feed(recorder, labels, make_epochs(6)[0], ids=np.arange(6) * 10)
    frame = recorder.scores()
    assert list(frame.index) == [0, 10, 20, 30, 40, 50]
    assert {"cumulative_loss", "forgetting_events", "random"} <= set(frame.columns)
    assert list(recorder.scores(["el2n"]).columns) == ["el2n"]


def test_pred_probs_are_opt_in_means():
    recorder = na.Recorder([0, 1], 2, class_sums=True)
    logits = torch.tensor([[0.0, np.log(3)], [0.0, 0.0]])
    for _ in range(2):
        recorder.update(logits, torch.tensor([0, 1]), torch.arange(2))
        recorder.end_epoch()
    np.testing.assert_allclose(recorder.pred_probs(), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    with pytest.raises(UsageError, match="class_sums=True"):
        na.Recorder([0, 1], 2).pred_probs()


def test_merged_workers_equal_one_process():
    labels = np.arange(12) % K
    epochs = make_epochs(12, epochs=4)
    whole = na.Recorder(labels, K, class_sums=True)
    workers = [na.Recorder(labels, K, class_sums=True) for _ in range(3)]
    for epoch in epochs:
        feed(whole, labels, epoch)
        for rank, worker in enumerate(workers):
            feed(worker, labels, epoch[rank::3])
    merged = workers[0]
    for worker in workers[1:]:
        merged.merge(worker)
    np.testing.assert_allclose(merged.scores(), whole.scores(), rtol=1e-12)
    np.testing.assert_allclose(merged.pred_probs(), whole.pred_probs(), rtol=1e-6)


def test_merge_refuses_what_does_not_belong_together():
    first = na.Recorder([0, 1], 2)
    with pytest.raises(DataError, match="different sample_ids"):
        first.merge(na.Recorder([0, 1], 2, sample_ids=[4, 5]))
    with pytest.raises(DataError, match="different labels"):
        first.merge(na.Recorder([1, 1], 2))
    with pytest.raises(DataError, match="class sums"):
        first.merge(na.Recorder([0, 1], 2, class_sums=True))
    other = na.Recorder([0, 1], 2)
    other.end_epoch()
    with pytest.raises(DataError, match="0 and 1 epochs"):
        first.merge(other)


def test_state_round_trip(tmp_path):
    labels = np.arange(8) % K
    epochs = make_epochs(8, epochs=4)
    whole, part = na.Recorder(labels, K), na.Recorder(labels, K)
    for epoch in epochs:
        feed(whole, labels, epoch)
    for epoch in epochs[:1]:
        feed(part, labels, epoch)
    torch.save(part.state_dict(), tmp_path / "recorder.pt")
    resumed = na.Recorder(labels, K)
    resumed.load_state_dict(torch.load(tmp_path / "recorder.pt", weights_only=True))
    assert resumed.epoch == 1
    for epoch in epochs[1:]:
        feed(resumed, labels, epoch)
    assert resumed.scores().equals(whole.scores())


def test_state_of_other_labels_or_a_newer_format_is_refused():
    recorder = na.Recorder([0, 1], 2)
    with pytest.raises(DataError, match="other labels"):
        recorder.load_state_dict(na.Recorder([1, 1], 2).state_dict())
    with pytest.raises(DataError, match="format 99; update noiseaudit"):
        recorder.load_state_dict({**recorder.state_dict(), "format": 99})


def test_trajectories_on_request(tmp_path):
    recorder = na.Recorder([0, 1], 2, keep_trajectories=tmp_path / "t")
    recorder.update(torch.zeros(2, 2), torch.tensor([0, 1]), torch.arange(2))
    recorder.end_epoch()
    with np.load(tmp_path / "t" / "epoch_0001.npz", allow_pickle=False) as stored:
        assert {"loss", "confidence", "correct"} <= set(stored.files)
        np.testing.assert_allclose(stored["confidence"], [0.5, 0.5])


def test_memory_of_a_million_examples_of_a_thousand_classes_is_bounded_without_class_sums():
    # 1.3 M x 1,000 classes must fit in 24 GB: nothing per class may be allocated.
    n = 1_300_000
    recorder = na.Recorder(np.zeros(n, dtype=np.int64), 1000)
    recorder.update(torch.zeros(64, 1000), torch.zeros(64, dtype=torch.int64), torch.arange(64))
    recorder.end_epoch()
    observer = recorder._observer
    held = observer.totals.nbytes + observer.counts.nbytes
    held += sum(
        tensor.element_size() * tensor.nelement()
        for tensor in vars(observer._buffer).values()
        if isinstance(tensor, torch.Tensor)
    )
    assert held < 250e6  # measured: 188 MB

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from noiseaudit import observers as observers_module
from noiseaudit.class_sums import ClassSums
from noiseaudit.detector import training_statistics
from noiseaudit.errors import DataError, UsageError
from noiseaudit.observers import StatisticsObserver
from noiseaudit.outputs import Outputs, Statistic
from tests._oracles import per_example, recorded_means, softmax

NAMES = ["correct", *(statistic.name for statistic in training_statistics())]


def make(labels, k=3, **options):
    return StatisticsObserver(np.asarray(labels), k, training_statistics(), **options)


def record(observer, rows, logits):
    observer.on_batch(rows, logits, observer.labels[rows], None)


def feed(observer, epoch, batch=2):
    """One epoch of (row, logits) observations in batches."""
    for start in range(0, len(epoch), batch):
        rows, logits = zip(*epoch[start : start + batch], strict=True)
        record(observer, torch.tensor(rows), torch.tensor(logits, dtype=torch.float32))
    observer.on_epoch_end()


def random_epochs(seed, n, k, epochs=3, extra=0):
    random = np.random.default_rng(seed)
    out = []
    for _ in range(epochs):
        rows = np.concatenate([random.permutation(n), random.integers(0, n, extra)])
        out.append([(int(row), random.normal(0, 3, k).tolist()) for row in rows])
    return out


def test_statistics_of_one_example_by_hand():
    # logits (0, ln 3), label 0: p = (1/4, 3/4).
    outputs = Outputs(torch.tensor([[0.0, np.log(3)]]), torch.tensor([0]))
    assert outputs.confidence.item() == pytest.approx(0.25)
    assert outputs.max_confidence.item() == pytest.approx(0.75)
    assert outputs.losses.item() == pytest.approx(np.log(4))
    assert outputs.logit_margin.item() == pytest.approx(-np.log(3))
    assert outputs.entropy.item() == pytest.approx(0.25 * np.log(4) + 0.75 * np.log(4 / 3))
    assert not outputs.correct.item()


def test_extreme_logits_stay_finite():
    outputs = Outputs(torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]), torch.tensor([0, 0]))
    for statistic in training_statistics():
        assert torch.isfinite(statistic.per_example(outputs).float()).all(), statistic.name
    assert outputs.losses.tolist() == [0.0, 2e4]
    assert outputs.entropy.tolist() == [0.0, 0.0]


def test_means_equal_the_slow_loop():
    epochs = random_epochs(0, n=7, k=3)
    observer = make([0, 1, 2, 0, 1, 2, 1])
    for epoch in epochs:
        feed(observer, epoch, batch=3)
    expected = recorded_means(epochs, observer.labels.tolist(), NAMES)
    computed = observer.compute()
    assert sorted(computed) == sorted(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(computed[name], expected[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 9), extra=st.integers(0, 12),
    batch=st.integers(1, 8), buffer=st.integers(1, 40),
)  # fmt: skip
@example(seed=1, n=4, extra=1, batch=1, buffer=1)  # a label fitted so well that p - 1 cancels
def test_the_last_observation_of_an_epoch_counts_whatever_the_batches(
    seed, n, extra, batch, buffer
):
    epochs = random_epochs(seed, n=n, k=3, epochs=2, extra=extra)
    labels = np.arange(n) % 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observers_module, "_BUFFER_ELEMENTS", buffer)
        observer = make(labels, class_sums=ClassSums(n, 3))
        for epoch in epochs:
            feed(observer, epoch, batch=batch)
    expected = recorded_means(epochs, labels.tolist(), NAMES)
    for name, values in observer.compute().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
    last = [dict(epoch) for epoch in epochs]
    probs = [np.mean([softmax(epoch[row]) for epoch in last], axis=0) for row in range(n)]
    np.testing.assert_allclose(observer.class_sums.means(), probs, rtol=1e-4, atol=1e-6)


def test_missing_examples_do_not_count_and_are_nan_when_never_seen():
    observer = make([0, 1, 2])
    one, two = [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    feed(observer, [(0, one), (1, two)])
    feed(observer, [(0, two)])
    means = observer.compute()
    halves = [per_example(logits, 0)["loss"] for logits in (one, two)]
    assert means["loss"][0] == pytest.approx(np.mean(halves))
    assert means["loss"][1] == pytest.approx(per_example(two, 1)["loss"])
    assert np.isnan(means["loss"][2])
    assert observer.correct_history().tolist() == [[1, 1, -1], [0, -1, -1]]


def test_an_epoch_without_any_batch_changes_no_mean():
    observer = make([0, 1])
    feed(observer, [(0, [1.0, 0.0, 0.0]), (1, [1.0, 0.0, 0.0])])
    before = observer.compute()
    observer.on_epoch_end()
    for name, values in observer.compute().items():
        assert values.tolist() == before[name].tolist()
    assert observer.correct_history().tolist() == [[1, 0], [-1, -1]]


def test_half_precision_logits_are_recorded_in_float32():
    logits = torch.randn(4, 3).to(torch.bfloat16)
    observer, same = make([0, 1, 2, 0]), make([0, 1, 2, 0])
    record(observer, torch.arange(4), logits)
    record(same, torch.arange(4), logits.float())
    for item in (observer, same):
        item.on_epoch_end()
    assert observer.compute()["loss"].tolist() == same.compute()["loss"].tolist()


def test_logits_changed_in_place_after_the_update_do_not_matter():
    logits = torch.randn(3, 3)
    observer, same = make([0, 1, 2]), make([0, 1, 2])
    record(same, torch.arange(3), logits.clone())
    record(observer, torch.arange(3), logits)
    logits.zero_()
    for item in (observer, same):
        item.on_epoch_end()
    assert observer.compute()["loss"].tolist() == same.compute()["loss"].tolist()


def test_state_round_trip_goes_on_bit_identically(tmp_path):
    epochs = random_epochs(3, n=9, k=3, epochs=4)
    labels = np.arange(9) % 3
    whole = make(labels, class_sums=ClassSums(9, 3))
    part = make(labels, class_sums=ClassSums(9, 3))
    for epoch in epochs:
        feed(whole, epoch)
    for epoch in epochs[:2]:
        feed(part, epoch)
    torch.save(part.state_dict(), tmp_path / "state.pt")
    resumed = make(labels, class_sums=ClassSums(9, 3))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for epoch in epochs[2:]:
        feed(resumed, epoch)
    for name, values in whole.compute().items():
        assert values.tobytes() == resumed.compute()[name].tobytes()
    assert np.array_equal(whole.correct_history(), resumed.correct_history())
    assert whole.class_sums.means().tobytes() == resumed.class_sums.means().tobytes()


def test_state_in_the_middle_of_an_epoch_is_refused():
    observer = make([0, 1])
    record(observer, torch.tensor([0]), torch.zeros(1, 3))
    for call in (observer.state_dict, observer.compute):
        with pytest.raises(UsageError, match="epoch is not finished"):
            call()


def test_state_of_other_examples_or_statistics_is_refused():
    observer = make([0, 1])
    with pytest.raises(DataError, match="of 3 examples"):
        observer.load_state_dict(make([0, 1, 2]).state_dict())
    other = StatisticsObserver(np.array([0, 1]), 3, [Statistic("loss", lambda o: o.losses)])
    with pytest.raises(DataError, match="stored state has statistics"):
        observer.load_state_dict(other.state_dict())
    with pytest.raises(DataError, match="class sums"):
        make([0, 1], class_sums=ClassSums(2, 3)).load_state_dict(observer.state_dict())


def test_diverged_training_is_an_error_that_says_so():
    observer = make([0, 1])
    record(observer, torch.tensor([0, 1]), torch.tensor([[0.0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(DataError, match=r"not finite for 1 examples in epoch 1, first row 1"):
        observer.on_epoch_end()


def test_two_statistics_of_one_name_are_refused():
    twice = [Statistic("x", lambda o: o.losses)] * 2
    with pytest.raises(UsageError, match="different names"):
        StatisticsObserver(np.array([0]), 2, twice)


def test_trajectories_are_plain_arrays_one_file_an_epoch(tmp_path):
    observer = make([0, 1, 2], trajectories=tmp_path / "t", trajectory_names=["loss"])
    feed(observer, [(0, [1.0, 0.0, 0.0]), (2, [0.0, 0.0, 3.0])])
    feed(observer, [(1, [0.0, 2.0, 0.0])])
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        "epoch_0001.npz", "epoch_0002.npz",
    ]  # fmt: skip
    with np.load(tmp_path / "t" / "epoch_0001.npz", allow_pickle=False) as stored:
        assert stored.files == ["loss"]
        values = stored["loss"]
    assert values.dtype == np.float32
    assert values[0] == pytest.approx(per_example([1.0, 0.0, 0.0], 0)["loss"])
    assert np.isnan(values[1])


def test_file_backed_class_sums_equal_those_in_memory_and_survive_a_lost_epoch(
    tmp_path, monkeypatch
):
    random = np.random.default_rng(0)
    epochs = [random.dirichlet(np.ones(4), size=6).astype(np.float32) for _ in range(3)]
    memory = ClassSums(6, 4)
    monkeypatch.setattr("noiseaudit.class_sums._IN_MEMORY_BYTES", 0)
    filed = ClassSums(6, 4, tmp_path)
    assert isinstance(filed._copies[0], np.memmap)
    for sums in (memory, filed):
        for probs in epochs[:2]:
            sums.put(np.arange(6), probs)
            sums.end_epoch()
    state = filed.state_dict()
    assert state["sums"] is None
    # The third epoch is killed half way: what it wrote must not show after a restart.
    filed.put(np.array([0, 1, 2]), epochs[2][:3] * 100)
    del filed
    again = ClassSums(6, 4, tmp_path)
    again.load_state_dict(state)
    for sums in (memory, again):
        sums.put(np.arange(5), epochs[2][:5])  # row 5 is not seen in this epoch
        sums.end_epoch()
    assert again.means().tobytes() == memory.means().tobytes()
    np.testing.assert_allclose(memory.means()[5], np.mean([e[5] for e in epochs[:2]], axis=0))

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.errors import OutputError
from noiseaudit.scoring import rank_by_epoch, score_examples
from noiseaudit.training.plan import make_plan


def vectors(n=60, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 2 * np.eye(5)[labels]
    return na.LabeledDataset(inputs.astype(np.float32), labels, ("a", "b", "c"))


def scored(data, folder, epochs, **options):
    plan = make_plan(data, model="mlp", epochs=epochs, threads=1, recipe={"schedule": "constant"})
    detectors = [kind() for kind in na.detector_types().values() if kind.needs == ("training",)]
    return plan, detectors, score_examples(data, plan, detectors, folder, **options)


def test_rankings_by_epoch_are_those_of_runs_that_ended_there(tmp_path):
    """With a constant learning rate a run of 2 epochs is the beginning of one of 4."""
    data = vectors()
    plan, detectors, scores = scored(data, tmp_path / "4", 4, keep_trajectories=True)
    by_epoch = list(rank_by_epoch(data, plan, detectors, scores.run, tmp_path / "4"))
    assert len(by_epoch) == 4
    for epochs, found in ((4, scores), (2, scored(data, tmp_path / "2", 2)[2])):
        assert set(by_epoch[epochs - 1]) == {detector.name for detector in detectors}
        for name, ranking in found.rankings.items():
            assert np.array_equal(by_epoch[epochs - 1][name].scores, ranking.scores), name
            assert np.array_equal(by_epoch[epochs - 1][name].ids, ranking.ids)


def test_rankings_by_epoch_need_the_trajectories(tmp_path):
    data = vectors()
    plan, detectors, scores = scored(data, tmp_path, 2)
    with pytest.raises(OutputError, match=r"epoch_0001\.npz cannot be read"):
        next(rank_by_epoch(data, plan, detectors, scores.run, tmp_path))


def test_threads_are_one_for_small_networks_unless_asked_for(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 5)
    data = vectors()
    assert make_plan(data, model="mlp").threads == 1
    assert make_plan(data, model="mlp", threads=3).threads == 3
    assert make_plan(data, model="mlp", recipe={"batch_size": 4096}).threads == 5

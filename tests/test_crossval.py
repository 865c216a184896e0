import numpy as np
import pytest
import torch

from noiseaudit.crossval import assign_folds, cross_validate
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import ManifestMismatchError, UsageError
from noiseaudit.training.plan import TrainingPlan
from noiseaudit.training.recipes import Recipe


def vectors(n=90, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return LabeledDataset(inputs.astype(np.float32), labels, ("a", "b", "c"))


def plan(**changes):
    values = {
        "model": "mlp", "recipe": Recipe(4, batch_size=16), "seed": 0,
        "device": torch.device("cpu"), "threads": 1,
    }  # fmt: skip
    return TrainingPlan(**{**values, **changes})


@pytest.mark.parametrize(("n", "folds"), [(90, 4), (7, 2), (10, 10), (11, 3)])
def test_folds_are_even_in_size_and_in_every_class(n, folds):
    labels = np.array([0, 1, 1, 2] * n)[:n]
    assigned = assign_folds(labels, folds, seed=0)
    sizes = np.bincount(assigned, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in np.unique(labels):
        per_fold = np.bincount(assigned[labels == label], minlength=folds)
        assert per_fold.max() - per_fold.min() <= 1
    assert np.array_equal(assigned, assign_folds(labels, folds, seed=0))
    assert n < 20 or not np.array_equal(assigned, assign_folds(labels, folds, seed=1))


@pytest.mark.parametrize("folds", [1, 0, 91])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(UsageError, match=r"folds must be in 2\.\.90"):
        assign_folds(np.arange(90) % 3, folds, seed=0)


def test_every_example_is_predicted_by_a_model_that_did_not_see_it(tmp_path):
    data = vectors()
    # An input that only its own label could explain: in-sample it would be fitted, held out not.
    odd = data.with_labels(np.where(np.arange(90) == 30, 1, data.labels))
    held = cross_validate(odd, plan(recipe=Recipe(40, batch_size=16)), tmp_path, folds=3)
    np.testing.assert_allclose(held.pred_probs.sum(axis=1), 1, rtol=1e-5)
    assert held.pred_probs[30, 0] > 0.5 > held.pred_probs[30, 1]
    right = held.pred_probs.argmax(axis=1) == data.labels
    assert right.mean() > 0.9  # measured: 0.956
    assert sorted(np.unique(held.folds)) == [0, 1, 2]


def test_finished_folds_are_kept_and_the_result_does_not_depend_on_interruption(
    tmp_path, monkeypatch
):
    from noiseaudit import crossval

    whole = cross_validate(vectors(), plan(), tmp_path / "whole", folds=3)
    real, calls = crossval._run_fold, []

    def stop_at_second(*arguments, **options):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        real(*arguments, **options)

    monkeypatch.setattr(crossval, "_run_fold", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(vectors(), plan(), tmp_path / "part", folds=3)
    again = []
    monkeypatch.setattr(crossval, "_run_fold", lambda *a, **k: again.append(1) or real(*a, **k))
    resumed = cross_validate(vectors(), plan(), tmp_path / "part", folds=3)
    assert len(again) == 2
    assert resumed.pred_probs.tobytes() == whole.pred_probs.tobytes()


def test_folds_of_other_data_or_settings_are_refused(tmp_path):
    cross_validate(vectors(), plan(), tmp_path, folds=2)
    with pytest.raises(ManifestMismatchError, match="seed: stored 0, now 1"):
        cross_validate(vectors(), plan(seed=1), tmp_path, folds=2)
    other = cross_validate(vectors(), plan(seed=1), tmp_path, folds=2, resume=False)
    assert np.isfinite(other.pred_probs).all()

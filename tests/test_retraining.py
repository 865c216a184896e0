import numpy as np
import pytest
import torch

import noiseaudit as na
from noiseaudit import retraining
from noiseaudit.errors import DataError
from noiseaudit.findings import Findings
from noiseaudit.ranking import Ranking
from noiseaudit.retraining import (
    Arm,
    arm_names,
    make_arms,
    retrain_arm,
    split_off_test,
    summarise_arms,
)
from noiseaudit.training.plan import make_plan

NOISY = [0, 0, 1, 1, 2, 2]
SUGGESTED = [0, 1, 1, 0, 2, 2]


def vectors(n=90, seed=0, split=None):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return na.LabeledDataset(
        inputs.astype(np.float32), labels, ("a", "b", "c"), ids=np.arange(n) + 100, split=split
    )


def six():
    """Six examples of which the audit flags rows 1 and 3; `loss` finds 5 and 1 the worst."""
    data = na.LabeledDataset(np.eye(6, dtype=np.float32), np.array(NOISY), ("a", "b", "c"))
    nothing = np.zeros(6)
    suggested = np.array(SUGGESTED)
    findings = Findings(suggested, suggested != NOISY, nothing, nothing, nothing.astype(int), 1)
    ranking = Ranking("loss", data.ids, np.array([0.0, 0.8, 0.1, 0.2, 0.3, 0.9]))
    return data, findings, {"loss": ranking}


def arms_by_name(**options):
    data, findings, rankings = six()
    clean = data.with_labels([0, 1, 1, 0, 2, 1])
    made = list(make_arms(data, clean, findings, rankings, seed=0, **options))
    assert [(arm.name, arm.selected_by) for arm in made] == arm_names(options.get("selectors", ()))
    return {arm.file_name: arm for arm in made}


def test_the_verdict_is_removed_or_relabelled():
    arms = arms_by_name()
    assert arms["noisy"].dataset.labels.tolist() == NOISY
    assert arms["clean"].dataset.labels.tolist() == [0, 1, 1, 0, 2, 1]
    assert arms["remove_is_label_issue"].dataset.ids.tolist() == [0, 2, 4, 5]
    assert arms["relabel_is_label_issue"].dataset.labels.tolist() == SUGGESTED
    assert arms["random_removal"].n_selected == arms["remove_is_label_issue"].n_selected == 2
    assert len(arms["random_removal"].dataset) == 4


def test_a_detector_selects_as_many_as_the_verdict_flags():
    arms = arms_by_name(selectors=["loss"])
    assert arms["remove_loss"].dataset.ids.tolist() == [0, 2, 3, 4]
    # Row 5 is selected too, but the audit agrees with its label.
    assert arms["relabel_loss"].dataset.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert arms["relabel_loss"].n_selected == 2


def test_random_removal_depends_on_the_seed_alone():
    data, findings, rankings = six()

    def kept(seed):
        arms = make_arms(data, data, findings, rankings, seed=seed)
        return next(tuple(arm.dataset.ids) for arm in arms if arm.name == "random_removal")

    assert kept(0) == kept(0)
    assert len({kept(seed) for seed in range(6)}) > 1


def test_a_test_split_is_the_test_set():
    split = np.array(["train", "val", "test"] * 30)
    train, test = split_off_test(vectors(split=split))
    assert set(train.split) == {"train", "val"}
    assert test.ids.tolist() == (np.arange(2, 90, 3) + 100).tolist()


@pytest.mark.parametrize("split", [None, np.full(90, "train"), np.full(90, "test")])
def test_without_one_a_fifth_of_every_class_is_held_out(split):
    train, test = split_off_test(vectors(split=split))
    assert np.bincount(test.labels).tolist() == [6, 6, 6]
    assert sorted([*train.ids, *test.ids]) == (np.arange(90) + 100).tolist()
    assert split_off_test(vectors(split=split))[1].ids.tolist() == test.ids.tolist()


def test_a_given_test_set_replaces_the_split_which_is_still_left_out():
    given = vectors(30, seed=5)
    train, test = split_off_test(vectors(split=np.array(["train", "val", "test"] * 30)), given)
    assert test is given
    assert len(train) == 60
    train, test = split_off_test(vectors(), given)
    assert len(train) == 90


def retrained(arm, tmp_path, test=None, epochs=3):
    plan = make_plan(vectors(), model="mlp", epochs=epochs, threads=1, seed=1)
    is_wrong = arm.dataset.labels != np.arange(len(arm.dataset)) % 3
    return retrain_arm(arm, test or vectors(30, seed=5), plan, tmp_path, is_wrong=is_wrong)


def test_accuracies_are_those_of_the_trained_model(tmp_path, monkeypatch):
    caught = []
    real = retraining.train

    def catch(*arguments, **options):
        caught.append(real(*arguments, **options))
        return caught[-1]

    monkeypatch.setattr(retraining, "train", catch)
    test = vectors(30, seed=5)
    noisy = na.inject_noise(vectors(), "uniform", rate=0.3, seed=0)
    result = retrained(Arm("noisy", "", 0, noisy.dataset), tmp_path, test, epochs=8)
    model, inputs = caught[0].model.eval(), caught[0].inputs

    def is_right(part):
        scaled = (torch.from_numpy(part.inputs) - inputs.mean) / inputs.std
        with torch.no_grad():
            return model(scaled).argmax(dim=1).numpy() == part.labels

    fitted = is_right(noisy.dataset)
    assert result["train_accuracy"] == pytest.approx(fitted.mean())
    assert result["wrong_fitted"] == pytest.approx(fitted[noisy.is_corrupted].mean())
    assert result["test_accuracy"] == pytest.approx(is_right(test).mean())
    assert result["wrong_fitted"] < result["train_accuracy"] < 1
    assert result["epochs"] == 8


def count_epochs(monkeypatch, stop_after=None):
    """The number of every epoch trained; a kill after one of them."""
    from noiseaudit.training import loop

    real, trained = loop._train_epoch, []

    def train_epoch(*arguments):
        if len(trained) == stop_after:
            raise KeyboardInterrupt
        trained.append(arguments[6])
        return real(*arguments)

    monkeypatch.setattr(loop, "_train_epoch", train_epoch)
    return trained


def test_finished_arms_are_reused_unless_something_differs(tmp_path, monkeypatch):
    trained = count_epochs(monkeypatch)
    arm = Arm("remove", "is_label_issue", 4, vectors(60))
    first = retrained(arm, tmp_path)
    assert len(trained) == 3
    assert retrained(arm, tmp_path) == first
    assert len(trained) == 3
    retrained(arm, tmp_path, epochs=2)  # another recipe
    assert len(trained) == 5
    retrained(arm, tmp_path, test=vectors(30, seed=6), epochs=2)  # another test set
    assert len(trained) == 7
    retrained(Arm("remove", "is_label_issue", 4, vectors(66)), tmp_path, epochs=2)  # other data
    assert len(trained) == 9
    monkeypatch.setattr(retraining, "_FORMAT", 99)
    retrained(Arm("remove", "is_label_issue", 4, vectors(66)), tmp_path, epochs=2)
    assert len(trained) == 11
    assert not list(tmp_path.glob("*.pt"))


def test_an_interrupted_arm_goes_on_but_never_from_other_settings(tmp_path, monkeypatch):
    arm = Arm("noisy", "", 0, vectors())
    whole = retrained(arm, tmp_path / "whole", epochs=4)
    count_epochs(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        retrained(arm, tmp_path / "cut", epochs=4)
    monkeypatch.undo()
    trained = count_epochs(monkeypatch)
    resumed = retrained(arm, tmp_path / "cut", epochs=4)
    assert trained == [2, 3]
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    monkeypatch.undo()
    count_epochs(monkeypatch, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        retrained(arm, tmp_path / "cut", epochs=2)
    monkeypatch.undo()
    trained = count_epochs(monkeypatch)
    retrained(arm, tmp_path / "cut", epochs=3)
    assert trained == [0, 1, 2]


def test_a_noisy_arm_that_fits_few_wrong_labels_says_so(tmp_path, caplog):
    noisy = na.inject_noise(vectors(), "uniform", rate=0.1, seed=0).dataset
    with caplog.at_level("WARNING", logger="noiseaudit"):
        result = retrained(Arm("noisy", "", 0, noisy), tmp_path, epochs=1)
    assert result["wrong_fitted"] < 0.5
    assert "of the wrong labels in 1 epochs" in caplog.text


def test_one_example_cannot_be_trained_on(tmp_path):
    with pytest.raises(DataError, match="remove_loss leaves 1 examples"):
        retrained(Arm("remove", "loss", 89, vectors(1)), tmp_path)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (six()[0], "inputs of shape"),
        (
            na.LabeledDataset(np.ones((4, 5), np.float32), np.array([0, 1, 1, 0]), ("a", "z")),
            "class names",
        ),
    ],
)
def test_a_test_set_of_another_kind(test, words):
    with pytest.raises(DataError, match=words):
        split_off_test(vectors(), test)


def row(arm, seed, accuracy, selected_by="", status="ok"):
    figures = {"n_selected": 1, "n_train": 9, "n_wrong": 2, "train_accuracy": 0.5}
    figures["wrong_fitted"] = None if arm == "clean" else 0.25
    told = {"arm": arm, "selected_by": selected_by, "seed": seed, "status": status}
    return {**figures, **told, "test_accuracy": accuracy}


def test_summary_pairs_seeds_and_gives_the_share_of_the_gap():
    rows = [
        row("noisy", 0, 0.60), row("clean", 0, 0.80), row("remove", 0, 0.76, "x"),
        row("noisy", 1, 0.64), row("clean", 1, 0.84), row("remove", 1, 0.82, "x"),
        row("noisy", 2, None, status="failed"), row("remove", 2, 0.99, "x"),
    ]  # fmt: skip
    lines = {line["arm"]: line for line in summarise_arms(rows)}
    assert lines["remove"]["seeds"] == 3
    assert lines["remove"]["test_accuracy_mean"] == pytest.approx((0.76 + 0.82 + 0.99) / 3)
    # Gains over the noisy arm of the same seed: 0.16 and 0.18; seed 2 has no noisy arm.
    assert lines["remove"]["gain_mean"] == pytest.approx(0.17)
    assert lines["remove"]["gap_closed"] == pytest.approx(0.17 / 0.20)
    assert lines["clean"]["gap_closed"] is None
    assert lines["noisy"]["gain_mean"] == 0


def test_the_share_of_the_gap_is_of_the_seeds_that_have_all_three():
    rows = [
        row("noisy", 0, 0.60), row("clean", 0, 0.70), row("remove", 0, 0.70, "x"),
        row("noisy", 1, 0.50), row("clean", 1, 0.90), row("remove", 1, None, "x", "failed"),
        row("relabel", 0, None, "x", "failed"), row("relabel", 1, None, "x", "failed"),
    ]  # fmt: skip
    lines = {line["arm"]: line for line in summarise_arms(rows)}
    assert lines["remove"]["gap_closed"] == pytest.approx(1)
    assert lines["remove"]["seeds"] == 1
    assert lines["remove"]["gain_low"] is None
    assert lines["relabel"]["seeds"] == 0
    assert lines["relabel"]["test_accuracy_mean"] is None


def test_no_share_of_a_gap_below_one_point():
    rows = [row("noisy", 0, 0.60), row("clean", 0, 0.609), row("remove", 0, 0.605, "x")]
    assert {line["gap_closed"] for line in summarise_arms(rows)} == {None}

"""The choice of a step from planted flips."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit import curvature_choice
from noiseaudit.errors import ManifestMismatchError, UnknownNameError, UsageError

FAST = {"model": "mlp", "epochs": 6, "threads": 1}
TINY, USUAL = na.Curvature(h=1e-7), na.Curvature(h=0.03)


@pytest.fixture(scope="module")
def digits():
    return na.load("digits", limit=400)


def test_the_step_that_finds_the_planted_flips_is_chosen(digits):
    choice = na.choose_curvature(digits, [TINY, USUAL], share=0.1, **FAST)
    # A step of 1e-7 is lost in the rounding of float32 pixels: its score says little.
    assert choice.chosen is USUAL
    assert choice.auroc[1] > 0.85 > choice.auroc[0]  # 0.97 and 0.79
    assert choice.scores.shape == (2, 400)
    assert choice.training_seconds > 0
    assert choice.watching_seconds > 0
    for scores, auroc in zip(choice.scores, choice.auroc, strict=True):
        ranking = na.Ranking("x", digits.ids, scores)
        assert na.evaluate(ranking, choice.is_planted).auroc == auroc
    per_class = np.bincount(digits.labels[choice.is_planted], minlength=10)
    assert np.abs(per_class - 0.1 * np.bincount(digits.labels)).max() < 1
    assert 39 <= choice.is_planted.sum() <= 41


def test_a_finished_run_is_read_and_another_share_is_another_run(digits, tmp_path, monkeypatch):
    settings = {**FAST, "epochs": 2, "out": tmp_path / "o"}
    first = na.choose_curvature(digits, [USUAL], **settings)
    trained = []
    from noiseaudit.training import run

    monkeypatch.setattr(run, "train", lambda *a, **k: trained.append(1))
    again = na.choose_curvature(digits, [USUAL], **settings)
    assert not trained
    assert np.array_equal(again.scores, first.scores)
    with pytest.raises(ManifestMismatchError, match=r"share: stored 0\.02, now 0\.2"):
        na.choose_curvature(digits, [USUAL], share=0.2, **settings)


def test_by_default_the_usual_steps_are_tried(digits):
    choice = na.choose_curvature(digits, **{**FAST, "epochs": 1})
    assert [item.h for item in choice.candidates] == [0.001, 0.003, 0.01, 0.03, 0.1]
    assert {(item.probes, item.every, item.squared) for item in choice.candidates} == {
        (1, 1, False)
    }
    assert choice.chosen in choice.candidates


@pytest.mark.parametrize(
    ("candidates", "share", "words"),
    [
        ([], 0.1, "at least one"),
        ([USUAL, USUAL], 0.1, "all different"),
        ([USUAL], 0.001, "flips 0 of 400"),
        ([USUAL], 0.999, "flips 400 of 400"),
        ([USUAL], 1.0, r"share must be in \(0, 1\); got 1"),
        ([USUAL, na.Curvature(every=7)], 0.1, "every=7 measures in none of 6 epochs"),
    ],
)
def test_bad_arguments(digits, monkeypatch, candidates, share, words):
    monkeypatch.setattr(curvature_choice, "run_training", None)  # never reached
    with pytest.raises(UsageError, match=words):
        na.choose_curvature(digits, candidates, share=share, **FAST)


def test_a_wrong_option_is_found_before_any_data_is_read(monkeypatch):
    monkeypatch.setattr(curvature_choice, "load", None)  # never reached
    with pytest.raises(UnknownNameError, match="field of Recipe"):
        na.choose_curvature("digits", recipe={"nope": 1})

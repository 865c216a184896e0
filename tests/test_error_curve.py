"""How often predictions err on right labels by confidence, and the rates of wrong labels."""

import numpy as np
import pytest
from scipy.special import expit

from noiseaudit.error_curve import fit_error_curve

K = 5
FEW = np.array([0.2, 0.2, 0.0, 0.0, 0.0])  # mistakes between two classes only


def predictions(rates, slope=0.6, offset=0.2, n=6000, seed=0):
    """Stated log odds, predicted classes and labels: by the model that is fitted, drawn by hand."""
    random = np.random.default_rng(seed)
    stated = random.gamma(2.0, 2.0, n) - 1
    predicted = random.integers(0, K, n)
    errs = random.random(n) < expit(-slope * stated - offset)
    flipped = random.random(n) < np.asarray(rates)[predicted]
    return stated, predicted, np.where(errs | flipped, (predicted + 1) % K, predicted)


@pytest.mark.parametrize(("slope", "offset"), [(0.6, 0.2), (1.5, -1.0)])
def test_curve_and_rates_are_found(slope, offset):
    rates = np.array([0.05, 0.05, 0.1, 0.2, 0.4])
    stated, predicted, labels = predictions(rates, slope, offset, n=20_000)
    found = fit_error_curve(stated, predicted, labels, K)
    assert found.slopes == pytest.approx(np.full(K, slope), rel=0.25)
    assert found.slopes.mean() == pytest.approx(slope, rel=0.1)
    assert found.offsets.mean() == pytest.approx(offset, abs=0.2)
    assert found.rates == pytest.approx(rates, abs=0.03)


@pytest.mark.parametrize(("slope", "most"), [(0.8, 0.6), (0.6, 1.0)])  # towards 1 rates are high
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_standard_error_is_that_of_other_draws(rate, slope, most):
    found = [fit_error_curve(*predictions([rate] * K, slope, seed=seed), K) for seed in range(40)]
    away = [(curve.rates.mean() - rate) / curve.deviation for curve in found]
    assert 0.7 < np.std(away) < 1.4
    assert abs(np.mean(away)) < most


def test_classes_have_about_the_same_rate_or_their_own():
    few = [fit_error_curve(*predictions(FEW, 1.0, 0.0, 1500, seed), K).rates for seed in range(5)]
    assert np.mean(few, axis=0)[:2] == pytest.approx([0.2, 0.2], rel=0.15)
    assert np.mean(few, axis=0)[2:].max() < 0.025
    alike = [fit_error_curve(*predictions([0.1] * K, 1.0, 0.0, 800, seed), K) for seed in range(5)]
    assert np.median([curve.rates.std() for curve in alike]) < 0.014


def test_right_labels_alone_have_no_rate():
    for seed in range(5):
        found = fit_error_curve(*predictions([0.0] * K, seed=seed), K)
        assert found.rates.mean() < 0.01
        assert found.rates.mean() < 2.5 * found.deviation


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.4])
def test_of_two_classes_wrong_labels_hide_behind_errors(rate):
    random = np.random.default_rng(0)
    stated = random.gamma(2.0, 2.0, 20_000)
    predicted = random.integers(0, 2, 20_000)
    true = np.where(random.random(20_000) < expit(-stated), 1 - predicted, predicted)
    labels = np.where(random.random(20_000) < rate, 1 - true, true)
    found = fit_error_curve(stated, predicted, labels, 2)
    assert found.rates == pytest.approx([rate, rate], abs=3 * found.deviation + 0.005)
    for odds in (0.5, 1, 2, 4):
        errs = expit(-found.slopes * odds - found.offsets)
        assert errs == pytest.approx([expit(-odds)] * 2, abs=0.05)


def test_predictions_that_never_err_leave_a_finite_curve():
    stated, predicted, _ = predictions([0.0] * K, n=200)
    found = fit_error_curve(stated, predicted, predicted, K)
    assert found.rates.max() < 1e-3
    assert np.isfinite([*found.slopes, *found.offsets, found.deviation]).all()
    surely = fit_error_curve(np.full(200, 700.0), predicted, predicted, K)
    assert np.isfinite([*surely.slopes, *surely.offsets, surely.deviation]).all()

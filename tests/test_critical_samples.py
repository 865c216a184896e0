"""Critical samples: against distances to the boundary that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from noiseaudit.errors import DataError, UsageError
from noiseaudit.memorization.critical import PUBLISHED_RADIUS, LangevinSearch, find_critical
from noiseaudit.memorization.networks import apply_network, initialize


def linear_model(weights, bias=0.0):
    """Logits (0, w x + b): the boundary is |w x + b| / ||w||_1 away in the largest norm."""
    model = nn.Linear(len(weights), 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0] * len(weights), weights]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


def points(n=200, d=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def test_linear_boundary_within_the_radius_is_found_and_beyond_it_never():
    weights, bias = [1.0, -2.0, 0.5], 0.3
    inputs = points()
    distance = (inputs @ torch.tensor(weights) + bias).abs() / 3.5
    found = find_critical(
        linear_model(weights, bias), inputs, seed=1, search=LangevinSearch(radius=0.2)
    )
    # Noise may keep a point off the corner of the box: those just inside may be missed.
    inside, outside = (distance < 0.19).numpy(), (distance > 0.2001).numpy()
    assert inside.sum() > 20
    assert outside.sum() > 20
    assert found.is_critical[inside].all()
    assert not found.is_critical[outside].any()
    assert found.ratio == found.is_critical.mean()


class Absolute(nn.Module):
    """Logits (|x| - 1, 0) of numbers: piecewise linear, with boundaries at -1 and 1."""

    def forward(self, inputs):
        return torch.cat([inputs.abs() - 1, torch.zeros_like(inputs)], 1)


def test_piecewise_linear_boundary_on_either_side():
    inputs = torch.tensor([[-1.5], [-1.05], [-0.95], [0.6], [0.93], [1.08], [1.2]])
    found = find_critical(Absolute(), inputs, seed=0, search=LangevinSearch(radius=0.1))
    assert found.is_critical.tolist() == [False, True, True, False, True, True, False]


def test_scale_turns_the_radius_into_the_units_of_the_inputs():
    model, inputs = linear_model([1.0, 1.0]), points(d=2)
    plain = find_critical(model, inputs, seed=0, search=LangevinSearch(radius=0.3))
    scaled = find_critical(model, inputs, seed=0, search=LangevinSearch(radius=0.1, scale=3.0))
    np.testing.assert_array_equal(plain.is_critical, scaled.is_critical)
    assert 0 < plain.ratio < 1


def test_sure_networks_are_searched_like_others():
    # At logits of 200 the loss' own gradient is exactly 0 in float32.
    inputs = points()
    plain, sure = (
        find_critical(
            linear_model([factor, -2 * factor]),
            inputs[:, :2],
            seed=0,
            search=LangevinSearch(radius=0.2, noise=0.0),
        )
        for factor in (1.0, 200.0)
    )
    np.testing.assert_array_equal(plain.is_critical, sure.is_critical)
    assert 0 < plain.ratio < 1


def test_published_constants_are_the_defaults():
    search = LangevinSearch()
    assert search.radius == PUBLISHED_RADIUS == pytest.approx(0.3 / 255)
    assert search.step_length == pytest.approx(0.25 / 255)
    assert search.noise_deviation == pytest.approx(0.2 / 255)
    assert search.max_iterations == 100


def test_search_stops_when_a_step_finds_fewer_new_ones():
    model, inputs = linear_model([1.0, 1.0, 1.0]), points()
    settings = {"radius": 0.2, "step": 0.01, "noise": 0.0}
    stopped = find_critical(
        model, inputs, seed=0, search=LangevinSearch(**settings, min_new=len(inputs))
    )
    full = find_critical(model, inputs, seed=0, search=LangevinSearch(**settings))
    assert (stopped.iterations, full.iterations) == (1, 100)
    assert stopped.ratio < full.ratio


def test_search_stops_when_all_are_critical():
    found = find_critical(
        linear_model([1.0]), torch.full((3, 1), 0.01), seed=0, search=LangevinSearch(radius=1.0)
    )
    assert found.is_critical.all()
    assert found.iterations < 100


def random_network(seed=0):
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)
    ).apply(lambda module: torch.manual_seed(seed))


def test_model_keeps_weights_buffers_gradients_and_mode():
    model = random_network()
    model.train()
    model[3].eval()  # a frozen part stays frozen
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_critical(model, points(), seed=0, search=LangevinSearch(radius=0.1, max_iterations=3))
    assert [module.training for module in model] == [True, True, True, False, True]
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[4].weight.grad is None


def test_modes_come_back_after_an_error():
    model = random_network()
    with pytest.raises(RuntimeError):
        find_critical(model, points(d=5), seed=0)
    assert model.training


def test_outcome_is_the_seeds_and_the_rows_alone():
    networks = initialize((3, 16, 4), [5])
    model, inputs = apply_network(networks, 0), points(700)
    search = LangevinSearch(radius=0.05, max_iterations=4)
    every = find_critical(model, inputs, seed=3, search=search)
    again = find_critical(model, inputs, seed=3, search=search)
    first = find_critical(model, inputs[:40], seed=3, search=search)
    np.testing.assert_array_equal(every.is_critical, again.is_critical)
    np.testing.assert_array_equal(every.is_critical[:40], first.is_critical)
    noisy = LangevinSearch(radius=0.05, step=0.0, noise=0.05, max_iterations=1)
    outcomes = {
        tuple(find_critical(model, inputs, seed=seed, search=noisy).is_critical.tolist())
        for seed in (1, 2)
    }
    assert len(outcomes) == 2


def test_images_go_through_as_they_are():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    found = find_critical(
        model, torch.rand(5, 3, 2, 2), seed=0, search=LangevinSearch(max_iterations=1)
    )
    assert found.is_critical.shape == (5,)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("radius", 0.0, "radius must be positive"),
        ("scale", -1.0, "scale must be positive"),
        ("max_iterations", 0, "max_iterations must be positive"),
        ("step", -0.1, "step must not be negative"),
        ("noise", float("nan"), "noise must not be negative"),
        ("min_new", -1, "min_new must not be negative"),
    ],
)
def test_search_out_of_range_is_an_error(name, value, words):
    with pytest.raises(UsageError, match=words):
        LangevinSearch(**{name: value})


def test_unsuitable_models_and_inputs_are_errors():
    with pytest.raises(DataError, match="inputs are empty"):
        find_critical(linear_model([1.0]), torch.empty(0, 1), seed=0)
    with pytest.raises(DataError, match="logits of shape"):
        find_critical(lambda inputs: inputs[:, 0], points(), seed=0)
    with pytest.raises(DataError, match="not finite"):
        find_critical(lambda inputs: inputs / 0, points(), seed=0)

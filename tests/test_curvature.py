"""Curvature against explicit Hessians, and what it must not depend on or change."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit import loss_curvature
from noiseaudit.detectors.curvature import Curvature, CurvatureObserver
from noiseaudit.errors import UnknownNameError, UsageError
from noiseaudit.loss_curvature import (
    gradient_change,
    hessian_product,
    loss_gradient,
    random_signs,
    squared_trace,
    squared_trace_piecewise_linear,
)
from noiseaudit.scoring import score_examples
from noiseaudit.seeding import derive_seed
from noiseaudit.training import clean_pass
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import make_plan

SIDE = 5  # of the tiny inputs: few enough for every vector of signs


def tiny(activation, seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(SIDE, 16), activation, nn.Linear(16, 4)).double()
    return layers, torch.randn(6, SIDE, dtype=torch.float64), torch.arange(6) % 4


def explicit(model, inputs, labels):
    """(b, d, d) Hessians of each example's loss by its input, entry by entry."""
    return torch.stack(
        [
            torch.autograd.functional.hessian(
                lambda x, y=y: F.cross_entropy(model(x[None]), y[None]), point
            )
            for point, y in zip(inputs, labels, strict=True)
        ]
    )


def squared(hessians):
    return (hessians @ hessians).diagonal(dim1=1, dim2=2).sum(dim=1)


def all_signs(b):
    """Every vector of signs once: their mean is the expectation, exactly."""
    for signs in itertools.product((-1.0, 1.0), repeat=SIDE):
        yield torch.tensor(signs, dtype=torch.float64).expand(b, SIDE)


def mean_over_signs(measure, b=6):
    values = [measure(signs) for signs in all_signs(b)]
    return torch.stack(values).mean(dim=0)


@pytest.mark.parametrize("method", ["forward", "double_backward"])
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.ReLU()])
def test_exact_score_is_the_explicit_hessians(activation, method):
    model, inputs, labels = tiny(activation)
    hessians = explicit(model, inputs, labels)
    vectors = torch.randn_like(inputs)
    product = hessian_product(model, inputs, labels, vectors, method)
    torch.testing.assert_close(product, (hessians @ vectors[..., None])[..., 0])
    found = mean_over_signs(lambda v: squared_trace(model, inputs, labels, v, method=method))
    torch.testing.assert_close(found, squared(hessians), rtol=1e-5, atol=0)


def test_closed_form_is_exact_for_piecewise_linear_networks_only():
    model, inputs, labels = tiny(nn.ReLU())
    want = squared(explicit(model, inputs, labels))
    found = squared_trace_piecewise_linear(model, inputs)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=0)
    smooth, inputs, labels = tiny(nn.Tanh())
    want = squared(explicit(smooth, inputs, labels))
    assert not torch.allclose(squared_trace_piecewise_linear(smooth, inputs), want, rtol=0.01)


def test_finite_difference_is_the_exact_score_on_smooth_networks():
    model, inputs, labels = tiny(nn.Tanh())
    want = squared(explicit(model, inputs, labels))
    _, gradient = loss_gradient(model, inputs, labels)
    for h, tolerance in ((1e-2, 2e-2), (1e-3, 1e-4)):
        found = mean_over_signs(
            lambda v, h=h: gradient_change(model, inputs, labels, gradient, v, h)
        )
        torch.testing.assert_close(found / h**2, want, rtol=tolerance, atol=0)


def test_finite_difference_is_something_else_on_relu_networks():
    """A step crosses kinks, which the Hessian does not see."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIDE, 400), nn.ReLU(), nn.Linear(400, 4)).double()
    inputs, labels = torch.randn(50, SIDE, dtype=torch.float64), torch.arange(50) % 4
    _, gradient = loss_gradient(model, inputs, labels)
    ratios = []
    for h in (1e-2, 1e-7):
        changed = mean_over_signs(
            lambda v, h=h: gradient_change(model, inputs, labels, gradient, v, h), 50
        )
        ratios.append(changed / h**2 / squared_trace_piecewise_linear(model, inputs))
    assert ratios[0].median() > 5
    assert ratios[1].median() == pytest.approx(1, rel=1e-3)


def test_units_change_the_step_and_the_gradient():
    """In pixels: of the loss as a function of the raw input, x = (raw - mean) / std."""
    model, inputs, labels = tiny(nn.Tanh())
    std = torch.tensor([0.5, 0.2, 1.0, 2.0, 0.1], dtype=torch.float64)
    of_raw = nn.Sequential(nn.Identity(), model)
    of_raw.forward = lambda raw: model(raw / std)
    raw, signs = inputs * std, next(all_signs(6))

    def measured(network, points, scale):
        _, gradient = loss_gradient(network, points, labels)
        change = gradient_change(network, points, labels, gradient, signs, 0.01, scale)
        return change, squared_trace(network, points, labels, signs, scale)

    for found, want in zip(
        measured(model, inputs, 1 / std), measured(of_raw, raw, 1.0), strict=True
    ):
        torch.testing.assert_close(found, want)


def test_signs_are_fair_independent_and_depend_on_the_id_alone():
    signs = random_signs(torch.arange(2000), (3, 10, 10), 7)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    flat = signs.flatten(1).double()
    # 600,000 fair signs: mean within 5 deviations; correlations of rows within 6.
    assert abs(flat.mean()) < 5 / 600_000**0.5
    assert (flat @ flat.T / 300).fill_diagonal_(0).abs().max() < 6 / 300**0.5
    assert flat.mean(dim=0).abs().max() < 5 / 2000**0.5
    assert torch.equal(random_signs(torch.tensor([5, 3]), (3, 10, 10), 7), signs[[5, 3]])
    for other in (random_signs(torch.arange(2000), (3, 10, 10), 8), signs.roll(1, 0)):
        assert abs((other * signs).mean()) < 5 / 600_000**0.5


def pictures(n=40, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 255, (n, 8, 8), dtype=np.uint8)
    return na.LabeledDataset(images, np.arange(n) % 3, ("a", "b", "c"), ids=np.arange(n) * 7 + 2)


def network(seed=0):
    torch.manual_seed(seed)
    model = build_model("cnn", (1, 8, 8), 3)
    with torch.no_grad():  # batch norm with statistics that are not those of a fresh one
        for _ in range(3):
            model.train()(torch.randn(16, 1, 8, 8) + 0.5)
    return model


METHODS = ["finite_difference", "hessian", "hessian_piecewise_linear"]


@pytest.mark.parametrize("method", METHODS)
def test_a_score_depends_on_neither_chunks_nor_order_nor_batch_mates(method, monkeypatch):
    data, model = pictures(), network()
    mean, std = [0.5], [0.25]
    options = {"method": method, "mean": mean, "std": std, "probes": 2}
    whole = na.curvature(model, data, **options)
    assert whole.shape == (40,)
    assert (whole > 0).all()
    for rows in (np.random.default_rng(1).permutation(40), [7]):
        part = na.curvature(model, data.subset(rows), **options)
        np.testing.assert_allclose(part, whole[rows], rtol=1e-3)
    monkeypatch.setattr(clean_pass, "_CPU_ROWS", 8)
    np.testing.assert_allclose(na.curvature(model, data, **options), whole, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    data, model = pictures(), network()
    model.train()
    model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    na.curvature(model, data, method=method)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_gradients_are_computed_once_for_all_and_in_smaller_parts_when_memory_ends(monkeypatch):
    data, model = pictures(), network()
    inputs = Inputs(data, torch.device("cpu"))
    want = CleanPass(model, inputs)
    gradient = want.input_gradient
    sizes = []
    real = clean_pass.loss_gradient

    def gradient_of_few(model, batch, labels):
        if len(batch) > 10:
            raise torch.cuda.OutOfMemoryError
        sizes.append(len(batch))
        return real(model, batch, labels)

    monkeypatch.setattr(clean_pass, "loss_gradient", gradient_of_few)
    monkeypatch.setattr(clean_pass, "_CPU_ROWS", 32)
    found, view = torch.empty(40, 1, 8, 8), CleanPass(model, inputs)
    logits, finished = torch.empty(40, 3), []

    def visit(batch):
        found[batch.rows] = batch.gradient
        logits[batch.rows] = batch.logits

    for name in "ab":  # two who ask share one pass
        view.visit_gradients(visit, lambda name=name: finished.append(name))
    assert sizes == []
    view.finish()
    view.finish()
    assert sizes == [8] * 5
    assert finished == ["a", "b"]
    torch.testing.assert_close(found, gradient)
    torch.testing.assert_close(logits, want.logits)


def test_plain_and_squared_probes_and_units():
    data, model = pictures(), network()
    plain = na.curvature(model, data)
    np.testing.assert_allclose(na.curvature(model, data, squared=True), plain**2, rtol=1e-4)
    assert not np.allclose(na.curvature(model, data, units="normalised"), plain, rtol=0.1)
    assert not np.allclose(na.curvature(model, data, seed=1), plain, rtol=1e-3)
    # Two probes are those of one, and another.
    assert not np.allclose(na.curvature(model, data, probes=2), plain, rtol=1e-3)


def test_bfloat16_is_nearly_the_same_score_and_has_a_pass_of_its_own(monkeypatch):
    data, model = pictures(300), network()
    full = na.curvature(model, data, h=0.03)
    half = na.curvature(model, data, h=0.03, bfloat16=True)
    assert half.dtype == np.float64
    assert not np.array_equal(half, full)
    assert np.corrcoef(half, full)[0, 1] > 0.85
    view = CleanPass(model, Inputs(data, torch.device("cpu")))
    precisions = []

    def visit(_):
        precisions.append(torch.is_autocast_enabled("cpu"))

    monkeypatch.setattr(clean_pass, "_CPU_ROWS", 300)
    for bfloat16 in (True, False, True):
        view.visit_gradients(visit, lambda: None, bfloat16=bfloat16)
    view.finish()
    assert precisions == [False, True, True]
    assert not torch.is_autocast_enabled("cpu")


def audited(data, folder, epochs=4, **settings):
    detector = Curvature(**settings)
    plan = make_plan(data, model="mlp", epochs=epochs, threads=1)
    return score_examples(data, plan, [detector], folder), detector


def test_the_observer_averages_the_epochs_whose_turn_it_is():
    data, model = pictures(), network()
    inputs = Inputs(data, torch.device("cpu"))
    observer = CurvatureObserver(Curvature(every=2), data.ids, 3)
    assert np.isnan(observer.compute()[Curvature(every=2).statistic]).all()
    singles = []
    for epoch in range(1, 6):
        alone = CurvatureObserver(Curvature(), data.ids, 3)
        alone._epoch = epoch - 1
        view = CleanPass(model, inputs)
        for watching in (observer, alone):
            watching.on_epoch_end(view)
        view.finish()
        singles.append(alone.compute()[Curvature().statistic])
    want = (singles[1] + singles[3]) / 2
    np.testing.assert_allclose(observer.compute()[Curvature(every=2).statistic], want)
    assert observer.epoch_means == pytest.approx([singles[1].mean(), singles[3].mean()])
    assert not np.allclose(singles[0], singles[1])  # fresh directions each epoch


def test_it_finds_wrong_labels_and_its_cost_is_told(tmp_path):
    noisy = na.inject_noise(na.load("digits", limit=600), "uniform", rate=0.1, seed=0)
    scores, detector = audited(noisy.dataset, tmp_path, epochs=15)
    found = na.evaluate(scores.rankings["curvature"], noisy.is_corrupted)
    assert found.auroc > 0.9
    run = scores.run
    assert scores.seconds["curvature"] > run.training_seconds + 0.99 * run.watching_seconds > 0
    assert detector.statistic in scores.run.statistics


def test_an_interrupted_run_ends_with_the_same_scores(tmp_path, monkeypatch):
    from noiseaudit.training import loop

    data = na.load("digits", limit=200)
    whole, _ = audited(data, tmp_path / "whole")
    real, count = loop._train_epoch, itertools.count()

    def stop_in_the_third(*arguments):
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_train_epoch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        audited(data, tmp_path / "cut")
    monkeypatch.undo()
    resumed, _ = audited(data, tmp_path / "cut")
    scores = [found.rankings["curvature"].scores for found in (resumed, whole)]
    assert np.array_equal(*scores)


def test_it_trains_again_where_it_was_not_recorded_and_never_changes_the_others(tmp_path, caplog):
    data = na.load("digits", limit=200)
    options = {"model": "mlp", "epochs": 2, "threads": 1, "out": tmp_path / "a"}
    first = na.audit(data, detectors=["cumulative_loss"], **options)
    with caplog.at_level("WARNING", logger="noiseaudit"):
        both = na.audit(data, detectors=["cumulative_loss", "curvature"], **options)
    assert "training again: curvature h=0.01" in caplog.text
    assert np.array_equal(
        first.rankings["cumulative_loss"].scores, both.rankings["cumulative_loss"].scores
    )
    caplog.clear()
    na.audit(data, detectors=["curvature"], **options)
    assert "training again" not in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"h": 0.0}, UsageError, "h must be positive; got 0"),
        ({"h": float("nan")}, UsageError, "h must be positive"),
        ({"probes": 0}, UsageError, "probes must be at least 1"),
        ({"units": "pixels"}, UnknownNameError, "did you mean 'pixel'"),
        ({"method": "hvp"}, UnknownNameError, "method"),
        ({"mean": [0.1, 0.2]}, UsageError, "mean must have 1 values; got 2"),
        ({"std": [0.0]}, UsageError, "std must be positive"),
        ({"std": [float("nan")]}, UsageError, "std must be finite"),
        ({"h": 0.003, "bfloat16": True}, UsageError, "bfloat16 needs h of at least 0.01"),
        ({"method": "hessian", "bfloat16": True}, UsageError, "hessian is computed in float32"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        na.curvature(network(), pictures(), **options)


def test_every_setting_has_its_own_statistic():
    settings = [{}, {"h": 0.001}, {"probes": 2}, {"every": 2}, {"units": "normalised"},
                {"squared": True}, {"bfloat16": True}]  # fmt: skip
    assert len({Curvature(**options).statistic for options in settings}) == len(settings)
    with pytest.raises(UsageError, match="every must be at least 1"):
        Curvature(every=0)


def test_the_finaliser_is_splitmix64s():
    """splitmix64's published first outputs for seed 1234567 (Vigna's reference implementation)."""
    golden, state, found = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        state = (state + golden) % 2**64
        signed = state - 2**64 if state >= 2**63 else state
        found.append(int(loss_curvature._mixed(torch.tensor(signed))) % 2**64)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def by_hand(model, raw, labels, mean, std, h, probes, seed, ids):
    """The published score of raw inputs, example by example, from one gradient after another."""

    def gradient(points, label):
        points = points.detach().requires_grad_()
        loss = F.cross_entropy(model((points - mean) / std)[None], label[None])
        return torch.autograd.grad(loss, points)[0]

    values = []
    for point, label, sample_id in zip(raw, labels, ids, strict=True):
        changes = []
        for probe in range(probes):
            name = derive_seed(seed, "curvature", 1, probe)
            signs = random_signs(torch.tensor([sample_id]), tuple(point.shape), name)[0]
            change = gradient(point + h * signs, label) - gradient(point, label)
            changes.append(float(change.square().sum()))
        values.append(np.mean(changes))
    return values


def smooth(side=SIDE):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(side, 24), nn.Tanh(), nn.Linear(24, 3))


def test_the_published_score_by_hand_in_raw_units():
    model, random = smooth(), np.random.default_rng(0)
    mean, std = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([0.2, 0.5, 1.0, 2.0, 3.0])
    raw = torch.from_numpy(random.normal(size=(8, SIDE)).astype(np.float32)) * std + mean
    data = na.LabeledDataset(
        raw.numpy(), np.arange(8) % 3, ("a", "b", "c"), ids=np.arange(8) * 5 + 1
    )
    options = {"mean": mean.tolist(), "std": std.tolist(), "units": "pixel"}
    found = na.curvature(model, data, h=0.02, probes=3, squared=True, seed=9, **options)
    labels = torch.from_numpy(data.labels)
    want = by_hand(model, raw, labels, mean, std, 0.02, 3, 9, data.ids.tolist())
    np.testing.assert_allclose(found, want, rtol=1e-3)
    of_raw = explicit(lambda x: model((x - mean) / std), raw, labels)
    exact = squared(of_raw).numpy()
    found = na.curvature(model, data, method="hessian", probes=4000, **options)
    np.testing.assert_allclose(found, exact, rtol=0.1)
    relu = nn.Sequential(model[0], nn.ReLU(), model[2])
    exact = squared(explicit(lambda x: relu((x - mean) / std), raw, labels)).numpy()
    found = na.curvature(relu, data, method="hessian_piecewise_linear", **options)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_units_of_features_do_not_matter_unless_asked_for():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(50, SIDE)).astype(np.float32)
    scaled = inputs * np.array([1e-4, 1, 1e3, 1, 1], np.float32)
    one, other = (
        na.LabeledDataset(x, np.arange(50) % 3, ("a", "b", "c")) for x in (inputs, scaled)
    )
    np.testing.assert_allclose(
        na.curvature(smooth(), one), na.curvature(smooth(), other), rtol=1e-3
    )
    in_pixels = [na.curvature(smooth(), data, units="pixel") for data in (one, other)]
    assert in_pixels[1].mean() > 100 * in_pixels[0].mean()


def test_a_part_is_scored_as_in_the_whole_when_scaled_like_it():
    data, model = pictures(), network()
    whole = na.curvature(model, data)
    part = na.curvature(model, data.subset([3, 9]), scaled_like=data)
    np.testing.assert_allclose(part, whole[[3, 9]], rtol=1e-3)
    assert not np.allclose(na.curvature(model, data.subset([3, 9])), whole[[3, 9]], rtol=1e-3)


def test_scores_of_well_fitted_labels_keep_their_digits():
    """p - 1 of a probability of 0.99999 has two digits in float32."""
    model = smooth()
    with torch.no_grad():
        model[2].weight *= 60
    inputs = np.random.default_rng(0).normal(size=(200, SIDE)).astype(np.float32)
    labels = model(torch.from_numpy(inputs)).argmax(dim=1).numpy()
    data = na.LabeledDataset(inputs, labels, ("a", "b", "c"))
    fitted = model(torch.from_numpy(inputs)).softmax(dim=1).amax(dim=1).detach().numpy()
    assert (fitted > 0.9999).sum() > 50
    options = {"mean": [0.0] * SIDE, "std": [1.0] * SIDE, "h": 0.1}
    found = na.curvature(model, data, **options)
    exact = copy.deepcopy(model).double()
    points, targets = torch.from_numpy(inputs).double(), torch.from_numpy(labels)
    _, gradient = loss_gradient(exact, points, targets)
    signs = random_signs(torch.arange(200), (SIDE,), derive_seed(0, "curvature", 1, 0))
    want = gradient_change(exact, points, targets, gradient, signs, 0.1).sqrt().numpy()
    error = np.abs(found / want - 1)[fitted > 0.9999]
    assert np.quantile(error, 0.9) < 0.01


def test_settings_can_be_asked_for_and_not_two_at_a_time(tmp_path):
    data = na.load("digits", limit=100)
    options = {"model": "mlp", "epochs": 2, "threads": 1}
    fine = na.audit(data, detectors=[Curvature(h=0.001)], **options).rankings["curvature"]
    coarse = na.audit(data, detectors=["curvature"], **options).rankings["curvature"]
    assert not np.allclose(fine.scores, coarse.scores)
    with pytest.raises(UsageError, match="two detectors are called curvature"):
        na.audit(data, detectors=[Curvature(h=0.001), "curvature"], **options)
    out = tmp_path / "o"
    cells = [
        na.run_experiment(data, detectors=[detector], seeds=[0], out=out, **options).rows[0]
        for detector in ("curvature", Curvature(h=0.001), "curvature")
    ]
    assert cells[0]["auroc"] == cells[2]["auroc"] != cells[1]["auroc"]


def test_asking_for_more_or_less_of_an_interrupted_run(tmp_path, monkeypatch):
    from noiseaudit.training import loop

    data = na.load("digits", limit=100)
    options = {"model": "mlp", "epochs": 3, "threads": 1, "out": tmp_path / "a"}
    first = na.audit(data, detectors=["cumulative_loss"], **options)
    real = loop._train_epoch

    def stop_in_the_second(*arguments):
        if arguments[6] == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_train_epoch", stop_in_the_second)
    more = ["cumulative_loss", "curvature"]
    with pytest.raises(KeyboardInterrupt):
        na.audit(data, detectors=more, **options)
    again = na.audit(data, detectors=["cumulative_loss"], **options)  # what was finished is there
    assert np.array_equal(again.ranking.scores, first.ranking.scores)
    with pytest.raises(KeyboardInterrupt):
        na.audit(data, detectors=[Curvature(h=0.1)], **options)  # not what was begun
    monkeypatch.undo()
    trained = []
    monkeypatch.setattr(
        loop, "_train_epoch", lambda *a: trained.append(a[6]) or real(*a)
    )  # fmt: skip
    both = na.audit(data, detectors=[Curvature(h=0.1), "cumulative_loss"], **options)
    assert trained == [1, 2]
    assert np.array_equal(both.rankings["cumulative_loss"].scores, first.ranking.scores)
    folders = {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()}
    assert folders == {"training", "duplicates"}

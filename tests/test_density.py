"""Densities, neighbours and gradients: against direct formulas and scikit-learn."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit import kernel_density
from noiseaudit.detector import training_statistics
from noiseaudit.detectors.density import (
    DensityHidden,
    DensityHiddenClass,
    DensityHiddenRelative,
    DensityInput,
)
from noiseaudit.detectors.gradient_similarity import GradientSimilarity
from noiseaudit.detectors.loss_sensitivity import LossSensitivity
from noiseaudit.detectors.neighbours import KnnDisagreement, LofHidden
from noiseaudit.errors import DataError, UnknownNameError, UsageError
from noiseaudit.evidence import Evidence
from noiseaudit.kernel_density import kernel_densities
from noiseaudit.projected_gradients import project_gradients
from noiseaudit.training.plan import make_plan
from noiseaudit.training.run import run_training
from noiseaudit.watching import Snapshot


def direct(points, labels):
    """The paper's formulas as they stand, in float64: C, C^L, and h."""
    points = points.astype(np.float64)
    squares = np.array([((points - point) ** 2).sum(axis=1) for point in points])
    n = len(points)
    h = np.sqrt(squares).sum() / (n * (n - 1)) / 2
    kernel = np.exp(-squares / h**2)
    same = labels[:, None] == labels
    return kernel.mean(axis=1), (kernel * same).mean(axis=1), h


@pytest.fixture
def cloud():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    points = random.normal(size=(300, 12)) + 2 * np.eye(12)[labels] + 50  # far from the origin
    return points.astype(np.float32), labels


@pytest.mark.parametrize("block", [1024, 37])
def test_densities_are_the_papers(cloud, monkeypatch, block):
    points, labels = cloud
    monkeypatch.setattr(kernel_density, "_BLOCK", block)
    found = kernel_densities([points], labels)
    every, same, h = direct(points, labels)
    np.testing.assert_allclose(found.all, every, rtol=1e-4)
    np.testing.assert_allclose(found.same_class, same, rtol=1e-4)
    np.testing.assert_allclose(found.relative, 2 * same - every, atol=1e-6)
    assert found.bandwidth == pytest.approx(h, rel=1e-5)


def test_densities_of_outer_products_are_those_of_the_products(cloud):
    points, labels = cloud
    other = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    products = np.einsum("ni,nj->nij", other, points).reshape(300, -1)
    found = kernel_densities([other, points], labels)
    every, same, h = direct(products, labels)
    np.testing.assert_allclose(found.all, every, rtol=1e-3)
    np.testing.assert_allclose(found.same_class, same, rtol=1e-3)
    assert found.bandwidth == pytest.approx(h, rel=1e-4)


def test_a_given_bandwidth_is_used(cloud):
    points, labels = cloud
    np.testing.assert_allclose(kernel_densities([points], labels, bandwidth=1e6).all, 1, rtol=1e-4)
    alone = kernel_densities([points], labels, bandwidth=1e-3)
    np.testing.assert_allclose(alone.all, 1 / 300, rtol=1e-4)


def test_the_mean_distance_of_many_is_that_of_some(cloud, monkeypatch):
    points, labels = cloud
    whole = kernel_densities([points], labels).bandwidth
    monkeypatch.setattr(kernel_density, "_SAMPLE", 150)
    assert kernel_densities([points], labels).bandwidth == pytest.approx(whole, rel=0.05)
    assert kernel_densities([points], labels).bandwidth != whole


@pytest.mark.parametrize("scale", [1e19, 1e-25])
def test_very_large_and_small_points_keep_their_densities(cloud, scale):
    points, labels = cloud
    centred = points - points.mean(axis=0)
    wanted = kernel_densities([centred], labels)
    found = kernel_densities([(centred * scale).astype(np.float32)], labels)
    np.testing.assert_allclose(found.all, wanted.all, rtol=1e-4)
    assert found.bandwidth == pytest.approx(wanted.bandwidth * scale, rel=1e-4)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="bandwidth"):
            kernel_densities([points], labels, bandwidth=bad)


def test_examples_that_are_all_the_same():
    found = kernel_densities([np.ones((5, 3), np.float32)], np.array([0, 0, 0, 1, 1]))
    assert found.all.tolist() == [1.0] * 5
    assert found.same_class.tolist() == [0.6, 0.6, 0.6, 0.4, 0.4]
    empty = kernel_densities([np.empty((0, 3), np.float32)], np.empty(0, np.int64))
    assert len(empty.all) == 0


def test_points_that_cannot_be():
    points, labels = np.ones((3, 2), np.float32), np.zeros(3, np.int64)
    points[1, 0] = np.nan
    with pytest.raises(DataError, match="1 row, first 1"):
        kernel_densities([points], labels)
    with pytest.raises(DataError, match="length"):
        kernel_densities([points[:2]], labels)


def evidence(points, labels, **more):
    return Evidence(
        np.arange(len(labels)), labels, 4, snapshots={("features", None): points}, **more
    )


def test_an_example_among_another_class_is_the_most_suspicious(cloud):
    points, labels = cloud
    wrong = labels.copy()
    wrong[17] = (labels[17] + 1) % 4
    given = evidence(points + 6 * np.eye(12, dtype=np.float32)[labels], wrong)
    for detector in (DensityHiddenRelative(), KnnDisagreement()):
        assert detector.rank(given).top(1).tolist() == [17]
    pictures = np.zeros((300, 2, 2), np.uint8)
    pictures.reshape(300, -1)[np.arange(300), labels] = 255
    moved = Evidence(np.arange(300), wrong, 4, inputs=pictures)
    assert DensityInput().rank(moved).top(1).tolist() == [17]
    assert moved.points().max() == 1


def test_densities_are_computed_once_for_all_detectors(cloud, monkeypatch):
    given = evidence(*cloud)
    DensityHiddenRelative().rank(given)
    assert given.reused_seconds == []

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("noiseaudit.detectors.density.kernel_densities", refuse)
    every, same = DensityHidden().rank(given).scores, DensityHiddenClass().rank(given).scores
    np.testing.assert_allclose(DensityHiddenRelative().rank(given).scores, 2 * same - every)
    assert len(given.reused_seconds) == 3
    assert min(given.reused_seconds) > 0


@pytest.mark.parametrize("k", [3, 8])
def test_lof_is_scikit_learns(cloud, k):
    from sklearn.neighbors import LocalOutlierFactor

    points, labels = cloud
    fitted = LocalOutlierFactor(n_neighbors=k, algorithm="brute").fit(points)
    ranking = LofHidden(k=k).rank(evidence(points, labels))
    np.testing.assert_allclose(ranking.scores, -fitted.negative_outlier_factor_, rtol=1e-4)


def test_neighbours_by_hand():
    points = np.array([[0.0], [1], [2.5], [4.5], [20]], np.float32)
    given = evidence(points, np.array([0, 0, 1, 1, 0]))
    # Nearest two of each: {1,2} {0,2} {1,3} {2,1} {3,2}
    scores = KnnDisagreement(k=2).rank(given).scores
    np.testing.assert_allclose(scores, [0.5, 0.5, 0.5, 0.5, 1.0])
    assert LofHidden(k=2).rank(given).top(1).tolist() == [4]


def gradients(model, inputs, labels):
    """Per-example gradients by all weights, one autograd call for each example."""
    rows = []
    for example, label in zip(inputs, labels, strict=True):
        loss = F.cross_entropy(model(example[None]), label[None])
        parts = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def test_last_layer_gradients_are_exact():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    features, labels = torch.randn(80, 6).double(), torch.randint(0, 4, (80,))
    exact = gradients(layer, features, labels).numpy()
    given = Evidence(
        np.arange(80), labels.numpy(), 4,
        snapshots={
            ("features", None): features.float().numpy(),
            ("logits", None): layer(features).detach().float().numpy(),
        },
    )  # fmt: skip
    every, _, _ = direct(exact, labels.numpy())
    np.testing.assert_allclose(-GradientSimilarity().rank(given).scores, every, rtol=1e-3)


def networks():
    dense = nn.Sequential(nn.Flatten(), nn.Linear(72, 20), nn.ReLU(inplace=True), nn.Linear(20, 4))
    convolutional = nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False, padding_mode="circular"),
        nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    return [dense.eval(), convolutional.eval()]


@pytest.mark.parametrize("number", [0, 1])
def test_projected_gradients_have_the_inner_products_of_gradients(number):
    torch.manual_seed(0)
    model = networks()[number]
    inputs, labels = torch.randn(10, 2, 6, 6), torch.randint(0, 4, (10,))
    exact = gradients(model, inputs, labels)
    wanted = exact @ exact.T
    before = {name: value.clone() for name, value in model.state_dict().items()}
    total = torch.zeros(10, 10)
    for seed in range(400):
        found = project_gradients(model, inputs, labels, seed=seed)
        total += found @ found.T
    # Measured 0.04; without biases 0.10 and 0.30.
    error = (total / 400 - wanted).abs().max() / wanted.diag().mean()
    assert error < 0.06
    again = project_gradients(model, inputs, labels, seed=399)
    assert torch.equal(again, found)
    alone = project_gradients(model, inputs[3:4], labels[3:4], seed=399)
    torch.testing.assert_close(alone[0], found[3], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(UsageError, match="neither nn"):
        project_gradients(nn.Flatten(), torch.ones(2, 3), torch.zeros(2).long(), seed=0)


WANTED = [Snapshot("features"), Snapshot("logits", 2), Snapshot("gradients", 2)]


def train(folder, snapshots):
    data = na.load("digits", limit=120)
    plan = make_plan(data, model="mlp", epochs=3, device="cpu", threads=1)
    return run_training(data, plan, training_statistics(), folder, snapshots=snapshots)


def test_snapshots_are_the_models_at_the_end_of_their_epochs(tmp_path):
    run = train(tmp_path / "run", WANTED)
    assert set(run.snapshots) == {
        ("features", 3), ("features", None), ("logits", 2), ("gradients", 2),
    }  # fmt: skip
    assert run.snapshots["features", None].shape == (120, 256)
    assert run.snapshots["gradients", 2].shape == (120, 3 * 256)
    two = train(tmp_path / "two", WANTED[1:2])
    assert np.array_equal(two.snapshots["logits", 2], run.snapshots["logits", 2])
    again = train(tmp_path / "run", WANTED[:1])
    assert np.array_equal(again.snapshots["features", None], run.snapshots["features", None])
    more = train(tmp_path / "run", [Snapshot("logits", 1)])
    # What was there is recorded again, and a file that was deleted is, when it is asked for.
    assert set(more.snapshots) == {("logits", 1), *run.snapshots}
    (tmp_path / "run" / "snapshots" / "logits_0001.npy").unlink()
    assert train(tmp_path / "run", []).snapshots == {}
    assert ("logits", 1) in train(tmp_path / "run", [Snapshot("logits", 1)]).snapshots


def test_snapshots_after_an_interruption_are_those_of_the_same_epochs(tmp_path, monkeypatch):
    from noiseaudit.training import loop

    whole = train(tmp_path / "whole", WANTED)
    real = loop.save_checkpoint

    def stop(*arguments, **options):
        real(*arguments, **options)
        if len(options["history"]) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", WANTED)
    resumed = train(tmp_path / "run", WANTED)
    for key, values in whole.snapshots.items():
        assert np.array_equal(resumed.snapshots[key], values)


def test_an_epoch_that_the_run_has_not_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"1\.\.3.*got 4"):
        train(tmp_path / "run", [Snapshot("logits", 4)])
    with pytest.raises(UsageError, match="at least 1"):
        DensityHiddenRelative(epoch=0)
    with pytest.raises(UnknownNameError):
        GradientSimilarity(layers="first")
    with pytest.raises(UnknownNameError):
        DensityInput(kind="dense")
    with pytest.raises(UnknownNameError):
        LossSensitivity(norm="l2")
    with pytest.raises(UsageError, match="neighbour"):
        LofHidden(k=0)
    with pytest.raises(UsageError, match="every"):
        LossSensitivity(every=0)


def test_loss_sensitivity_is_the_mean_input_gradient():
    from noiseaudit.detectors.loss_sensitivity import LossSensitivityObserver
    from noiseaudit.training.clean_pass import CleanPass
    from noiseaudit.training.inputs import Inputs

    torch.manual_seed(0)
    data = na.load("digits", limit=50)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    inputs = Inputs(data, torch.device("cpu"))
    points = inputs.normalise(inputs.raw(np.arange(50)))

    def loss(point, label):
        weights = {name: value.detach() for name, value in model.named_parameters()}
        return F.cross_entropy(functional_call(model, weights, (point[None],)), label[None])

    for norm, size in (
        ("l1", lambda g: g.abs().sum(dim=1)),
        ("squared_l2", lambda g: g.square().sum(dim=1)),
    ):
        observer = LossSensitivityObserver(LossSensitivity(norm=norm, every=2), 50)
        sizes = []
        for epoch in range(4):
            with torch.no_grad():
                model[1].weight += 0.1
            clean = CleanPass(model, inputs)
            observer.on_epoch_end(clean)
            clean.finish()
            if epoch % 2:
                sizes.append(size(vmap(grad(loss))(points, inputs.labels).flatten(1)))
        (found,) = observer.compute().values()
        np.testing.assert_allclose(found, torch.stack(sizes).mean(dim=0).numpy(), rtol=1e-4)
        other = LossSensitivityObserver(LossSensitivity(norm=norm, every=2), 50)
        other.load_state_dict(observer.state_dict())
        assert np.array_equal(other.compute()[other.settings.statistic], found)


def test_what_is_never_measured_is_refused_before_training(tmp_path):
    data = na.load("digits", limit=60)
    with pytest.raises(UsageError, match="every 5th epoch of 2: it would never"):
        na.audit(data, detectors=[LossSensitivity(every=5)], epochs=2, out=tmp_path / "out")
    assert not (tmp_path / "out" / "training").exists()


def test_an_audit_ranks_with_all_of_them(tmp_path):
    names = [
        "density_input", "density_hidden", "density_hidden_class", "density_hidden_relative",
        "lof_hidden", "knn_disagreement", "gradient_similarity", "loss_sensitivity",
    ]  # fmt: skip
    data = na.load("digits", limit=300)
    noisy = na.inject_noise(data, "uniform", rate=0.1, seed=0)
    options = {"epochs": 5, "seed": 0, "threads": 1, "duplicates": False}
    report = na.audit(noisy.dataset, detectors=names, out=tmp_path / "out", **options)
    found = {
        name: na.evaluate(ranking, noisy.is_corrupted).auroc
        for name, ranking in report.rankings.items()
    }
    # Measured: input 0.94; hidden 0.50, of the class 0.99, relative 0.98; LOF 0.51; k-NN 1.00;
    # gradients 0.99; sensitivity 0.97.
    floors = [0.85, 0.35, 0.93, 0.93, 0.35, 0.95, 0.93, 0.9]
    assert list(found) == names
    assert [name for name, floor in zip(names, floors, strict=True) if found[name] < floor] == []
    full = na.audit(
        noisy.dataset, detectors=[GradientSimilarity(layers="all")], out=tmp_path / "all", **options
    )
    assert na.evaluate(full.ranking, noisy.is_corrupted).auroc > 0.8

"""C-scores: plans, stacked training, reduction, executors, resumption, files."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.cscore import estimate
from noiseaudit.cscore.estimate import prepare
from noiseaudit.cscore.plan import INTEGRAL, SubsetPlan, default_ratio
from noiseaudit.cscore.reduce import Reducer
from noiseaudit.cscore.runs import looks
from noiseaudit.cscore.stack import can_stack, stack_size, train_stack
from noiseaudit.cscore.worker import Shard, Unit, run_unit
from noiseaudit.errors import (
    DataError,
    ManifestMismatchError,
    NoiseAuditError,
    OutputError,
    UnknownNameError,
    UsageError,
)
from noiseaudit.evidence import Evidence
from noiseaudit.seeding import isolated_torch_rng
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.recipes import Recipe
from tests._processes import start_command, wait_until

CPU = torch.device("cpu")
FAST = {"epochs": 2, "executor": "serial"}


def small(n=120):
    return na.load("digits", limit=n)


def tiny_net(shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))


def convolutions(shape, num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes)
    )


def same(one, other):
    first, second = one.arrays(), other.arrays()
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


# Which examples each model trains on


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 0.9, 0.35, 0.07])
@pytest.mark.parametrize("n", [100, 97])
def test_balanced_subsets_hold_out_every_example_equally_often_within_one(n, ratio):
    labels = np.random.default_rng(0).choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    plan = SubsetPlan(labels, ratio)
    counts = np.zeros(n, dtype=int)
    for index in range(2 * plan.block + 3):
        rows = plan.subset(index)
        assert len(np.unique(rows)) == len(rows)
        assert abs(len(rows) - n * ratio) < 1.1
        of_class = np.bincount(labels[rows], minlength=4)
        assert np.abs(of_class - ratio * np.bincount(labels)).max() <= 2
        counts[rows] += 1
        assert np.ptp(counts) <= 1
        if (index + 1) % plan.block == 0:
            assert np.ptp(counts) == 0
        if index + 1 == plan.sweep:  # the first, from which halves of the models are made
            assert counts.max() < plan.sweep


def test_a_subset_depends_on_seed_ratio_and_index_alone():
    labels = np.arange(50) % 5
    for scheme in ("balanced", "iid"):
        plan, again = (SubsetPlan(labels, 0.3, scheme, seed=4) for _ in range(2))
        later = [again.subset(index) for index in reversed(range(25))][::-1]
        assert all(np.array_equal(plan.subset(index), later[index]) for index in range(25))
        assert not np.array_equal(plan.subset(0), plan.subset(1))
        assert not np.array_equal(plan.subset(0), SubsetPlan(labels, 0.3, scheme, 5).subset(0))
        # Of a new block: the first stretch is another one.
        assert not np.array_equal(plan.subset(0), plan.subset(10))


def test_iid_subsets_are_drawn_alone_and_are_of_one_size():
    plan = SubsetPlan(np.zeros(200, int), 0.25, "iid")
    subsets = [plan.subset(index) for index in range(40)]
    assert {len(rows) for rows in subsets} == {50}
    counts = np.bincount(np.concatenate(subsets), minlength=200)
    assert 3 < counts.std() ** 2 < 14  # binomial: 40 * 0.25 * 0.75 = 7.5; measured 7.0


@pytest.mark.parametrize("scheme", ["balanced", "iid"])
@pytest.mark.parametrize(("ratio", "runs"), [(0.9, 3), (0.9, 10), (0.5, 1), (0.7, 2)])
def test_how_many_are_never_held_out_is_predicted(scheme, ratio, runs):
    n = 2_000
    plan = SubsetPlan(np.arange(n) % 7, ratio, scheme)
    counts = np.bincount(np.concatenate([plan.subset(i) for i in range(runs)]), minlength=n)
    assert abs((counts == runs).sum() - plan.expected_never_held_out(runs)) <= (
        1e-6 if scheme == "balanced" else 5 * np.sqrt(n) / 2
    )


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_ratios_out_of_range_are_refused(ratio):
    with pytest.raises(UsageError, match="between 0 and 1"):
        SubsetPlan(np.zeros(10, int), ratio)


@pytest.mark.parametrize(("n", "ratio"), [(5, 0.1), (10, 0.95)])
def test_a_ratio_that_leaves_too_little_is_refused(n, ratio):
    with pytest.raises(UsageError, match=f"of {n} examples is {n * ratio:g}; at least 2 must"):
        SubsetPlan(np.zeros(n, int), ratio)


def test_a_ratio_is_a_whole_percentage_however_it_was_computed():
    assert (
        SubsetPlan(np.zeros(100, int), 0.1 + 0.2).exact_ratio
        == SubsetPlan(np.zeros(100, int), np.float32(0.3)).exact_ratio
    )
    with pytest.raises(UsageError, match=r"a whole percentage, such as 0.3; got 0\.333"):
        SubsetPlan(np.zeros(100, int), 0.333)
    data = small()
    options = {"runs": 2, "model": tiny_net, **FAST}
    odd = na.estimate_cscores(data, subset_ratio=[0.1 + 0.2, np.float32(0.6)], **options)
    same(odd, na.estimate_cscores(data, subset_ratio=[0.3, 0.6], **options))


def test_default_ratios_are_the_papers():
    named = {name: default_ratio(name) for name in ("mnist", "cifar10", "cifar100", "mine")}
    assert named == {"mnist": 0.1, "cifar10": 0.3, "cifar100": 0.5, "mine": 0.5}


# Many at a time


def stack_of(data, seeds, recipe, sizes=None):
    whole, models, parts = Inputs(data, CPU), [], []
    for position, seed in enumerate(seeds):
        with isolated_torch_rng(seed, "weights"):
            models.append(tiny_net(data.input_shape, data.num_classes))
        rows = np.random.default_rng(seed).permutation(len(data))[:50]
        parts.append(whole.subset(np.sort(rows)[: None if sizes is None else sizes[position]]))
    train_stack(models, parts, recipe, seeds)
    return models, parts


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam", "learning_rate": 0.01}, {"weight_decay": 0.01}]
)
def test_a_model_is_the_same_whatever_it_is_trained_beside(changes):
    recipe = replace(Recipe(6, batch_size=16), **changes)
    together, parts = stack_of(small(), [3, 1, 7, 5], recipe)
    for model, seed, part in zip(together, [3, 1, 7, 5], parts, strict=True):
        (alone,), _ = stack_of(small(), [seed], recipe)
        for name, value in alone.state_dict().items():
            assert torch.equal(value, model.state_dict()[name])
        # And as the ordinary loop trains it, but for rounding.
        build = lambda: tiny_net((1, 8, 8), 10)  # noqa: E731
        usual = train(build, part, recipe, {}, seed=seed).model
        inputs = part.normalise(part.raw(np.arange(50)))
        torch.testing.assert_close(model(inputs), usual(inputs), rtol=1e-5, atol=1e-5)


def test_stacked_training_on_vectors_with_label_smoothing():
    random = np.random.default_rng(0)
    data = na.LabeledDataset(
        random.normal(3, 2, (40, 64)).astype(np.float32), np.arange(40) % 10, tuple("abcdefghij")
    )
    recipe = Recipe(3, batch_size=8, label_smoothing=0.1)
    (model, _), (part, _) = stack_of(data, [0, 1], recipe, sizes=[40, 40])
    usual = train(lambda: tiny_net((64,), 10), part, recipe, {}, seed=0).model
    inputs = part.normalise(part.raw(np.arange(40)))
    torch.testing.assert_close(model(inputs), usual(inputs), rtol=1e-5, atol=1e-5)


def test_what_can_be_stacked_and_how_many():
    recipe = Recipe(1, batch_size=32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    assert stack_size(net, (1, 28, 28), recipe, CPU) == 16
    assert stack_size(tiny_net((1, 8, 8), 10), (1, 8, 8), recipe, CPU) == 64
    large = build_model("mlp", (1, 28, 28), 10)
    assert stack_size(large, (1, 28, 28), replace(recipe, batch_size=256), CPU) == 1
    assert can_stack(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,), recipe)
    assert not can_stack(net, (1, 28, 28), replace(recipe, augmentation=na.Augmentation(flip=True)))
    assert stack_size(convolutions((1, 8, 8), 10), (1, 8, 8), recipe, CPU) == 1


class Residual(nn.Sequential):
    def forward(self, batch):
        return batch + super().forward(batch)


def frozen(model):
    model[0].weight.requires_grad_(False)
    return model


def hooked(model):
    model[0].register_forward_hook(lambda *_: None)
    return model


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (convolutions((1, 8, 8), 10), (1, 8, 8)),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout()), (3,)),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), (3,)),
        (nn.Sequential(nn.Linear(8, 4), nn.Flatten(), nn.Linear(32, 2)), (1, 8, 8)),
        (nn.Sequential(nn.Flatten(2), nn.Linear(64, 2)), (1, 8, 8)),
        (Residual(nn.Linear(3, 3)), (3,)),
        (frozen(nn.Sequential(nn.Linear(3, 2))), (3,)),
        (hooked(nn.Sequential(nn.Linear(3, 2))), (3,)),
        (tied(), (3,)),
        (nn.Linear(3, 2), (3,)),
    ],
)
def test_what_a_stack_would_compute_otherwise_is_trained_alone(model, shape):
    assert not can_stack(model, shape, Recipe(1))
    assert stack_size(model, shape, Recipe(1), CPU) == 1


def test_a_model_that_ends_in_no_numbers_is_an_error():
    recipe = {"learning_rate": 1e30, "schedule": "constant", "batch_size": 128}
    with pytest.raises(NoiseAuditError, match="diverged"):
        na.estimate_cscores(
            small(), runs=2, epochs=1, model=tiny_net, recipe=recipe, executor="serial"
        )


def test_a_stack_that_diverges_says_so():
    with pytest.raises(NoiseAuditError, match="diverged in epoch"):
        stack_of(small(), [0, 1], Recipe(9, batch_size=8, learning_rate=1e6))


# From shards to scores: Algorithm 1 by brute force


@pytest.mark.parametrize("scheme", ["balanced", "iid"])
@pytest.mark.parametrize("model", ["mlp", convolutions])
def test_scores_are_algorithm_1(scheme, model):
    data, runs = small(60), 9
    found = na.estimate_cscores(
        data, runs=runs, subset_ratio=0.6, scheme=scheme, model=model, augmentation="none", **FAST
    )
    job = prepare(data, subset_ratio=0.6, scheme=scheme, model=model, augmentation="none", epochs=2)
    plan, training = job.subsets[0.6], job.training[0.6]
    correct, probs, is_out = [], [], []
    for index in range(runs):
        rows = plan.subset(index)
        is_out.append(~np.isin(np.arange(60), rows))
        (shard,) = run_unit(job, Unit(0.6, (index,)))
        # An independent training of the same model, by the ordinary loop on the subset alone.
        from noiseaudit.seeding import derive_seed

        trained = train(
            lambda: build_model(training.model, data.input_shape, 10),
            Inputs(data.subset(rows), CPU),
            training.recipe,
            {},
            seed=derive_seed(0, "cscore", "0.6", index),
        )
        inputs = Inputs(data, CPU, scaled_like=trained.inputs)
        with torch.no_grad():
            logits = trained.model.eval()(inputs.normalise(inputs.raw(np.arange(60))))
        own = F.softmax(logits, dim=1).numpy()
        np.testing.assert_allclose(np.exp(-shard.losses.astype(float)), own[range(60), data.labels],
                                   rtol=2e-3, atol=1e-6)  # fmt: skip
        assert np.array_equal(shard.correct, own.argmax(axis=1) == data.labels)
        correct.append(own.argmax(axis=1) == data.labels)
        probs.append(own)
    for row in range(60):
        held = [index for index in range(runs) if is_out[index][row]]
        seen = [index for index in range(runs) if not is_out[index][row]]
        assert found.holdout_counts[row] == len(held)
        if not held:
            assert np.isnan(found.scores[row])
            continue
        hard = sum(correct[index][row] for index in held) / len(held)
        soft = [probs[index][row, data.labels[row]] for index in held]
        assert found.scores[row] == pytest.approx(hard)
        assert found.soft_scores[row] == pytest.approx(np.mean(soft), abs=1e-3)
        assert found.standard_errors[row] == pytest.approx(np.sqrt(hard * (1 - hard) / len(held)))
        if len(held) > 1:
            error = np.std(soft, ddof=1) / np.sqrt(len(held))
            assert found.soft_standard_errors[row] == pytest.approx(error, abs=1e-3)
        assert found.pred_probs[row, data.labels[row]] == np.float32(found.soft_scores[row])
        mean = np.mean([probs[index][row] for index in held], axis=0)
        np.testing.assert_allclose(found.pred_probs[row], mean, atol=1e-3)
        if seen:
            inside = sum(correct[index][row] for index in seen) / len(seen)
            assert found.in_sample_scores[row] == pytest.approx(inside)
            assert found.memorization[row] == pytest.approx(inside - hard)
            variance = hard * (1 - hard) / len(held) + inside * (1 - inside) / len(seen)
            assert found.memorization_standard_errors[row] == pytest.approx(np.sqrt(variance))


def test_losses_and_margins_of_a_shard_survive_the_file():
    random = np.random.default_rng(0)
    shard = Shard(
        0.5, 3, random.random(21) < 0.5, random.random(21).astype(np.float16),
        random.normal(size=21).astype(np.float16), random.random((5, 3)).astype(np.float16), 1.5,
    )  # fmt: skip
    again = Shard.from_arrays(0.5, 3, shard.to_arrays())
    for name, value in vars(shard).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_agreement_of_halves_is_of_alternate_blocks_on_what_both_held_out():
    data = small(100)
    job = replace(prepare(data, subset_ratio=0.5, model="mlp", epochs=1), keep_probs=False)
    plan, random = job.subsets[0.5], np.random.default_rng(0)
    truth, halves = random.random(100), np.zeros((2, 100))
    counts = np.zeros((2, 100))
    reducer = Reducer(job)
    for index in range(8):
        losses = (truth + random.normal(0, 0.2, 100)).clip(0).astype(np.float16)
        reducer.add(
            Shard(0.5, index, losses < 0.5, losses, -losses, np.empty((0, 10), np.float16), 1)
        )
        is_out = ~np.isin(np.arange(100), plan.subset(index))
        halves[index // 2 % 2][is_out] += np.exp(-losses.astype(float))[is_out]
        counts[index // 2 % 2] += is_out
    from scipy.stats import spearmanr

    means = halves / counts
    row = reducer.agreement(8)
    assert row["split_half_soft"] == pytest.approx(spearmanr(*means).statistic)
    assert row["top_overlap"] == float(means[0].argmin() == means[1].argmin())
    assert row["examples"] == 100
    assert reducer.seconds == 8


def test_looks_are_at_whole_blocks_in_growing_steps_and_end_at_the_last_run():
    assert looks(100, 10) == [20, 30, 50, 80, 100]
    assert looks(5, 10) == [5]
    assert looks(4, 1) == [2, 3, 4]


def test_the_integral_is_the_mean_over_ratios():
    data = small()
    found = na.estimate_cscores(data, runs=10, subset_ratio="integral", model="mlp", **FAST)
    assert tuple(found.ratios) == INTEGRAL
    assert found.scores_by_ratio.shape == (9, 120)
    np.testing.assert_allclose(found.scores, found.scores_by_ratio.mean(axis=0))
    one = na.estimate_cscores(data, runs=10, subset_ratio=0.4, model="mlp", **FAST)
    np.testing.assert_array_equal(found.scores_by_ratio[3], one.scores)
    counts = found.holdout_counts_by_ratio
    assert [int(np.unique(row)[0]) for row in counts] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert (found.holdout_counts == 45).all()
    np.testing.assert_allclose(found.pred_probs.sum(axis=1), 1, atol=2e-3)
    variance = [c * (1 - c) / k[0] for c, k in zip(found.scores_by_ratio, counts, strict=True)]
    np.testing.assert_allclose(found.standard_errors, np.sqrt(np.sum(variance, axis=0)) / 9)
    with pytest.raises(DataError, match="one ratio"):
        _ = found.memorization_standard_errors
    assert found.scores.mean() > 0.3  # far above chance; measured: 0.49


def test_an_iid_plan_may_leave_examples_without_a_score_and_ranking_them_is_an_error():
    found = na.estimate_cscores(
        small(), runs=3, subset_ratio=0.7, scheme="iid", model="mlp", **FAST
    )
    never = found.holdout_counts == 0
    assert 0 < never.sum() < 120
    assert np.array_equal(np.isnan(found.scores), never)
    assert np.isnan(found.pred_probs[never]).all()
    with pytest.raises(DataError, match=f"{never.sum()} examples have no soft_scores, first"):
        found.rank()


def test_probabilities_are_left_out_where_they_would_be_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_PROBS", 100)
    found = na.estimate_cscores(small(), runs=4, model="mlp", out=tmp_path / "o", **FAST)
    assert found.pred_probs is None
    assert "pred_probs" not in np.load(tmp_path / "o" / "cscores.npz")


# Where it runs


@pytest.fixture
def settings():
    return {"runs": 7, "subset_ratio": (0.3, 0.6), "model": tiny_net, "epochs": 2, "seed": 1}


def test_processes_give_what_one_process_gives(settings):
    one = na.estimate_cscores(small(), executor="serial", **settings)
    same(one, na.estimate_cscores(small(), executor="processes", workers=2, **settings))


def test_ray_gives_what_one_process_gives_and_the_cluster_is_the_callers(settings):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        one = na.estimate_cscores(small(), executor="serial", **settings)
        same(one, na.estimate_cscores(small(), executor="ray", **settings))
        assert ray.is_initialized()
        with pytest.raises(UsageError, match="no machine of the Ray cluster has 64 CPU"):
            na.estimate_cscores(small(), executor="ray", threads=64, **settings)
        with pytest.raises(NoiseAuditError, match="diverged"):
            na.estimate_cscores(
                small(), executor="ray", recipe={"learning_rate": 1e9},
                **{**settings, "epochs": 30},
            )  # fmt: skip
    finally:
        ray.shutdown()


def test_no_ray_cluster_is_said_plainly(settings):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"no Ray cluster at 127\.0\.0\.1:1: start one"):
        na.estimate_cscores(small(), executor="ray", ray_address="127.0.0.1:1", **settings)


class DiesOnce:
    """A model factory that kills its process the first time, but never the test's own."""

    def __init__(self, flag):
        self.flag, self.tester = str(flag), os.getpid()

    def __call__(self, shape, num_classes):
        if os.getpid() != self.tester and not os.path.exists(self.flag):  # noqa: PTH110
            open(self.flag, "w").close()  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)
        return tiny_net(shape, num_classes)


class AlwaysDies(DiesOnce):
    def __call__(self, shape, num_classes):
        if os.getpid() != self.tester:
            os.kill(os.getpid(), signal.SIGKILL)
        return tiny_net(shape, num_classes)


def test_a_worker_that_dies_loses_only_what_it_was_at(tmp_path, settings, caplog):
    one = na.estimate_cscores(small(), executor="serial", **settings)
    dying = {**settings, "model": DiesOnce(tmp_path / "flag")}
    same(one, na.estimate_cscores(small(), executor="processes", workers=2, **dying))
    assert (tmp_path / "flag").exists()
    assert "a worker process died" in caplog.text


def test_workers_that_always_die_are_not_tried_for_ever(tmp_path, settings, monkeypatch):
    monkeypatch.setattr("noiseaudit.cscore.executors._TRIES", 2)  # each starts two processes
    dying = {**settings, "model": AlwaysDies(tmp_path / "flag")}
    with pytest.raises(NoiseAuditError, match="worker processes die"):
        na.estimate_cscores(small(), executor="processes", workers=2, **dying)


def test_a_killed_driver_goes_on_where_it_was(tmp_path):
    out, options = tmp_path / "killed", {"runs": 12, "epochs": 6, "subset_ratio": (0.5, 0.7)}
    command = [
        "cscores", "digits", "--limit", "300", "--runs", "12", "--epochs", "6",
        "--subset-ratio", "0.5,0.7", "--executor", "serial", "--quiet", "--out", str(out),
    ]  # fmt: skip
    process = start_command(command, tmp_path / "errors")
    wait_until(lambda: len([*out.glob("runs/*/run_*.npz")]) > 3, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/run_*.npz")}
    assert 3 < len(kept) < 24
    assert not (out / "cscores.npz").exists()
    data = small(300)
    resumed = na.estimate_cscores(data, out=out, executor="serial", **options)
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    same(resumed, na.estimate_cscores(data, executor="serial", **options))


# Adding to what is there


def test_runs_and_ratios_can_be_added_and_fewer_can_be_asked_for(tmp_path):
    data, out = small(), tmp_path / "o"
    few = na.estimate_cscores(data, runs=5, subset_ratio=0.4, model=tiny_net, out=out, **FAST)
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/run*.npz")}
    assert len(stamps) == 5
    more = na.estimate_cscores(data, runs=9, subset_ratio=0.4, model=tiny_net, out=out, **FAST)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    same(more, na.estimate_cscores(data, runs=9, subset_ratio=0.4, model=tiny_net, **FAST))
    both = na.estimate_cscores(
        data, runs=9, subset_ratio=[0.7, 0.4], model=tiny_net, out=out, **FAST
    )
    np.testing.assert_array_equal(both.scores_by_ratio[0], more.scores)
    same(few, na.estimate_cscores(data, runs=5, subset_ratio=0.4, model=tiny_net, out=out, **FAST))
    same(few, na.load_cscores(out / "cscores.npz"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["command"], manifest["status"], manifest["results"]["runs"]) == (
        "cscores",
        "done",
        5,
    )


def test_only_missing_models_are_trained(tmp_path, monkeypatch):
    from noiseaudit.cscore import executors

    trained = []

    def counting(job, unit):
        trained.extend(unit.indices)
        return run_unit(job, unit)

    monkeypatch.setattr(executors, "run_unit", counting)
    common = {"model": tiny_net, "subset_ratio": 0.4, "out": tmp_path / "o", **FAST}
    for runs in (5, 6, 9):
        na.estimate_cscores(small(), runs=runs, **common)
    assert trained == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    shards = tmp_path / "o" / "runs" / "ratio_0.4"
    (shards / "run_00004.npz").unlink()
    na.estimate_cscores(small(), runs=9, until_stable=1.0, **common)
    assert trained[9:] == [4]


@pytest.mark.parametrize("damage", ["cut", "lacking", "short"])
def test_a_damaged_shard_is_made_again(tmp_path, damage, caplog):
    common = {"runs": 6, "model": tiny_net, "out": tmp_path / "o", **FAST}
    whole = na.estimate_cscores(small(), **common)
    path = tmp_path / "o" / "runs" / "ratio_0.5" / "run_00002.npz"
    arrays = dict(np.load(path))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "lacking":
        np.savez(path, **{name: arrays[name] for name in ("correct", "margins")})
    else:
        np.savez(path, **{**arrays, "margins": arrays["margins"][:7]})
    same(whole, na.estimate_cscores(small(), **common))
    assert "run_00002.npz is damaged; its model is trained again" in caplog.text


def test_shards_that_nobody_vouches_for_are_not_used(tmp_path):
    common = {"runs": 3, "model": tiny_net, "out": tmp_path / "o", "executor": "serial"}
    na.estimate_cscores(small(), epochs=1, **common)
    (tmp_path / "o" / "runs" / "ratio_0.5" / "manifest.json").unlink()
    found = na.estimate_cscores(small(), epochs=3, **common)
    common.pop("out")
    same(found, na.estimate_cscores(small(), epochs=3, **common))


def test_other_data_or_settings_are_refused(tmp_path):
    common = {"runs": 2, "model": "mlp", "out": tmp_path / "o", "executor": "serial"}
    na.estimate_cscores(small(), epochs=1, **common)
    with pytest.raises(ManifestMismatchError, match="epochs: stored 1, now 2"):
        na.estimate_cscores(small(), epochs=2, **common)
    with pytest.raises(ManifestMismatchError, match="labels"):
        na.estimate_cscores(small().with_labels(np.roll(small().labels, 1)), epochs=1, **common)
    with pytest.raises(ManifestMismatchError, match="scheme"):
        na.estimate_cscores(small(), epochs=1, scheme="iid", **common)
    na.estimate_cscores(small(), epochs=2, resume=False, **common)


def test_until_stable_stops_early_and_all_runs_are_done_without_it(tmp_path):
    common = {"model": "mlp", "executor": "serial", "epochs": 4}
    found = na.estimate_cscores(small(), runs=60, until_stable=0.8, out=tmp_path / "o", **common)
    done = found.agreement[-1]
    assert done["runs"] < 60
    assert done["split_half_soft"] >= 0.8 or done["top_overlap"] >= 0.9
    assert all(row["split_half_soft"] < 0.8 for row in found.agreement[:-1])
    assert len([*(tmp_path / "o").glob("runs/*/run*.npz")]) == done["runs"]
    same(found, na.estimate_cscores(small(), runs=int(done["runs"]), **common))
    # Of a folder that holds more, all are used.
    more = na.estimate_cscores(small(), runs=30, out=tmp_path / "o", **common)
    again = na.estimate_cscores(small(), runs=60, until_stable=0.1, out=tmp_path / "o", **common)
    assert again.agreement[-1]["runs"] >= 30
    assert more.agreement[-1]["runs"] == 30


def test_it_is_not_stable_before_nearly_all_were_held_out_by_both_halves():
    found = na.estimate_cscores(
        small(), runs=6, subset_ratio=0.9, scheme="iid", until_stable=0.01, model=tiny_net, **FAST
    )
    assert found.agreement[-1]["runs"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "runs must be at least 1"),
        ({"subset_ratio": []}, "subset_ratio is empty"),
        ({"subset_ratio": 2}, "between 0 and 1"),
        ({"until_stable": 1.5}, "until_stable must be"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"ray_address": "auto"}, "is for executor 'ray'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options, message):
    with pytest.raises(UsageError, match=message):
        na.estimate_cscores("no/such/file.npz", **options)


@pytest.mark.parametrize(
    "options", [{"scheme": "balance"}, {"executor": "slurm"}, {"subset_ratio": "all"}]
)
def test_unknown_names_are_refused(options):
    with pytest.raises(UnknownNameError):
        na.estimate_cscores("no/such/file.npz", **options)


# Files of others


def test_published_scores_are_read_and_their_labels_checked(real_data):
    data = na.load("mnist", data_root=real_data)
    found = na.load_cscores(real_data / "cscores_mnist.npz", data.labels)
    assert len(found) == 60_000
    assert found.rank().detector == "cscore"
    with pytest.raises(DataError, match="in_sample_scores is not known"):
        _ = found.memorization
    swapped = data.labels[::-1]
    with pytest.raises(DataError, match=r"of another order: .* differ, first at row 0"):
        na.load_cscores(real_data / "cscores_mnist.npz", swapped)


def test_a_file_of_scores_is_checked(tmp_path):
    np.savez(tmp_path / "a.npz", labels=np.array([0, 1], np.uint8), scores=np.array([0.5, 1.0]))
    found = na.load_cscores(tmp_path / "a.npz", [0, 1])
    assert found.scores.tolist() == [0.5, 1.0]
    assert found.rank().scores.tolist() == [0.5, 0.0]
    with pytest.raises(DataError, match="of 2 examples; your data set has 3"):
        na.load_cscores(tmp_path / "a.npz", [0, 1, 1])
    np.savez(tmp_path / "b.npz", scores=np.zeros(2))
    with pytest.raises(DataError, match="no array labels"):
        na.load_cscores(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_text("no")
    with pytest.raises(OutputError):
        na.load_cscores(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", labels=np.array([0, 1]), scores=np.array([7.0, 1.0]))
    with pytest.raises(DataError, match="outside"):
        na.load_cscores(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", labels=np.array([0, 1]), scores=np.array([[0.5, 1.0]]))
    with pytest.raises(DataError, match="one score and one label"):
        na.load_cscores(tmp_path / "e.npz")


def test_the_file_is_the_contracts(tmp_path):
    data = small()
    na.estimate_cscores(data, runs=4, model="mlp", out=tmp_path, **FAST)
    with np.load(tmp_path / "cscores.npz", allow_pickle=False) as stored:
        shapes = {name: stored[name].shape for name in stored.files}
        assert np.array_equal(stored["labels"], data.labels)
    for name in (
        "labels", "scores", "soft_scores", "margins", "standard_errors", "in_sample_scores",
        "holdout_counts",
    ):  # fmt: skip
        assert shapes[name] == (120,)
    assert shapes["pred_probs"] == (120, 10)
    assert shapes["ratios"] == (1,)
    assert shapes["scores_by_ratio"] == shapes["holdout_counts_by_ratio"] == (1, 120)


# As detectors


def scores_of(**arrays):
    named = {name: np.array(values, float) for name, values in arrays.items()}
    return Evidence(ids=np.arange(3), labels=np.zeros(3, int), num_classes=2, cscores=named)


def test_detectors_on_numbers_by_hand():
    from noiseaudit.detectors.cscore import CScore, Memorization

    evidence = scores_of(
        scores=[0.5, 1, 0], soft_scores=[0.25, 0.75, 0], margins=[1, 2, -3],
        in_sample_scores=[1, 1, 0.5], in_sample_soft_scores=[0.5, 1, 0],
    )  # fmt: skip
    assert CScore().rank(evidence).scores.tolist() == [0.75, 0.25, 1]
    assert CScore("hard").rank(evidence).scores.tolist() == [0.5, 0, 1]
    assert CScore("margin").rank(evidence).scores.tolist() == [-1, -2, 3]
    probs = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.5, 0, 0.5]], np.float32)
    held_out = na.CScores(np.arange(3), np.array([0, 1, 2]), np.zeros(3), pred_probs=probs)
    margins = CScore("normalized_margin").rank(held_out.evidence()).scores
    assert margins.tolist() == [-0.25, 0.625, 0]
    assert Memorization().rank(evidence).scores.tolist() == [0.5, 0, 0.5]
    assert Memorization("soft").rank(evidence).scores.tolist() == [0.25, 0.25, 0]
    with pytest.raises(UnknownNameError):
        CScore("firm")
    with pytest.raises(UnknownNameError):
        Memorization("margin")
    with pytest.raises(DataError, match="no soft_scores were recorded"):
        CScore().rank(Evidence(ids=np.arange(3), labels=np.zeros(3, int), num_classes=2))


def test_an_audit_trains_them_once_and_adds_to_them(tmp_path):
    options = {
        "epochs": 2,
        "threads": 1,
        "out": tmp_path / "o",
        "detectors": ["cscore", "memorization"],
    }
    report = na.audit(small(), runs=4, subset_ratio=0.6, **options)
    assert list(report.rankings) == ["cscore", "memorization"]
    assert report.manifest["results"]["cscore_seconds"] > 0
    runs = tmp_path / "o" / "cscores" / "ratio_0.6"
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("run*.npz")}
    assert len(stamps) == 4
    na.audit(small(), runs=5, subset_ratio=0.6, **options)
    assert len([*runs.glob("run*.npz")]) == 5
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    with pytest.raises(UsageError, match=r"3 runs at subset ratio 0\.8 leave .* use --runs 5 or"):
        na.audit(small(), runs=3, subset_ratio=0.8, detectors=["cscore"], epochs=1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        na.audit("no/such", runs=5, subset_ratio=1, detectors=["cscore"])


def test_in_the_harness_they_find_flips_and_other_runs_are_scored_anew(tmp_path):
    options = {
        "noise": ["uniform"], "rates": [0.2], "seeds": [0], "epochs": 6, "threads": 1,
        "augmentation": "none", "detectors": ["cscore", "cumulative_loss"], "out": tmp_path / "o",
    }  # fmt: skip
    first = na.run_experiment(na.load("digits", limit=600), runs=4, **options)
    again = na.run_experiment(na.load("digits", limit=600), runs=8, **options)
    four, eight = (
        next(row for row in report.rows if row["detector"] == "cscore") for report in (first, again)
    )
    assert four["auroc"] > 0.9
    assert four["seconds"] > 0
    assert eight["auroc"] != four["auroc"]


# The command


def test_the_command_writes_tells_and_goes_on(tmp_path, capsys):
    words = ["cscores", "digits", "--limit", "120", "--epochs", "2", "--executor", "serial"]
    out = tmp_path / "o"
    assert main([*words, "--runs", "4", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "cscores"
    assert told["agreement"][-1]["runs"] == 4
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == [
        "agreement.csv", "cscores.npz", "manifest.json", "runs",
    ]  # fmt: skip
    assert main([*words, "--runs", "6", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "Lowest C-scores" in shown.out
    assert "6 models at each ratio" in shown.out
    assert main([*words, "--seed", "1", "--out", str(out)]) == 1
    assert "seed: stored 0, now 1" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["cscores", "digits", "--limit", "200", "--epochs", "3", "--dry-run", "--runs", "30"]
    assert main([*words, "--subset-ratio", "0.5,0.9", "--scheme", "iid", "--json"]) == 0
    half, most = json.loads(capsys.readouterr().out)["cost"]
    assert (half["subset"], most["subset"]) == (100, 180)
    assert most["never_held_out"] == pytest.approx(200 * 0.9**30)
    assert half["seconds"] > 0
    assert half["disk"] == round(30 * (200 * 4.125 + 2 * 10 * 100))
    assert main([*words, "--out", "o"]) == 0
    assert "Nothing was written" in capsys.readouterr().out.replace("\n", " ")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs", "3"], "--out is needed"),
        (["--subset-ratio", "half", "--out", "o"], "takes numbers"),
        (["--subset-ratio", "1.2", "--out", "o"], "between 0 and 1"),
        (["--scheme", "balance", "--out", "o"], "did you mean 'balanced'"),
    ],
)
def test_wrong_usage_exits_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["cscores", "digits", *words]) == 2
    assert message in capsys.readouterr().err


def test_real_mnist_agrees_with_the_published_scores(real_data):
    data = na.load("mnist", data_root=real_data)
    rows = np.sort(np.random.default_rng(0).choice(60_000, 20_000, replace=False))
    published = na.load_cscores(real_data / "cscores_mnist.npz", data.labels).scores[rows]
    found = na.estimate_cscores(
        data.subset(rows), subset_ratio=0.3, runs=4, model=tiny_mnist, epochs=5, executor="serial"
    )
    from scipy.stats import spearmanr

    assert spearmanr(found.margins, published).statistic > 0.5  # measured: see below


def tiny_mnist(shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, num_classes))

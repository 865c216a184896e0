import copy
import signal

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import training_statistics
from noiseaudit.errors import ManifestMismatchError, NoiseAuditError, OutputError, UsageError
from noiseaudit.label_noise import flip_uniform
from noiseaudit.observers import StatisticsObserver
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan
from noiseaudit.training.recipes import OPTIMIZERS, SCHEDULES, Recipe, default_recipe
from noiseaudit.training.run import run_training
from tests._processes import start, wait_until

CPU = torch.device("cpu")


def pictures(n=90, side=12, seed=0, colour=False):
    """Three classes: a bright bar at the top, in the middle, at the bottom."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    shape = (n, side, side, 3) if colour else (n, side, side)
    inputs = random.integers(0, 120, shape)
    for row, label in enumerate(labels):
        inputs[row, 4 * label : 4 * label + 4] += 120
    return LabeledDataset(inputs.astype(np.uint8), labels, ("top", "middle", "bottom"))


def vectors(n=60, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return LabeledDataset(inputs.astype(np.float32), labels, ("a", "b", "c"))


def statistics_of(dataset):
    return StatisticsObserver(dataset.labels, dataset.num_classes, training_statistics())


def run(dataset, recipe, model="mlp", seed=0, observers=None, **options):
    observer = statistics_of(dataset)
    trained = train(
        lambda: build_model(model, dataset.input_shape, dataset.num_classes),
        Inputs(dataset, CPU),
        recipe,
        {"statistics": observer, **(observers or {})},
        seed=seed,
        **options,
    )
    return trained.model, trained.history, observer


class Watcher:
    """Records what it is shown, and can ask for the clean pass or stop the run."""

    def __init__(self, ask=(), stop_after=None):
        self.rows, self.views, self.ask, self.stop_after = [[]], [], ask, stop_after

    def on_batch(self, rows, logits, labels, losses):
        assert not logits.requires_grad
        assert not losses.requires_grad
        expected = F.cross_entropy(logits, labels, reduction="none")
        assert torch.allclose(losses, expected)
        self.rows[-1] += rows.tolist()

    def on_epoch_end(self, clean):
        self.views.append({name: getattr(clean, name).clone() for name in self.ask})
        self.rows.append([])
        if len(self.views) == self.stop_after:
            raise KeyboardInterrupt

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learns_with_every_schedule_and_optimizer(schedule, optimizer):
    recipe = Recipe(
        20, batch_size=16, learning_rate=0.05 if optimizer == "sgd" else 1e-3,
        schedule=schedule, optimizer=optimizer,
    )  # fmt: skip
    _, history, _ = run(pictures(), recipe)
    assert history[-1]["accuracy"] > 0.95  # measured: 1.0 in all six


def test_learning_rates_by_hand():
    triangular = Recipe(10, learning_rate=1.0)
    assert triangular.rate_at(0) == 0
    assert triangular.rate_at(0.075) == pytest.approx(0.5)
    assert triangular.rate_at(0.15) == pytest.approx(1.0)
    assert triangular.rate_at(0.575) == pytest.approx(0.5)
    assert triangular.rate_at(1) == 0
    stagewise = Recipe(200, learning_rate=1.0, schedule="stagewise")
    rates = [stagewise.rate_at(epoch / 200) for epoch in (0, 59, 60, 89, 90, 119, 120, 199)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])
    assert Recipe(5, learning_rate=0.3, schedule="constant").rate_at(0.9) == 0.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"learning_rate": 0}, "learning_rate must be positive; got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"weight_decay": -1}, "weight_decay must not be negative"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\)"),
        ({"label_smoothing": 2}, r"label_smoothing must be in \[0, 1\)"),
        ({"schedule": "triangle"}, "did you mean 'triangular'"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
    ],
)
def test_bad_recipes(changes, words):
    with pytest.raises(UsageError, match=words):
        Recipe(**{"epochs": 1, **changes})


@pytest.mark.parametrize("n", [33, 64, 65])
def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own(n):
    watcher = Watcher()
    run(pictures(n), Recipe(2, batch_size=32), model="mlp", observers={"watcher": watcher})
    first, second, _ = watcher.rows
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second


def test_observers_and_clean_passes_do_not_change_training():
    data, recipe = pictures(colour=True, side=16), Recipe(2, batch_size=32)
    plain, _, _ = run(data, recipe, model="cnn")
    asking = Watcher(ask=("logits", "features", "input_gradient"))
    watched, _, _ = run(data, recipe, model="cnn", observers={"asking": asking})
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_clean_pass_computes_each_array_once_and_only_when_asked():
    data = pictures(colour=True, side=16)
    torch.manual_seed(0)
    model = build_model("cnn", data.input_shape, 3)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    inputs = Inputs(data, CPU)
    assert calls == []
    view = CleanPass(model, inputs)
    _ = view.features, view.features, view.logits
    assert len(calls) == 1  # one batch holds all 90 examples
    _ = view.input_gradient, view.input_gradient
    assert len(calls) == 2
    assert len({id(view.logits), id(view.logits)}) == 1
    view = CleanPass(model, inputs)
    _ = view.input_gradient, view.logits
    assert len(calls) == 3


def test_clean_pass_leaves_the_model_as_it_was_and_is_in_eval_mode():
    data = pictures(colour=True, side=16)
    model = build_model("cnn", data.input_shape, 3).train()
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    frozen.eval()  # a mode of its own must come back too
    before = copy.deepcopy(model.state_dict())
    view = CleanPass(model, Inputs(data, CPU))
    logits, gradient = view.logits, view.input_gradient
    assert model.training
    assert not frozen.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
    # An example's values do not depend on its batch-mates.
    whole = Inputs(data, CPU)
    alone = CleanPass(model, Inputs(data.subset([5]), CPU, scaled_like=whole))
    torch.testing.assert_close(alone.logits[0], logits[5])
    torch.testing.assert_close(alone.input_gradient[0], gradient[5])


@pytest.mark.parametrize("make", [vectors, pictures])
def test_a_subset_of_inputs_is_as_if_there_were_nothing_else(make):
    data = make()
    rows = np.array([7, 3, 11, 4])
    part, alone = Inputs(data, CPU).subset(rows), Inputs(data.subset(rows), CPU)
    assert torch.equal(part.labels, alone.labels)
    assert torch.equal(part.mean, alone.mean)
    assert torch.equal(part.std, alone.std)
    some = np.array([2, 0])
    assert torch.equal(part.raw(some), alone.raw(some))
    deeper = part.subset(some, scaled_like=part)
    assert torch.equal(deeper.raw(np.array([1])), alone.raw(np.array([0])))
    assert torch.equal(deeper.mean, part.mean)


def test_features_are_what_the_last_linear_layer_sees():
    data = vectors()
    model = build_model("mlp", data.input_shape, 3)
    view = CleanPass(model, Inputs(data, CPU))
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(last(view.features), view.logits)
    first = next(module for module in model.modules() if isinstance(module, nn.Linear))
    chosen = CleanPass(model, Inputs(data, CPU), feature_layer=first)
    assert chosen.features.shape == (60, 5)


def test_normalisation_of_pictures_and_vectors():
    for data in (pictures(), pictures(colour=True), vectors()):
        inputs = Inputs(data, CPU)
        batch = inputs.normalise(inputs.raw(np.arange(len(data))))
        axes = (0, 2, 3) if inputs.is_images else (0,)
        torch.testing.assert_close(batch.mean(axes), torch.zeros(batch.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            batch.std(axes, correction=0), torch.ones(batch.shape[1]), atol=1e-4, rtol=0
        )


def test_constant_features_and_blank_pictures_do_not_divide_by_zero():
    data = vectors()
    data.inputs[:, 2] = 7
    assert torch.isfinite(Inputs(data, CPU).normalise(Inputs(data, CPU).raw(np.arange(3)))).all()
    blank = LabeledDataset(np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1]), ("a", "b"))
    assert np.isfinite(run(blank, Recipe(1))[2].compute()["loss"]).all()


def test_memory_mapped_inputs_give_the_same_run(tmp_path):
    data = pictures()
    np.save(tmp_path / "x.npy", data.inputs)
    mapped = LabeledDataset(
        np.load(tmp_path / "x.npy", mmap_mode="r"), data.labels, data.class_names
    )
    one, two = (run(item, Recipe(2))[2].compute()["loss"] for item in (data, mapped))
    assert one.tobytes() == two.tobytes()


def test_same_seed_same_run_and_other_seed_other_run():
    losses = [run(pictures(), Recipe(2), seed=seed)[2].compute()["loss"] for seed in (0, 0, 1)]
    assert losses[0].tobytes() == losses[1].tobytes()
    assert losses[0].tobytes() != losses[2].tobytes()


def test_training_does_not_touch_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(pictures(30), Recipe(1))
    assert torch.equal(torch.rand(2), expected)


def test_divergence_is_an_error_that_names_the_epoch():
    with pytest.raises(NoiseAuditError, match=r"training diverged in epoch \d: .* learning rate"):
        run(vectors(), Recipe(3, learning_rate=1e30, schedule="constant"))


class Dropping(nn.Module):
    """A model with dropout: its randomness must not depend on where a run was interrupted."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)
        )

    def forward(self, batch):
        return self.layers(batch)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stop_after):
    data = pictures(colour=True)
    recipe = Recipe(4, batch_size=16, augmentation=Augmentation(crop=2, flip=True, rotation=10.0))

    def factory(shape, classes):
        return Dropping(int(np.prod(shape)), classes)

    whole, _, expected = run(data, recipe, model=factory)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        # The stop comes before that epoch's checkpoint is written.
        run(data, recipe, model=factory, checkpoint=path,
            observers={"stop": Watcher(stop_after=stop_after)})  # fmt: skip
    assert path.exists() == (stop_after > 1)
    resumed, history, observer = run(
        data, recipe, model=factory, checkpoint=path, observers={"stop": Watcher()}
    )
    assert len(history) == 4
    for name, values in expected.compute().items():
        assert values.tobytes() == observer.compute()[name].tobytes(), name
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_checkpoint_of_other_settings_is_refused_with_the_differences(tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(pictures(30), Recipe(1), checkpoint=path, config={"seed": 0, "epochs": 1})
    with pytest.raises(ManifestMismatchError, match="epochs: stored 1, now 2"):
        run(pictures(30), Recipe(2), checkpoint=path, config={"seed": 0, "epochs": 2})


def test_broken_checkpoint_is_one_clear_error(tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(pictures(30), Recipe(1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(OutputError, match=r"cannot be read .*--no-resume"):
        run(pictures(30), Recipe(1), checkpoint=path)


# --- the stage ---


def plan(**changes):
    return TrainingPlan(
        **{"model": "mlp", "recipe": Recipe(3), "seed": 0, "device": CPU, "threads": 1, **changes}
    )


def stage(folder, dataset=None, **options):
    chosen = options.pop("plan", plan())
    wanted = options.pop("statistics", training_statistics())
    return run_training(dataset or pictures(), chosen, wanted, folder, **options)


def count_epochs(monkeypatch):
    calls = []
    from noiseaudit.training import loop

    real = loop._train_epoch
    monkeypatch.setattr(loop, "_train_epoch", lambda *a: calls.append(1) or real(*a))
    return calls


def test_finished_stage_is_reused_without_training(tmp_path, monkeypatch):
    first = stage(tmp_path)
    calls = count_epochs(monkeypatch)
    second = stage(tmp_path)
    assert calls == []
    for name, values in first.statistics.items():
        assert values.tobytes() == second.statistics[name].tobytes()
    assert second.pred_probs.shape == (90, 3)
    np.testing.assert_allclose(second.pred_probs.sum(axis=1), 1, rtol=1e-5)
    assert second.curves.shape == (3, 90)
    np.testing.assert_allclose(
        second.curves.mean(axis=0), second.statistics["confidence"], atol=2e-3
    )


def test_a_statistic_not_recorded_last_time_trains_again_and_says_so(tmp_path, monkeypatch, caplog):
    few = [item for item in training_statistics() if item.name in ("confidence", "loss")]
    stage(tmp_path, statistics=few)
    calls = count_epochs(monkeypatch)
    stage(tmp_path)
    assert len(calls) == 3
    assert "training again: " in caplog.text
    assert "entropy" in caplog.text
    stage(tmp_path, statistics=few)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": plan(seed=1)}, "seed: stored 0, now 1"),
        ({"plan": plan(recipe=Recipe(4))}, r"recipe\.epochs: stored 3, now 4"),
        ({"plan": plan(threads=2)}, "threads: stored 1, now 2"),
        ({"dataset": pictures(seed=1)}, r"dataset\.inputs: stored"),
        ({"dataset": pictures().with_labels(np.roll(np.arange(90) % 3, 1))}, r"dataset\.labels"),
    ],
)
def test_other_data_or_settings_are_refused_and_no_resume_starts_over(tmp_path, change, words):
    before = stage(tmp_path).statistics["loss"]
    with pytest.raises(ManifestMismatchError, match=words):
        stage(tmp_path, **change)
    assert stage(tmp_path).statistics["loss"].tobytes() == before.tobytes()
    after = stage(tmp_path, resume=False, **change)
    if "threads" not in words:  # two threads may or may not sum in another order
        assert after.statistics["loss"].tobytes() != before.tobytes()
    assert (
        stage(tmp_path, **change).statistics["loss"].tobytes() == after.statistics["loss"].tobytes()
    )


def test_lost_statistics_are_reported(tmp_path):
    stage(tmp_path)
    (tmp_path / "statistics.npz").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be read .*--no-resume"):
        stage(tmp_path)


def test_class_sums_of_a_run_that_was_cleared_half_way_are_not_reused(tmp_path, monkeypatch):
    expected = stage(tmp_path / "a").pred_probs
    monkeypatch.setattr("noiseaudit.class_sums._IN_MEMORY_BYTES", 0)
    (tmp_path / "b").mkdir()
    for which in range(2):
        np.save(tmp_path / "b" / f"class_sums_{which}.npy", np.ones((90, 3), np.float32))
    assert stage(tmp_path / "b").pred_probs.tobytes() == expected.tobytes()


def test_lost_class_sums_beside_a_checkpoint_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("noiseaudit.class_sums._IN_MEMORY_BYTES", 0)
    stage(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(OutputError, match="class_sums files are gone"):
        stage(tmp_path)


def test_a_lost_trajectory_leaves_a_gap_in_the_curves_only(tmp_path):
    whole = stage(tmp_path)
    (tmp_path / "trajectories" / "epoch_0002.npz").unlink()
    again = stage(tmp_path)
    assert np.isnan(again.curves[1]).all()
    assert again.curves[2].tobytes() == whole.curves[2].tobytes()


@pytest.mark.parametrize("n", [3, 21])
def test_no_batch_has_a_single_example(n):
    _, history, _ = run(pictures(n, side=16), Recipe(1, batch_size=2), model="cnn")
    assert len(history) == 1


def test_checkpoint_of_another_network_is_one_clear_error(tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(pictures(30, side=16), Recipe(1), checkpoint=path)
    with pytest.raises(OutputError, match="another network"):
        run(pictures(30, side=16), Recipe(1), model="cnn", checkpoint=path)


def test_trajectories_keep_every_statistic_when_asked(tmp_path):
    run_ = stage(tmp_path, keep_trajectories=True)
    with np.load(tmp_path / "trajectories" / "epoch_0003.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(run_.statistics)


def train_for_long(out, sums):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if sums == "files":
            patch.setattr("noiseaudit.class_sums._IN_MEMORY_BYTES", 0)
        return stage(out, pictures(300, colour=True), plan=plan(recipe=Recipe(9, batch_size=16)))


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    return train_for_long(tmp_path_factory.mktemp("whole"), "memory")


@pytest.mark.parametrize(("kill_at_epoch", "sums"), [(2, "memory"), (6, "files")])
def test_resume_after_kill_gives_identical_statistics(tmp_path, never_killed, kill_at_epoch, sums):
    process = start(train_for_long, tmp_path / "killed", sums)
    epoch = tmp_path / "killed" / "trajectories" / f"epoch_{kill_at_epoch:04d}.npz"
    wait_until(epoch.exists, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.json").exists()
    assert (tmp_path / "killed" / "class_sums_1.npy").exists() == (sums == "files")
    resumed, whole = train_for_long(tmp_path / "killed", sums), never_killed
    assert not (tmp_path / "killed" / "class_sums_1.npy").exists()
    for name, values in whole.statistics.items():
        assert values.tobytes() == resumed.statistics[name].tobytes(), name
    assert np.array_equal(whole.correct_history, resumed.correct_history)
    assert whole.pred_probs.tobytes() == resumed.pred_probs.tobytes()
    assert whole.curves.tobytes() == resumed.curves.tobytes()


# --- label noise and what the run is for ---


def test_flip_uniform_changes_exactly_the_share_of_every_class():
    labels = np.repeat(np.arange(4), [100, 40, 10, 3])
    flipped = flip_uniform(labels, 4, 0.2, seed=0)
    changed = [int((flipped != labels)[labels == label].sum()) for label in range(4)]
    assert changed == [20, 8, 2, 1]
    assert np.array_equal(flipped, flip_uniform(labels, 4, 0.2, seed=0))
    assert not np.array_equal(flipped, flip_uniform(labels, 4, 0.2, seed=1))
    targets = flip_uniform(np.zeros(3000, int), 4, 1.0, seed=0)
    assert np.bincount(targets, minlength=4)[0] == 0
    assert np.bincount(targets)[1:].min() > 900  # expected 1000 each, sd 26


@pytest.mark.parametrize("arguments", [{"rate": 1.5}, {"rate": -0.1}, {"num_classes": 1}])
def test_flip_uniform_refuses_bad_values(arguments):
    with pytest.raises(UsageError, match=next(iter(arguments))):
        flip_uniform(np.zeros(3, int), **{"num_classes": 3, "rate": 0.1, "seed": 0, **arguments})


def test_cumulative_loss_finds_planted_flips_in_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    noisy = flip_uniform(digits.target, 10, 0.1, seed=0)
    data = LabeledDataset((digits.images * 15.9375).astype(np.uint8), noisy, tuple("0123456789"))
    observer = run(data, default_recipe("mlp", len(data)))[2]
    auroc = roc_auc_score(noisy != digits.target, observer.compute()["loss"])
    assert auroc > 0.99  # measured: 0.9998


@pytest.mark.parametrize(
    ("model", "n", "augmentation", "epochs", "batch_size"),
    [
        ("mlp", 60_000, Augmentation(rotation=10), 20, 256),
        ("mlp", 1797, Augmentation(rotation=10), 40, 32),  # 20 * 11.1 ** (1/3) = 44.6, at most 40
        ("mlp", 60_000, None, 10, 256),
        ("cnn", 60_000, Augmentation(rotation=10), 12, 128),
        ("cnn", 50_000, Augmentation(crop=4, flip=True), 19, 128),  # 18 * 1.2 ** (1/3) = 19.1
        ("cnn", 7_500, None, 24, 64),  # 12 * 8 ** (1/3) = 24; 75 rounds to 64
        ("cnn", 2, None, 60, 32),
        ("inception", 60_000, None, 80, 512),
        ("torchvision:resnet34", 50_000, None, 30, 128),
    ],
)
def test_default_recipes(model, n, augmentation, epochs, batch_size):
    recipe = default_recipe(model, n, augmentation=augmentation)
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert default_recipe(model, n, epochs=3).epochs == 3
    assert recipe.weight_decay == recipe.label_smoothing == 0

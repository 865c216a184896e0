"""load(): the named sets, selection, and the checks that every source shares."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, NoiseAuditWarning, UnknownNameError, UsageError
from noiseaudit.loaders import load
from tests._data import make_npz, write_idx


def arrays(counts, seed=0):
    """(inputs, labels) with so many examples of each class, labels shuffled."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return np.arange(len(labels), dtype=np.float32)[:, None], labels


def test_import_is_light():
    code = "import sys, noiseaudit.loaders; print([m for m in ('torch', 'pandas', 'sklearn', "
    code += "'torchvision', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_digits():
    from sklearn.datasets import load_digits

    dataset = load("digits")
    truth = load_digits()
    assert dataset.inputs.dtype == np.uint8
    assert np.abs(dataset.inputs / 255 * 16 - truth.images).max() < 0.05
    assert dataset.inputs.max() == 255
    assert dataset.class_names == tuple("0123456789")
    assert np.array_equal(dataset.labels, truth.target)
    assert dataset.ids.tolist() == list(range(1797))
    assert (dataset.name, dataset.split) == ("digits", None)


def test_digits_have_no_splits():
    with pytest.raises(DataError, match="no split 'train': it has no splits"):
        load("digits", split="train")


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ((90, 10), 10, [9, 1]),
        ((5, 5, 5), 6, [2, 2, 2]),
        ((5, 5, 5), 7, [3, 2, 2]),  # equal remainders: the first class
        ((97, 2, 1), 10, [8, 1, 1]),  # quotas 9.7, 0.2, 0.1: at least one of each
        ((97, 2, 1), 3, [1, 1, 1]),
        ((50, 30, 20), 2, [1, 1, 0]),  # fewer than classes: the largest quotas
        ((4, 3), 7, [4, 3]),
        ((4, 3), 100, [4, 3]),
    ],
)
def test_limit_is_stratified(counts, limit, expected):
    inputs, labels = arrays(counts)
    with_singles = 1 in expected
    if with_singles:
        with pytest.warns(NoiseAuditWarning, match="single example"):
            dataset = load((inputs, labels), limit=limit)
    else:
        dataset = load((inputs, labels), limit=limit)
    assert np.bincount(dataset.labels, minlength=len(counts)).tolist() == expected
    assert dataset.class_names == tuple(str(label) for label in range(len(counts)))
    assert (np.diff(dataset.ids) > 0).all()  # source order
    assert np.array_equal(dataset.inputs[:, 0], dataset.ids)
    assert np.array_equal(dataset.labels, labels[dataset.ids])


def test_limit_depends_on_the_seed_alone():
    source = arrays((50, 50))
    first, again, other = (load(source, limit=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, other.ids)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"limit": 0}, UsageError, "limit must be at least 1"),
        ({"limit": 2.5}, UsageError, "limit must be a whole number"),
        ({"limit": True}, UsageError, "limit must be a whole number"),
        ({"seed": "a"}, UsageError, "seed must be a whole number"),
        ({"seed": None}, UsageError, "seed must be a whole number"),
        ({"split": "tset"}, UnknownNameError, "did you mean 'test'"),
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'"),
        ({"image_size": 4}, UsageError, r"image_size must be in 8\.\.1024"),
        ({"image_size": "big"}, UsageError, "image_size must be a whole number"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        load("digits", **options)


def test_image_size_of_an_array_is_ignored_with_a_warning():
    with pytest.warns(NoiseAuditWarning, match="image_size is for picture files"):
        assert load("digits", image_size=16).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("cifar1O", "no file or folder 'cifar1O'.*did you mean 'cifar10'"),
        ("no/such/folder", "no file or folder.*named data sets: digits, mnist"),
        ("a" * 5000, "is no path"),
        ("a\0b", "is no path|no file or folder"),
        (42, "cannot load a int"),
        (None, "cannot load a NoneType"),
        ({"x": [1]}, "cannot load a dict"),
        (np.zeros((3, 3)), r"pass the tuple \(inputs, labels\)"),
        (([1], [2], [3]), "got 3 items"),
    ],
)
def test_unknown_sources(source, words):
    with pytest.raises(DataError, match=words):
        load(source)


def test_file_of_another_kind(tmp_path):
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match="cannot tell what"):
        load(tmp_path / "a.xlsx")


def test_errors_name_the_file(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        load(tmp_path)


def test_labeled_dataset_is_returned_as_it_is():
    dataset = load(arrays((3, 3)))
    assert load(dataset) is dataset
    part = load(dataset, limit=4)
    assert np.bincount(part.labels).tolist() == [2, 2]
    with pytest.raises(DataError, match="it has no splits"):
        load(dataset, split="val")


def test_split_of_a_labeled_dataset():
    inputs, _ = arrays((6, 6))
    split = np.array(["train", "val"] * 6)
    dataset = LabeledDataset(inputs, np.arange(12) % 4 // 2, ("a", "b"), split=split)
    assert len(load(dataset)) == 12
    assert load(dataset, split="val").ids.tolist() == [1, 3, 5, 7, 9, 11]
    with pytest.raises(DataError, match="no split 'test': it has train, val"):
        load(dataset, split="test")


@pytest.mark.parametrize("wrap", [tuple, lambda pair: load_unchecked(*pair)])
def test_one_class_only(wrap):
    with pytest.raises(DataError, match="one class only, '0', with 3 examples"):
        load(wrap(arrays((3,))))


def load_unchecked(inputs, labels):
    return LabeledDataset(inputs, labels, ("0",))


def test_single_examples_are_warned_of():
    with pytest.warns(NoiseAuditWarning, match=r"2 classes have a single example.*'1', '2'"):
        load(arrays((3, 1, 1)))
    with pytest.warns(NoiseAuditWarning, match="1 class has a single example"):
        load(load_unwarned(arrays((3, 1))))


def load_unwarned(pair):
    return LabeledDataset(*pair, ("0", "1"))


def test_named_set_from_npz(tmp_path):
    make_npz(tmp_path / "fashion_mnist.npz", n=20, k=10)
    dataset = load("fashion_mnist", data_root=str(tmp_path))
    assert dataset.class_names[:2] == ("T-shirt/top", "Trouser")
    assert set(dataset.split) == {"train"}
    assert dataset.ids.tolist() == list(range(20))
    test = load("fashion_mnist", data_root=tmp_path, split="test")
    assert test.ids.tolist() == list(range(20, 40))
    assert len(load("fashion_mnist", data_root=tmp_path, split="all")) == 40


def test_class_names_of_the_npz_come_first(tmp_path):
    names = [f"class {i}" for i in range(100)]
    make_npz(tmp_path / "cifar100.npz", n=200, k=100, shape=(4, 4, 3), class_names=names)
    assert load("cifar100", data_root=tmp_path).class_names == tuple(names)


def test_damaged_named_npz_names_the_file(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"mnist\.npz: it is damaged"):
        load("mnist", data_root=tmp_path)


def test_named_set_needs_a_data_root():
    with pytest.raises(UsageError, match="mnist needs --data-root"):
        load("mnist")


def test_absent_named_set_tells_both_places_and_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"neither as .*mnist\.npz nor .*torchvision.*--download"):
        load("mnist", data_root=tmp_path)


def test_failed_download_says_so(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(self):
        raise OSError("no network")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    with pytest.raises(DataError, match=r"could not be downloaded.*no network"):
        load("mnist", data_root=tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_torchvision_idx_layout(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    random = np.random.default_rng(0)
    images = {kind: random.integers(0, 256, (20, 28, 28)) for kind in ("train", "t10k")}
    for kind, array in images.items():
        write_idx(raw / f"{kind}-images-idx3-ubyte", array)
        write_idx(raw / f"{kind}-labels-idx1-ubyte", np.arange(20) % 10)
    train = load(name, data_root=tmp_path)
    assert np.array_equal(train.inputs, images["train"])
    assert train.num_classes == 10
    test = load(name, data_root=tmp_path, split="test")
    assert np.array_equal(test.inputs, images["t10k"])
    assert test.ids.tolist() == list(range(20, 40))
    both = load(name, data_root=tmp_path, split="all", limit=20)
    assert set(both.split) == {"train", "test"}


def test_torchvision_cifar_layout(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", None)
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name, _ in [*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list]:
        batch = {"data": data, "labels": (np.arange(20) % 10).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": [f"kind {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    dataset = load("cifar10", data_root=tmp_path)
    assert dataset.inputs.shape == (100, 32, 32, 3)
    assert np.array_equal(dataset.inputs[0], data[0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert dataset.class_names[0] == "airplane"


def test_real_mnist(real_data):
    dataset = load("mnist", data_root=real_data)
    assert dataset.inputs.shape == (60000, 28, 28)
    assert dataset.labels[:5].tolist() == [5, 0, 4, 1, 9]
    test = load("mnist", data_root=real_data, split="test", limit=1000)
    assert test.ids.min() >= 60000
    assert np.bincount(test.labels).min() == 89  # 892 fives of 10,000


def test_real_cifar10(real_data):
    dataset = load("cifar10", data_root=real_data, split="test")
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.ids[[0, -1]].tolist() == [50000, 59999]
    assert np.bincount(dataset.labels).tolist() == [1000] * 10
    assert dataset.label_names()[:3].tolist() == ["cat", "ship", "ship"]

"""Arrays, map-style datasets and .npz files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.loaders import load
from tests._data import make_npz, make_picture

Y = [0, 1, 0, 1]
GREY = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
VECTORS = np.arange(8, dtype=np.float64).reshape(4, 2)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, lambda array: array.tolist()])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (GREY.astype(np.int64), GREY),
        (GREY < 40, (GREY < 40) * np.uint8(255)),
    ],
)
def test_images(convert, given, expected):
    dataset = load((convert(given), Y))
    assert dataset.inputs.dtype == np.uint8
    assert np.array_equal(dataset.inputs, expected)
    assert dataset.ids.tolist() == [0, 1, 2, 3]


def test_whole_uint8_array_is_not_copied():
    assert load((COLOUR, Y)).inputs is COLOUR


def test_alpha_is_laid_over_white():
    pixels = np.zeros((4, 6, 5, 4), np.uint8)
    pixels[:, 0, 0, 3] = 255
    inputs = load((pixels, Y)).inputs
    assert inputs.shape == (4, 6, 5, 3)
    assert inputs[0, 0, 0].tolist() == [0, 0, 0]
    assert inputs[0, 0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
def test_unit_floats_become_bytes_with_a_warning(convert):
    with pytest.warns(NoiseAuditWarning, match=r"float images in \[0, 1\] are converted"):
        dataset = load((convert(COLOUR / 255), Y))
    assert np.array_equal(dataset.inputs, COLOUR)


@pytest.mark.parametrize(
    "given",
    [VECTORS, VECTORS.astype(int), VECTORS.tolist(), torch.tensor(VECTORS), pd.DataFrame(VECTORS)],
)
def test_vectors(given):
    dataset = load((given, Y))
    assert dataset.inputs.dtype == np.float32
    assert np.array_equal(dataset.inputs, VECTORS)


def test_half_precision_and_gradients():
    tensor = torch.tensor(VECTORS, dtype=torch.bfloat16, requires_grad=True)
    assert np.array_equal(load((tensor, torch.tensor(Y))).inputs, VECTORS)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros(4), r"inputs must be vectors \(n, d\) or images .* got shape \(4,\)"),
        (np.zeros((4, 2, 2, 2, 3), np.uint8), "inputs must be vectors"),
        (np.zeros((4, 0, 5), np.uint8), "inputs must be vectors"),
        (np.zeros((4, 6, 5, 2), np.uint8), "must have 1 or 3 channels"),
        (np.zeros((4, 3, 5, 3), np.uint8), "cannot be told"),
        (np.full((4, 6, 5), 256), r"0\.\.255 or floats in \[0, 1\]; got int64 from 256 to 256"),
        (np.full((4, 6, 5), -0.5), r"got float64 from -0\.5"),
        (np.full((4, 6, 5), np.nan), "got float64 from nan"),
        (np.array([[1, 2], [3, np.nan], [5, np.inf], [7, 8]]), "2 rows, first 1, 2"),
        (np.array([[1e300, 2]] * 4), "float32"),
        ([[1], [2, 3], [4], [5]], "every example of the same shape"),
        (np.array([["a"]] * 4), "inputs must be numbers"),
        (np.array([[1j]] * 4), "inputs must be numbers; got dtype complex128"),
        (5, "must be an array of examples"),
        (VECTORS[:3], "inputs has 3, labels has 4"),
        (VECTORS[:, :0], "got"),
    ],
)
def test_bad_inputs(inputs, words):
    with pytest.raises(DataError, match=words):
        load((inputs, Y))


@pytest.mark.parametrize(
    ("labels", "names", "codes"),
    [
        ([10, 2, 10, 2], ("2", "10"), [1, 0, 1, 0]),
        (np.array([3, 1, 3, 1], np.uint8), ("1", "3"), [1, 0, 1, 0]),
        (torch.tensor([1, 0, 1, 0]), ("0", "1"), [1, 0, 1, 0]),
        ([torch.tensor(1), torch.tensor(0), np.int32(1), 0], ("0", "1"), [1, 0, 1, 0]),
        (np.array([[0], [1], [0], [1]]), ("0", "1"), Y),
        ([-1, 1, -1, 1], ("-1", "1"), Y),
        (["10", "2", "10", "2"], ("10", "2"), Y),
        (np.array([b"a", b"b", b"a", b"b"]), ("a", "b"), Y),
        (np.array(["a", "b"] * 2, dtype=np.dtypes.StringDType()), ("a", "b"), Y),
        ([False, True, False, True], ("False", "True"), Y),
        (pd.Series(["x", "NA", "x", "NA"]), ("NA", "x"), [1, 0, 1, 0]),
        (pd.Series(["x", "y", "x", "y"], dtype="category"), ("x", "y"), Y),
        (["<script>", "a,b", "<script>", "a,b"], ("<script>", "a,b"), Y),
    ],
)
def test_labels(labels, names, codes):
    dataset = load((VECTORS, labels))
    assert dataset.class_names == names
    assert dataset.labels.tolist() == codes
    assert dataset.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.0, 1.0, 0.0, 1.0], "labels must be integers or texts, not floats: 0.0 at row 0"),
        ([0.0, 1.0, 0.5, 1.0], "0.5 at row 2"),
        ([0, None, 1, None], "labels are missing in 2 rows, first 1, 3"),
        (["a", float("nan"), "b", "a"], "labels are missing in 1 row, first 1"),
        (np.array([0, 1, np.nan, 1]), "labels are missing in 1 row, first 2"),
        (pd.Series([0, 1, pd.NA, 1], dtype="Int64"), "labels are missing in 1 row, first 2"),
        (["a", " ", "b", ""], "labels are missing in 2 rows, first 1, 3"),
        ([0, 1, -1, 1], "must not be negative; got 1, first -1 at row 2"),
        ([0, "a", 1, "b"], "all integers or all texts; got int, str"),
        ([object()] * 4, "all integers or all texts; got object"),
        (np.eye(4), r"one-dimensional; got shape \(4, 4\) .*argmax"),
        ([[0, 1], [1]], "one-dimensional"),
        (np.array(["2020-01-01"] * 4, dtype="datetime64[D]"), "integers or texts; got dtype"),
        (np.array([1j] * 4), "integers or texts; got dtype"),
        ([0, 1], "inputs has 4, labels has 2"),
        ([0, 0, 0, 0], "one class only"),
    ],
)
def test_bad_labels(labels, words):
    with pytest.raises(DataError, match=words):
        load((VECTORS, labels))


def test_no_examples():
    with pytest.raises(DataError, match="there are no examples"):
        load((np.empty((0, 2)), []))
    with pytest.raises(DataError, match="there are no examples"):
        load([])


def items_of(inputs):
    return list(zip(inputs, Y, strict=True))


class Items:
    classes = ("cat", "dog")

    def __init__(self, inputs):
        self._items = items_of(inputs)

    def __len__(self):
        return len(self._items)

    def __getitem__(self, row):
        return self._items[row]


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, Image.fromarray])
@pytest.mark.parametrize("given", [GREY, COLOUR])
def test_map_style_images(convert, given):
    dataset = load(Items([convert(picture) for picture in given]))
    assert np.array_equal(dataset.inputs, given)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.name == "Items"


def test_map_style_unit_floats_channels_first():
    tensors = [torch.tensor(picture / 255).permute(2, 0, 1) for picture in COLOUR]
    with pytest.warns(NoiseAuditWarning, match="are converted to uint8") as caught:
        dataset = load(items_of(tensors))
    assert len(caught) == 1
    assert np.array_equal(dataset.inputs, COLOUR)


def test_map_style_vectors_and_limit():
    dataset = load(torch.utils.data.TensorDataset(torch.tensor(VECTORS), torch.tensor(Y)))
    assert np.array_equal(dataset.inputs, VECTORS)
    with pytest.warns(NoiseAuditWarning, match="single example"):
        assert len(load(items_of(VECTORS), limit=2).inputs) == 2


def test_map_style_pictures_of_mixed_sizes_and_modes():
    pictures = [make_picture(i, (20 + 10 * i, 30), mode) for i, mode in enumerate(("L", "RGBA"))]
    assert load(items_of(pictures * 2)).input_shape == (3, 24, 24)  # median of 20 and 30: 25
    assert load(items_of(pictures * 2), image_size=16).input_shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([1, 2], r"item 0 must be a pair \(input, label\); got int"),
        ([{"image": 1, "label": 2}], r"item 0 must be a pair \(input, label\); got dict"),
        ([(VECTORS[0], 0), (VECTORS[0], 1, 2)], "item 1 must be a pair"),
        ([(VECTORS[0], 0), ("text", 1)], "item 1: inputs must be numbers"),
        ([(VECTORS[0], 0), (VECTORS[0, :1], 1)], "vectors have different lengths: 1, 2"),
        ([(VECTORS[0], 0), (GREY[0], 1)], "all vectors .* or all images"),
        ([(1.0, 0), (2.0, 1)], "all vectors .* or all images"),
        ([(GREY[0] - 0.5, 0), (GREY[1], 1)], r"item 0: float images must lie in \[0, 1\]"),
        ([(VECTORS[0], 0.5), (VECTORS[1], 1.5)], "not floats"),
        ([(VECTORS[0] * np.nan, 0), (VECTORS[1], 1)], "features must be finite"),
    ],
)
def test_bad_items(items, words):
    with pytest.raises(DataError, match=words):
        load(items)


def test_npz_with_x_and_y(tmp_path):
    np.savez(tmp_path / "some.npz", x=COLOUR, y=Y, class_names=["cat", "dog"], more=[1])
    dataset = load(tmp_path / "some.npz")
    assert np.array_equal(dataset.inputs, COLOUR)
    assert dataset.class_names == ("cat", "dog")
    assert (dataset.name, dataset.split, dataset.sources) == ("some", None, None)


def test_npz_with_splits(tmp_path):
    path = make_npz(tmp_path / "a.NPZ.npz", splits=("train", "val", "test"))
    dataset = load(path)
    assert dataset.split.tolist() == ["train"] * 12 + ["val"] * 12 + ["test"] * 12
    stored = np.load(path)
    assert np.array_equal(dataset.inputs[12:24], stored["x_val"])
    val = load(path, split="val", limit=6)
    assert np.array_equal(val.inputs, stored["x_val"][val.ids - 12])
    with pytest.raises(DataError, match="no split 'val': it has train, test"):
        load(make_npz(tmp_path / "b.npz"), split="val")


def test_npz_reads_only_the_splits_it_needs(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=VECTORS, y_train=Y, x_test=GREY, y_test=Y)
    assert load(tmp_path / "a.npz", split="train").kind == "vectors"
    with pytest.raises(DataError, match="inputs of different shapes"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": Y}, "'x', 'y' are missing.*it holds 'a'"),
        ({"x": Y}, "'x', 'y' are missing|'y'"),
        ({"x_train": VECTORS}, "'y_train' are missing.*it holds 'x_train'"),
        ({"x_test": VECTORS, "y_test": Y}, "'x_train', 'y_train' are missing"),
        ({"x": VECTORS, "y": np.array([0, 1, 0, None])}, "Python objects"),
        ({"x": np.array([[0, 1], [0, None]]), "y": [0, 1]}, "Python objects"),
        ({"x": VECTORS[:3], "y": Y}, "x has 3, y has 4"),
        ({"x": VECTORS, "y": Y, "class_names": ["a"]}, r"\[0, 1\)"),
        ({"x": VECTORS, "y": Y, "class_names": ["a", "a"]}, "must be different"),
        ({"x": VECTORS, "y": ["u", "v"] * 2, "class_names": ["u", "v"]}, "must be integers"),
    ],
)
def test_bad_npz_content(tmp_path, content, words):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_damaged_npz(tmp_path):
    path = make_npz(tmp_path / "a.npz", n=300)
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        b"PK\x03\x04",
        b"hello",
        whole[:90] + b"?" * 200,
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"it is damaged or no .npz file"):
            load(path)
    middle = len(whole) // 3  # a bit flipped inside an array: its checksum tells
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(DataError, match="it is damaged"):
        load(path)


def test_npy_in_disguise(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, VECTORS)
    with pytest.raises(DataError, match=r"single \.npy array"):
        load(tmp_path / "a.npz")

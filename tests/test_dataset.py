import numpy as np
import pytest

from noiseaudit.dataset import LabeledDataset, digest_array
from noiseaudit.errors import DataError


def make(n=6, **changes):
    values = {
        "inputs": np.arange(n * 4, dtype=np.float32).reshape(n, 4),
        "labels": np.arange(n) % 3,
        "class_names": ("a", "b", "c"),
    }
    return LabeledDataset(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": np.arange(5) % 3}, "inputs has 6, labels has 5"),
        ({"labels": np.array([0, 1, 2, 3, 0, 9])}, r"\[0, 3\); got 2 outside, first 3 at row 3"),
        ({"labels": np.array([0, -1, 2, 0, 0, 0])}, "1 outside, first -1 at row 1"),
        ({"labels": np.zeros(6)}, "integers .* got dtype float64"),
        ({"labels": np.zeros((6, 1), dtype=int)}, "one-dimensional"),
        ({"ids": np.array([5, 1, 2, 5, 3, 4])}, "unique; 1 occur more than once, first 5 at row 0"),
        ({"ids": np.arange(5)}, "inputs has 6, ids has 5"),
        ({"ids": np.arange(6) / 2}, "ids must be .* integers"),
        ({"sources": np.array(["x"])}, "sources has 1"),
        ({"split": np.array(["train"] * 7)}, "split has 7"),
        ({"class_names": ("a", "b", "b")}, "class_names must be different"),
        ({"inputs": np.zeros((6, 4))}, "got float64 of shape"),
        ({"inputs": np.zeros((6, 4, 4, 2), np.uint8)}, r"shape \(6, 4, 4, 2\)"),
    ],
)
def test_bad_construction_says_what_and_where(changes, words):
    with pytest.raises(DataError, match=words):
        make(**changes)


def test_non_finite_features_are_located():
    inputs = np.zeros((6, 4), np.float32)
    inputs[2, 1], inputs[4, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="NaN or infinity in 2 rows, first 2, 4; drop or fill"):
        make(inputs=inputs)


def test_ids_default_to_positions_and_survive_subset_of_subset():
    dataset = make()
    assert dataset.ids.tolist() == [0, 1, 2, 3, 4, 5]
    part = dataset.subset([5, 1, 3]).subset(np.array([True, False, True]))
    assert part.ids.tolist() == [5, 3]
    assert part.labels.tolist() == [2, 0]
    assert part.inputs[:, 0].tolist() == [20.0, 12.0]
    assert part.class_names == ("a", "b", "c")


def test_input_shape_is_as_a_model_sees_it():
    assert make().input_shape == (4,)
    assert make(inputs=np.zeros((6, 5, 7), np.uint8)).input_shape == (1, 5, 7)
    assert make(inputs=np.zeros((6, 5, 7, 3), np.uint8)).input_shape == (3, 5, 7)


def test_fingerprint_sees_inputs_labels_ids_and_classes_and_nothing_else():
    base = make().fingerprint
    assert make(name="other").fingerprint == base
    changed = make()
    changed.inputs[3, 2] += 1
    assert make(inputs=changed.inputs).fingerprint["inputs"] != base["inputs"]
    assert make().with_labels([0, 1, 2, 0, 1, 1]).fingerprint["labels"] != base["labels"]
    assert make(ids=np.arange(1, 7)).fingerprint["ids"] != base["ids"]
    assert make(class_names=("a", "b", "d")).fingerprint["classes"] != base["classes"]


def test_digest_of_a_view_equals_that_of_its_copy():
    array = np.arange(60, dtype=np.uint8).reshape(10, 6)
    assert digest_array(array[::2, ::3]) == digest_array(array[::2, ::3].copy())
    assert digest_array(array) != digest_array(array.reshape(6, 10))


def test_read_only_and_non_contiguous_inputs_are_taken():
    inputs = np.zeros((12, 4), np.float32)[::2]
    inputs.flags.writeable = False
    assert len(make(inputs=inputs).fingerprint["inputs"]) == 32


def test_empty_dataset_has_length_zero():
    empty = make(n=0)
    assert len(empty) == 0
    assert empty.subset([]).ids.tolist() == []


def test_label_names():
    assert make().label_names().tolist() == ["a", "b", "c", "a", "b", "c"]
    assert make().label_names([2, 0]).tolist() == ["c", "a"]

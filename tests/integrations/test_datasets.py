import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Picture

from noiseaudit.errors import DataError, NoiseAuditWarning, UnknownNameError, UsageError
from noiseaudit.integrations.datasets import from_datasets

NAMES = ["cat", "dog", "ant"]  # not sorted: a ClassLabel has an order of its own
SNIPPET = """
from noiseaudit.integrations.datasets import from_datasets

dataset = from_datasets(train, label_column="label")  # pictures, or columns of numbers
report = na.audit(dataset)
train.select(report.ranking.top(5))  # ids are the dataset's rows
"""


def pictures(sizes=((8, 8),) * 6, labels=(0, 1, 2, 0, 1, 2)):
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    data = Dataset.from_dict(
        {"image": [Picture.fromarray(array) for array in arrays], "label": list(labels)},
        features=Features({"image": Image(), "label": ClassLabel(names=NAMES)}),
    )
    return data, arrays


def two_pictures():
    pixels = [Picture.new("L", (8, 8))] * 2
    return Dataset.from_dict(
        {"front": pixels, "back": pixels, "label": [0, 1]},
        features=Features({"front": Image(), "back": Image(), "label": Value("int64")}),
    )


def table(**columns):
    return Dataset.from_dict({"label": ["b", "a", "b", "a"], **columns})


def test_pictures_and_names_of_a_class_label():
    data, arrays = pictures()
    found = from_datasets(data)
    assert found.class_names == tuple(NAMES)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(found.inputs, np.stack(arrays))
    assert found.ids.tolist() == list(range(6))


def test_pictures_of_mixed_sizes_and_a_working_size():
    data, _ = pictures(sizes=((8, 10), (12, 9), (16, 16), (8, 8), (9, 9), (10, 10)))
    assert from_datasets(data, image_size=8).inputs.shape == (6, 8, 8, 3)


def test_numbers_vectors_and_texts_side_by_side():
    data = table(
        age=[1, 2, 3, 4],
        embedding=[[0.5, 1.0], [1.5, 2.0], [2.5, 3.0], [3.5, 4.0]],
        note=["x", "y", "z", "w"],
    )
    found = from_datasets(data)
    assert found.feature_names == ("age", "embedding_0", "embedding_1")  # the text is left out
    assert found.inputs[1].tolist() == [2.0, 1.5, 2.0]
    assert found.class_names == ("a", "b")
    assert found.labels.tolist() == [1, 0, 1, 0]
    chosen = from_datasets(data.with_format("torch"), feature_columns=["embedding"])
    assert chosen.inputs.shape == (4, 2)


def test_a_class_label_among_numbers_and_integer_labels():
    features = Features({"x": List(Value("float32")), "y": ClassLabel(names=NAMES)})
    data = Dataset.from_dict({"x": [[1.0], [2.0], [3.0], [4.0]], "y": [2, 0, 2, 0]}, features)
    found = from_datasets(data, label_column="y")
    assert found.class_names == tuple(NAMES)
    assert found.feature_names == ("x",)
    plain = Dataset.from_dict({"x": [1, 2, 3, 4], "label": [7, 5, 7, 5]})
    assert from_datasets(plain).class_names == ("5", "7")


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (DatasetDict({"train": table(x=[1, 2, 3, 4])}), {}, DataError, r"dataset\['train'\]"),
        ([1, 2], {}, DataError, "not list"),
        (table(x=[1, 2, 3, 4]).to_iterable_dataset(), {}, DataError, "not IterableDataset"),
        (table(x=[1, 2, 3, 4]), {"label_column": "lable"}, UnknownNameError, "mean 'label'"),
        (table(x=[1, 2, 3, 4]), {"feature_columns": ["y"]}, UnknownNameError, "column 'y'"),
        (table(x=[1, 2, 3, 4]), {"image_column": "z"}, UnknownNameError, "column 'z'"),
        (
            table(x=[1, 2, 3, 4]),
            {"image_column": "x", "feature_columns": ["x"]},
            UsageError,
            "not both",
        ),
        (table(note=list("abcd")), {}, DataError, "texts need an encoder"),
        (table(note=list("abcd")), {"feature_columns": ["note"]}, DataError, "must hold numbers"),
        (table(x=[1.0, None, 3.0, 4.0]), {}, DataError, "NaN or infinity in 1 row, first 1"),
        (table(x=[[1], [2, 3], [4], [5]]), {}, DataError, "different lengths"),
        (pictures(labels=(0, 1, -1, 0, 1, -1))[0], {}, DataError, "got 2, first -1 at row 2"),
        (
            two_pictures(),
            {},
            DataError,
            "several columns of pictures",
        ),
        (table(x=["no", "picture", "in", "it"]), {"image_column": "x"}, DataError, "item 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::noiseaudit.errors.NoiseAuditWarning")
def test_mistakes(data, options, error, words):
    with pytest.raises(error, match=words):
        from_datasets(data, **options)


def test_a_missing_picture_is_located():
    data = Dataset.from_dict(
        {"image": [Picture.new("L", (8, 8)), None], "label": [0, 1]},
        features=Features({"image": Image(), "label": ClassLabel(names=NAMES)}),
    )
    with pytest.raises(DataError, match="row 1 of column 'image' has no picture"):
        from_datasets(data)


def test_the_snippet():
    import noiseaudit as na

    random = np.random.default_rng(0)
    train = Dataset.from_dict({"x": random.normal(0, 1, (20, 3)), "label": [0, 1] * 10})
    names = {"train": train, "na": na}
    exec(SNIPPET, names)
    assert len(names["report"].ranking) == 20


def test_image_size_of_numbers_warns():
    with pytest.warns(NoiseAuditWarning, match="image_size"):
        from_datasets(table(x=[1, 2, 3, 4]), image_size=8)

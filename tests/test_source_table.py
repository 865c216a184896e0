"""CSV and parquet files: labels beside paths or features."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.loaders import load
from tests._data import make_folder


@pytest.fixture(autouse=True)
def _nothing_unexpected():
    """Warnings that a test does not expect are failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoiseAuditWarning)
        yield


@pytest.fixture
def csv(tmp_path):
    """A function that writes a text as .csv and gives its path."""

    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding, "surrogateescape"))
        return path

    return write


def of_labels(*labels, quote='"'):
    """A CSV with one feature and these labels."""
    return "f,label\n" + "".join(f"{i},{quote}{name}{quote}\n" for i, name in enumerate(labels))


def test_features(csv):
    dataset = load(csv("a,label,b\n1,x,2.5\n3,y,4\n5,x,-6e1\n7,y,0\n"))
    assert dataset.inputs.dtype == np.float32
    assert dataset.inputs.tolist() == [[1, 2.5], [3, 4], [5, -60], [7, 0]]
    assert dataset.feature_names == ("a", "b")
    assert dataset.class_names == ("x", "y")
    assert dataset.ids.tolist() == [0, 1, 2, 3]
    assert (dataset.name, dataset.sources) == ("table", None)


def test_paths(csv, tmp_path):
    make_folder(tmp_path / "pictures", {"any": 4})
    absolute = tmp_path / "pictures/any/3.png"
    rows = ["pictures/any/0.png,x", "pictures/any/1.png,y", "absent.png,x"]
    rows += ["pictures/any/2.png,x", f"{absolute},y"]
    dataset = load(csv("path,label\n" + "\n".join(rows)))
    assert dataset.ids.tolist() == [0, 1, 3, 4]
    assert dataset.label_names().tolist() == ["x", "y", "x", "y"]
    assert dataset.sources.tolist()[-1] == str(absolute)
    assert dataset.root == tmp_path
    assert [(s.sample_id, s.source, s.reason) for s in dataset.skipped] == [
        (2, "absent.png", "file is missing")
    ]


def test_named_columns(csv, tmp_path):
    make_folder(tmp_path / "p", {"any": 4})
    rows = "".join(f"p/any/{i}.png,{i % 2}\n" for i in range(4))
    dataset = load(csv("file,kind\n" + rows), label_column="kind", path_column="file")
    assert dataset.labels.tolist() == [0, 1, 0, 1]


def test_split_column(csv):
    text = "f,label,split\n1,x,test\n2,y,Train\n3,x,train\n4,y,test\n5,y,validation\n"
    dataset = load(csv(text))
    assert dataset.split.tolist() == ["test", "train", "train", "test", "val"]
    assert dataset.feature_names == ("f",)
    with pytest.warns(NoiseAuditWarning, match="single example"):
        assert load(csv(text), split="test").ids.tolist() == [0, 3]


def test_split_column_that_means_something_else(csv):
    path = csv("f,label,split\n1,x,train\n2,y,dev\n3,x,train\n4,y,dev\n")
    with (
        pytest.warns(NoiseAuditWarning, match="row 1 has 'dev'"),
        pytest.warns(NoiseAuditWarning, match="'split' are no features"),
    ):
        assert load(path).split is None


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("10", "9", "10", "9"), ("9", "10")),
        (("NA", "None", "NA", "None"), ("NA", "None")),
        (("null", "nan", "null", "nan"), ("nan", "null")),
        (("True", "False", "True", "False"), ("False", "True")),
        (("01", "1", "01", "1"), ("01", "1")),
        (("-1", "1", "-1", "1"), ("-1", "1")),
        (("a,b", "<script>", "a,b", "<script>"), ("<script>", "a,b")),
        (("1", "x", "1", "x"), ("1", "x")),
        (("=1+1", "\N{SNOWMAN}", "=1+1", "\N{SNOWMAN}"), ("=1+1", "\N{SNOWMAN}")),
    ],
)
def test_labels_stay_as_written(csv, labels, names):
    dataset = load(csv(of_labels(*labels)))
    assert dataset.class_names == names
    assert dataset.label_names().tolist() == list(labels)


def test_byte_order_mark_is_no_part_of_a_name(csv):
    assert load(csv("label,f\nx,1\ny,2\nx,3\ny,4\n", encoding="utf-8-sig")).class_names == (
        "x",
        "y",
    )


def test_whole_floats_are_integers_with_a_warning(csv):
    with pytest.warns(NoiseAuditWarning, match="taken as integers"):
        assert load(csv(of_labels("2.0", "10.0", "2.0", "10"))).class_names == ("2", "10")


def test_ignored_columns_are_named(csv):
    path = csv(",note,f,label\n0,hello,1,x\n1,you,2,y\n2,there,3,x\n3,!,4,y\n")
    with pytest.warns(NoiseAuditWarning, match="'Unnamed: 0', 'note' are no features"):
        assert load(path).feature_names == ("f",)


def test_image_size_does_nothing_for_features(csv):
    with pytest.warns(NoiseAuditWarning, match="image_size"):
        load(csv(of_labels(*"xyxy")), image_size=32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("f,label\n", "it has no rows"),
        ("f,Lable\n1,x\n", "no label column 'label'; did you mean 'Lable'.*'f', 'Lable'"),
        ("f;label\n1;x\n", "separated by something else than commas"),
        ("label\nx\ny\n", "neither a column 'path' of image paths nor numeric columns"),
        ("note,label\na,x\nb,y\n", "besides the labels it has 'note'"),
        ("path,label\n,x\na,y\n", "column 'path' has no path in 1 row, first 0"),
        ("path,label\na,x\nb,y\n", "none of the 2 pictures can be read"),
        (of_labels("x", "", "y", " "), "labels are missing in 2 rows, first 1, 3"),
        (of_labels("0", "1", "nan", "1"), "labels are missing in 1 row, first 2"),
        (of_labels("0.5", "1", "2", "1"), "not floats: 0.5 at row 0"),
        (of_labels("0", "-1", "1", "0"), "must not be negative; got 1, first -1 at row 1"),
        (of_labels("x", "x"), "one class only, 'x'"),
        (
            "f,g,label\n1,2,x\n1,,y\n1,inf,x\n",
            "column 'g' has no finite number.*2 rows, first 1, 2",
        ),
        ("f,label\n1e300,x\n2,y\n3,x\n4,y\n", "float32"),
        ('f,label\n1,"x\n2,y\n', "cannot be read as CSV"),
        ("f,label\n1,x,3\n2,y,4,5\n", "cannot be read as CSV"),
    ],
)
def test_bad_csv(csv, text, words):
    path = csv(text)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_csv_in_another_encoding(csv):
    with pytest.raises(DataError, match="not UTF-8 text"):
        load(csv(of_labels("caf\u00e9", "the"), encoding="latin-1"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_column": "lbl"}, "no label column 'lbl'; .*--label-column"),
        ({"path_column": "file"}, "no path column 'file'.*--path-column"),
        ({"label_column": "f", "path_column": "f"}, "cannot be the label column and the path"),
    ],
)
def test_bad_column_options(csv, options, words):
    with pytest.raises(DataError, match=words):
        load(csv(of_labels(*"xyxy")), **options)


@pytest.mark.parametrize("values", [["x", "y"], [3, 1], [True, False]])
@pytest.mark.parametrize("dtype", [None, "category"])
def test_parquet_labels(tmp_path, values, dtype):
    labels = pd.Series(values * 2, dtype=dtype)
    pd.DataFrame({"f": range(4), "g": [0.5] * 4, "label": labels}).to_parquet(
        tmp_path / "a.parquet"
    )
    dataset = load(tmp_path / "a.parquet")
    assert dataset.label_names().tolist() == [str(value) for value in labels]
    assert dataset.class_names == tuple(sorted(str(value) for value in values))
    assert dataset.inputs.shape == (4, 2)


def test_parquet_paths(tmp_path):
    make_folder(tmp_path / "p", {"any": 4})
    frame = pd.DataFrame({"path": [f"p/any/{i}.png" for i in range(4)], "label": [0, 1] * 2})
    frame.to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").input_shape == (3, 8, 10)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["x", None, "y"], "labels are missing in 1 row, first 1"),
        ([0, np.nan, 1], "labels are missing in 1 row, first 1"),
        ([0, 0.5, 1], "0.5 at row 1"),
        (pd.to_datetime(["2020", "2021", "2022"]), "integers or all texts"),
        (pd.array([0, None, 1], dtype="Int64"), "labels are missing in 1 row, first 1"),
    ],
)
def test_bad_parquet_labels(tmp_path, labels, words):
    pd.DataFrame({"f": range(3), "label": labels}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        load(tmp_path / "a.parquet")


def test_parquet_features_with_missing_numbers(tmp_path):
    frame = pd.DataFrame({"f": pd.array([1, None, 3], dtype="Int64"), "label": ["x", "y", "x"]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'f' has no finite number.* 1 row, first 1"):
        load(tmp_path / "a.parquet")


def test_damaged_parquet(tmp_path):
    for content in (b"", b"PAR1 nonsense PAR1"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as parquet"):
            load(tmp_path / "a.parquet")


def test_parquet_without_pyarrow_tells_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'pip install -U "noiseaudit\[parquet\]"'):
        load(tmp_path / "a.parquet")


def test_numbers_of_rows_are_no_features(tmp_path):
    rows = "\n".join(f"{i},{i + 100},{i % 3},{'ab'[i % 2]}" for i in range(8))
    (tmp_path / "t.csv").write_text(f"id,sample_id,grid,label\n{rows}")
    with pytest.warns(NoiseAuditWarning, match="'id', 'sample_id' are no features"):
        dataset = load(tmp_path / "t.csv")
    assert dataset.feature_names == ("grid",)

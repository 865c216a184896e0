"""CSV and parquet files: labels beside paths or features."""

from __future__ import annotations

import csv as csv_module
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import noiseaudit as na
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
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
    with pytest.warns(NoiseAuditWarning, match="row 1 has 'dev'.*a column like any other"):
        dataset = load(path)
    assert dataset.split is None
    assert dataset.feature_names == ("f", "split=train")


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
    with pytest.warns(NoiseAuditWarning, match="'note' .another text in every row"):
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
        ("label\nx\ny\n", "no column of image paths .*, numbers or categories.*is nothing"),
        (
            "note,label\na,x\nb,y\n",
            r"besides the labels there is 'note' \(another text in",
        ),
        ("path,label\n,x\na,y\n", "column 'path' has no path in 1 row, first 0"),
        ("path,label\na,x\nb,y\n", "none of the 2 pictures can be read"),
        (of_labels("x", "", "y", " "), "labels are missing in 2 rows, first 1, 3"),
        (of_labels("0", "1", "nan", "1"), "labels are missing in 1 row, first 2"),
        (of_labels("0.5", "1", "2", "1"), "not floats: 0.5 at row 0"),
        (of_labels("0", "-1", "1", "0"), "must not be negative; got 1, first -1 at row 1"),
        (of_labels("x", "x"), "one class only, 'x'"),
        (
            "f,g,label\n1,2,x\n-inf,,y\n1,inf,x\n",
            "columns hold infinity: 'f', 'g', in 2 rows, first 1, 2",
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
    ages = pd.array([1, None, 3, 9], dtype="Int64")
    frame = pd.DataFrame({"f": ages, "label": ["x", "y"] * 2})
    frame.to_parquet(tmp_path / "a.parquet")
    dataset, _ = told(tmp_path / "a.parquet")
    assert dataset.inputs.tolist() == [[1, 0], [3, 1], [3, 0], [9, 0]]


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
    with pytest.warns(NoiseAuditWarning, match=r"'id' \(numbers of rows\), 'sample_id'"):
        dataset = load(tmp_path / "t.csv")
    assert dataset.feature_names == ("grid",)


def as_csv(path, /, **columns):
    """A table of 40 rows: column g of random numbers, the columns named, and labels x and y."""
    frame = pd.DataFrame({"g": np.random.default_rng(0).normal(size=40).round(3), **columns})
    frame.assign(label=["x", "y"] * 20).to_csv(path, index=False)
    return path


def told(path, **options):
    """The dataset, and the one warning that there may be."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load(path, **options)
    assert len(caught) <= 1
    return dataset, str(caught[0].message) if caught else ""


def test_categories_are_indicators(tmp_path):
    member, size = ["no", "yes", "yes", "no"] * 10, [" S", "M ", "L", "L"] * 10
    dataset, warning = told(as_csv(tmp_path / "t.csv", member=member, size=size))
    assert dataset.feature_names == ("g", "member=yes", "size=L", "size=M", "size=S")
    assert dataset.inputs[:4, 1:].tolist() == [
        [0, 0, 0, 1],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
    ]
    assert dataset.columns.categories == {"member": (2, 0), "size": (3, 0)}
    assert warning == ""  # nothing is lost or guessed


@pytest.mark.parametrize("kind", ["category", "bool", "string", "timestamp"])
def test_parquet_categories(tmp_path, kind):
    made = {
        "category": pd.Series(["3", "1", "3", "1", "3"] * 8, dtype="category"),
        "bool": pd.Series([True, None, False, True, False] * 8, dtype="boolean"),
        "string": pd.Series(["u", "v", None, "v", "v"] * 8, dtype="string[pyarrow]"),
        "timestamp": pd.to_datetime(["2020", "2021", "2020", "2020", "2021"] * 8),
    }
    names = {
        "category": ("c=3",), "bool": ("c", "c missing"),
        "string": ("c=u", "c=v", "c=(missing)"), "timestamp": ("c=2021-01-01 00:00:00",),
    }  # fmt: skip
    frame = pd.DataFrame({"c": made[kind], "label": ["x", "y"] * 20})
    frame.to_parquet(tmp_path / "t.parquet")
    assert told(tmp_path / "t.parquet")[0].feature_names == names[kind]


def test_missing_cells_are_filled_marked_and_told(tmp_path):
    age, city = [30, "?", 50, "NA"] + [30, 40, 50] * 12, ["Rome", "", "Oslo", " ? "] * 10
    few = [None] + [7, 7, 9] * 13
    dataset, warning = told(as_csv(tmp_path / "t.csv", age=age, city=city, few=few))
    assert dataset.feature_names == (
        "g", "age", "few", "age missing", "city=Oslo", "city=Rome", "city=(missing)"
    )  # fmt: skip
    assert dataset.inputs[:4, [1, 3]].tolist() == [[30, 0], [40, 1], [50, 0], [40, 1]]
    assert dataset.inputs[:4, 6].tolist() == [0, 1, 0, 1]
    assert dataset.columns.missing == {"age": 2, "few": 1, "city": 20}
    assert "filled by the median of their column: 'age' (2 cells), 'few' (1 cell)" in warning
    assert "'city' (20 cells)" in warning


MIXED = [str(i * 7 % 80) for i in range(78)]  # more different numbers than codes would have


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (range(40), "numbers of rows"),
        (range(100, 20, -2), "numbers of rows"),
        ([f"u{i * 7 % 40}" for i in range(40)], "another text in every row"),
        ([f"2020-01-{i + 1:02}" for i in range(28)] + [""] * 12, "another date in every row"),
        ([f"word {i // 2}" for i in range(40)], None),
        ([f"word {i % 39}" for i in range(40)], "39 different texts"),
        ([""] * 40, "empty"),
        (["?"] * 40, "empty"),
        (["a"] * 40, "'a' in every row"),
        (["1.5"] + [""] * 39, "empty but for 1 cells"),
        (["cat", "dog"] * 20, "repeats the labels"),
        ([0.5, 7] * 20, "repeats the labels"),
    ],
)
def test_columns_that_are_no_features(tmp_path, cells, reason):
    dataset, warning = told(as_csv(tmp_path / "t.csv", c=list(cells)))
    assert dataset.columns.left_out == ({} if reason is None else {"c": reason})
    assert warning.startswith(
        f"Columns that are no features and were left out: 'c' ({reason})"
    ) == (reason is not None)


def test_a_column_of_very_many_texts(tmp_path):
    cells = [f"w{i}" for i in range(10_000)]
    head = [f"h{i % 3}" for i in range(10_000)]
    made = pd.DataFrame({"all": cells * 3, "half": [*cells, *head, *head], "label": 0})
    made.loc[::2, "label"] = 1
    made.to_csv(tmp_path / "t.csv", index=False)
    dataset, _ = told(tmp_path / "t.csv")
    assert dataset.columns.left_out == {"all": "10,000 different texts"}
    assert dataset.feature_names == ("half=h0", "half=h1", "half=h2", "half=(rare)")
    assert dataset.inputs.sum(axis=0).tolist() == [6668, 6666, 6666, 10_000]
    assert dataset.columns.categories == {"half": (10_003, 10_000)}


@pytest.mark.parametrize(
    ("cells", "first", "how"),
    [
        (["1,5", "2,25", "3"] + ["1", "4,5"] * 18, 1.5, "with a decimal comma"),
        (["1,234.5", "12", "1,000"] + ["7", "1,999"] * 18, 1234.5, "with commas between thousands"),
        ([*MIXED, "unknown", "-"], 0, "2 other cells, such as '-', 'unknown', taken as missing"),
    ],
)
def test_texts_that_are_numbers(tmp_path, cells, first, how):
    frame = pd.DataFrame({"c": cells, "label": (["x", "y"] * 40)[: len(cells)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset, warning = told(tmp_path / "t.csv")
    assert dataset.feature_names[0] == "c"
    assert dataset.inputs[0, 0] == first
    assert how in warning


def test_codes_are_no_numbers(tmp_path):
    zips, grades = ["01234", "02345", "01234", "10001"] * 10, ["1", "2", "X", "2", "2"] * 8
    frame = pd.DataFrame({"zip": zips, "grade": grades, "label": ["x", "y"] * 20})
    frame.to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet").feature_names == (
        "zip=01234", "zip=02345", "zip=10001", "grade=1", "grade=2", "grade=X"
    )  # fmt: skip


def test_an_ambiguous_comma_is_refused(tmp_path):
    path = as_csv(tmp_path / "t.csv", price=["1,234", "2,345"] * 20)
    with pytest.raises(DataError, match="'price': '1,234' may be a fraction or more than a thou"):
        load(path)
    assert load(path, drop_columns=["price"]).feature_names == ("g",)


def test_lists_are_no_features(tmp_path):
    frame = pd.DataFrame({"f": [3, 1, 2, 5], "v": [[1, 2]] * 4, "label": ["x", "y"] * 2})
    frame.to_parquet(tmp_path / "t.parquet")
    assert told(tmp_path / "t.parquet")[0].columns.left_out == {"v": "neither numbers nor texts"}


def test_numbers_that_float32_cannot_tell_apart(tmp_path):
    cells = [1_600_000_000_000 + i * 7 % 40 for i in range(40)]
    dataset, warning = told(as_csv(tmp_path / "t.csv", t=cells))
    assert np.diff(dataset.inputs[:3, 1]).tolist() == [7, 7]
    assert "'t' (less its median" in warning


def test_heavy_tails_become_ranks(tmp_path):
    fare = [1, 2, 3, 4] * 9 + [50, 600, 7000, -9]
    dataset, warning = told(as_csv(tmp_path / "t.csv", fare=fare, rare=[0] * 38 + [1, 1]))
    assert dataset.inputs[-4:, 1].tolist() == [pytest.approx(rank / 40) for rank in (38, 39, 40, 1)]
    assert dataset.inputs[0, 1] == pytest.approx(6 / 40)  # the mean of ranks 2 to 10
    assert dataset.inputs[-2:, 2].tolist() == [1, 1]
    assert dataset.columns.changed == {"fare": "ranks, as its tails are heavy"}
    assert "'fare' (ranks" in warning


def test_chosen_columns(tmp_path):
    path = as_csv(tmp_path / "t.csv", id=range(40), path=["a", "b"] * 20, name=["u", "v"] * 20)
    assert load(path, feature_columns=["name", "id"]).feature_names == ("id", "name=v")
    dataset, warning = told(path, feature_columns=["g"])
    assert warning == ""
    assert dataset.columns.left_out == dict.fromkeys(["id", "path", "name"], "as asked")
    assert dataset.origin.options["feature_columns"] == ["g"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"drop_columns": ["Name"]}, DataError, "'Name'; did you mean 'name'.*there are 'g', 'n"),
        ({"feature_columns": ["label"]}, DataError, "no column of features 'label'"),
        ({"feature_columns": ["name", "g"]}, DataError, r"cannot be features: 'name' \('u' in"),
        ({"drop_columns": ["g", "name"]}, DataError, r"there is 'g' \(as asked\), 'name'"),
        ({"drop_columns": "name"}, UsageError, "a list of names of columns; got 'name'"),
        ({"feature_columns": []}, UsageError, "a list of names of columns"),
    ],
)
def test_bad_choices_of_columns(tmp_path, options, error, words):
    path = as_csv(tmp_path / "t.csv", name=["u"] * 40)
    with pytest.raises(error, match=words):
        load(path, **options)


def test_columns_are_chosen_of_features_only(tmp_path):
    make_folder(tmp_path / "p", {"any": 4})
    frame = pd.DataFrame({"path": [f"p/any/{i}.png" for i in range(4)], "label": [0, 1] * 2})
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UsageError, match="the inputs are pictures in 'path'"):
        load(tmp_path / "a.csv", drop_columns=["path"])
    with pytest.raises(UsageError, match=r"is for a table, a \.csv or \.parquet file"):
        load("digits", drop_columns=["id"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_cleaned_table_keeps_its_cells(tmp_path, ending):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.arange(2**53, 2**53 + 80), "g": [None, *draw.normal(size=79)],
            "city": [" Rome", "?", None, "Oslo", "Oslo"] * 16,
            "rate": ["1,50", "NA", "2,25", ""] * 20,
            "note": [f"line {i}\n\u00e9" for i in range(80)], "label": ["x", "y"] * 40,
        }
    )  # fmt: skip
    path = tmp_path / f"t.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    dataset, _ = told(path, drop_columns=["g"])
    report = na.audit(dataset, out=tmp_path / "audit", epochs=1, threads=1)
    policy = na.CleaningPolicy.parse("count:5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the audit has said is not said again
        na.clean_dataset(tmp_path / "audit", tmp_path / "clean", policy=policy)
    stays = np.setdiff1d(np.arange(80), report.ranking.top(5))
    cleaned = tmp_path / "clean" / f"cleaned.{ending}"
    if ending == "csv":
        with path.open(newline="") as before, cleaned.open(newline="") as after:
            header, *rows = csv_module.reader(before)
            assert list(csv_module.reader(after)) == [header, *(rows[row] for row in stays)]
    else:
        whole = pq.read_table(path)
        assert pq.read_table(cleaned).equals(whole.take(stays))
    notes = " ".join(report.document.notes)
    assert report.manifest["columns"]["missing"] == {"city": 32, "rate": 40}
    assert report.manifest["columns"]["left_out"]["g"] == "as asked"
    assert "'city' (32 cells)" in notes
    assert "'note' (another text in every row)" in notes


def test_a_cell_that_was_missing_and_is_not_is_a_change(tmp_path):
    text = as_csv(tmp_path / "t.csv", c=["a", "", "b", "b"] * 10).read_text()
    dataset, _ = told(tmp_path / "t.csv")
    na.audit(dataset, out=tmp_path / "audit", epochs=1, threads=1)
    (tmp_path / "t.csv").write_text(text.replace(",,y", ",a,y", 1))
    with pytest.raises(DataError, match="1 examples have changed: 1"):
        na.clean_dataset(tmp_path / "audit", tmp_path / "clean")


def test_lines_of_spaces_are_no_rows_to_clean(tmp_path):
    path = as_csv(tmp_path / "t.csv", c=["a", "b", "b", "b"] * 10)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "   ", *lines[5:]]))
    report = na.audit(load(path), out=tmp_path / "audit", epochs=1, threads=1)
    na.clean_dataset(tmp_path / "audit", tmp_path / "c", policy=na.CleaningPolicy.parse("count:1"))
    gone = int(report.ranking.top(1)[0])
    wanted = [line for row, line in enumerate(lines) if row != gone + 1]
    assert (tmp_path / "c" / "cleaned.csv").read_text().splitlines() == wanted

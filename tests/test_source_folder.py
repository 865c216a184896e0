"""Class folders: layouts, odd names, what is skipped and what is said about it."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from noiseaudit import images
from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.loaders import load
from tests._data import make_folder, make_picture


@pytest.fixture(autouse=True)
def _nothing_unexpected():
    """Warnings that a test does not expect are failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoiseAuditWarning)
        yield


def test_plain_class_folder(tmp_path):
    dataset = load(make_folder(tmp_path / "pets", {"dog": 2, "cat": 3}))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.sources.tolist() == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "dog/0.png",
        "dog/1.png",
    ]
    assert (dataset.name, dataset.root, dataset.split) == ("pets", tmp_path / "pets", None)
    assert dataset.inputs.shape == (5, 8, 10, 3)
    assert np.array_equal(dataset.inputs[3], np.asarray(Image.open(dataset.root / "dog/0.png")))
    assert dataset.content
    assert load(str(tmp_path / "pets")).fingerprint == dataset.fingerprint


def test_relative_path_gives_a_name_and_an_absolute_root(tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path / "pets", {"dog": 2, "cat": 2}))
    dataset = load(".")
    assert dataset.name == "pets"
    assert dataset.root.is_absolute()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "VALIDATION", "Test")])
def test_splits(tmp_path, names):
    counts = {f"{name}/{kind}": 2 for name in names for kind in ("cat", "dog")}
    root = make_folder(tmp_path, counts)
    dataset = load(root)
    assert dataset.split.tolist() == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert dataset.class_names == ("cat", "dog")
    assert dataset.sources[[0, 4, 8]].tolist() == [f"{name}/cat/0.png" for name in names]
    val = load(root, split="val")
    assert val.ids.tolist() == [4, 5, 6, 7]
    assert val.labels.tolist() == [0, 0, 1, 1]
    assert load(root, split="all").ids.tolist() == list(range(12))


def test_only_selected_files_are_decoded(tmp_path, monkeypatch):
    root = make_folder(tmp_path, {f"{s}/{c}": 4 for s in ("train", "val") for c in ("a", "b")})
    seen = []
    decode = images.decode_picture
    monkeypatch.setattr(
        images,
        "decode_picture",
        lambda path, size, *, grey: seen.append(path) or decode(path, size, grey=grey),
    )
    dataset = load(root, split="val", limit=4)
    assert sorted(seen) == [root / source for source in dataset.sources]
    assert len(seen) == 4


def test_missing_split_names_those_there(tmp_path):
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 2})
    with pytest.raises(DataError, match="no split 'val': it has train, test"):
        load(root, split="val")


def test_class_called_train_is_no_split(tmp_path):
    root = make_folder(tmp_path, {"train": 2, "bus": 2, "test": 2})
    assert load(root).class_names == ("bus", "test", "train")
    assert load(root).split is None


def test_folders_beside_splits_are_ignored_with_a_warning(tmp_path):
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2, "extra": 2, "test": 1})
    with pytest.warns(NoiseAuditWarning, match="'extra', 'test' beside 'train' are ignored"):
        assert len(load(root)) == 4


def test_stray_pictures_are_ignored_with_a_warning(tmp_path):
    root = make_folder(tmp_path, {"val/a": 2, "val/b": 2, "train/a": 2, "train/b": 2})
    make_picture().save(root / "train" / "stray.png")
    make_picture().save(root / "contact_sheet.png")
    with pytest.warns(NoiseAuditWarning, match="2 pictures beside the class folders"):
        dataset = load(root)
    assert len(dataset) == 8
    assert set(dataset.split) == {"train", "val"}


def test_deeper_pictures_count_to_the_first_folder(tmp_path):
    root = make_folder(tmp_path, {"cat/black/old": 1, "cat": 1, "dog/x": 2})
    dataset = load(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.sources[1] == "cat/black/old/0.png"


def test_hidden_files_and_other_files_are_ignored(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2, ".hidden": 2})
    make_picture().save(root / "a" / "._0.png")
    (root / "a" / "notes.txt").write_text("hello")
    (root / "labels.csv").write_text("x")
    assert len(load(root)) == 4


def test_empty_class_folder_is_left_out_with_a_warning(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2, "empty": 0})
    with pytest.warns(NoiseAuditWarning, match="hold no pictures and are left out: 'empty'"):
        assert load(root).class_names == ("a", "b")


def test_class_empty_in_one_split_only_is_fine(tmp_path):
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 2, "val/b": 0, "val/c": 2})
    assert load(root).class_names == ("a", "b", "c")
    assert load(root, split="train").class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "there are no pictures in it; expected one sub-folder of images per class"),
        ({"a": 0, "b": 0}, "there are no pictures in it"),
        ({".": 3}, "3 pictures lie in the folder itself"),
        ({"a": 3}, "one class only, 'a'"),
        ({"train/a": 2, "test/b": 2}, "one class only, 'a'"),
    ],
)
def test_unusable_folders(tmp_path, counts, words):
    root = make_folder(tmp_path / "x", counts)
    with pytest.raises(DataError, match=words):
        load(root, split="train" if "train/a" in counts else None)


def test_skipped_files_keep_their_ids(tmp_path):
    root = make_folder(tmp_path, {"a": 3, "b": 3})
    (root / "a" / "1.png").write_bytes(b"")
    (root / "b" / "0.png").write_bytes(b"no picture")
    dataset = load(root)
    assert dataset.ids.tolist() == [0, 2, 4, 5]
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert [(s.sample_id, s.source, s.reason) for s in dataset.skipped] == [
        (1, "a/1.png", "file is empty"),
        (3, "b/0.png", "not a picture that Pillow can read"),
    ]
    assert len(dataset.inputs) == 4


def test_class_lost_by_skipping_is_left_out_with_a_warning(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 1, "c": 2})
    (root / "b" / "0.png").write_bytes(b"")
    with pytest.warns(NoiseAuditWarning, match="no picture of 'b' can be read; left out"):
        dataset = load(root)
    assert dataset.class_names == ("a", "c")
    assert dataset.label_names().tolist() == ["a", "a", "c", "c"]


def test_one_class_left_by_skipping_is_an_error(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 1})
    (root / "b" / "0.png").write_bytes(b"")
    with (
        pytest.warns(NoiseAuditWarning, match="left out"),
        pytest.raises(DataError, match="one class only, 'a'"),
    ):
        load(root)


def test_all_unreadable(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 2 .* 'a/0.png': file is empty"):
        load(tmp_path)


def test_links_are_followed_and_loops_end(tmp_path):
    root = make_folder(tmp_path / "root", {"a": 2})
    make_folder(tmp_path / "elsewhere", {"b": 2})
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "2.png").symlink_to(root / "a" / "0.png")
    (root / "a" / "broken.png").symlink_to(root / "absent.png")
    (root / "a" / "loop").symlink_to(root / "a")
    dataset = load(root)
    assert np.bincount(dataset.labels).tolist() == [3, 2]
    assert [s.reason for s in dataset.skipped] == ["file is missing"]


ODD = ["a,b", "'quote\"", "<script>alert(1)<", "=1+1", "new\nline", "\N{SNOWMAN}", "\udce9"]


def test_odd_names_survive(tmp_path):
    plain = make_folder(tmp_path / "plain", {"a": 2})
    for name in ODD:
        (tmp_path / "odd" / name).mkdir(parents=True)
        for i in range(2):
            os.link(plain / "a" / f"{i}.png", tmp_path / "odd" / name / f"{name}{i}.png")
    for _ in range(2):
        dataset = load(tmp_path / "odd")
        assert dataset.class_names == tuple(sorted(ODD))
        assert dataset.sources.tolist() == sorted(f"{n}/{n}{i}.png" for n in ODD for i in range(2))
        assert all((dataset.root / source).exists() for source in dataset.sources.tolist())
    assert dataset.fingerprint


def test_image_size_and_device(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2}, size=(200, 150))
    assert load(root).input_shape == (3, 64, 64)
    assert load(root, device="cpu", image_size=24).input_shape == (3, 24, 24)


def test_cuda_allows_larger_pictures(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    root = make_folder(tmp_path, {"a": 2, "b": 2}, size=(200, 150))
    assert load(root).input_shape == (3, 128, 128)


def test_progress_counts_pictures_on_stderr(tmp_path, capsys, monkeypatch):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    load(root, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding pictures" in err
    load(root, limit=2 * 2, image_size=16)
    assert capsys.readouterr().err == ""


def test_real_photos(real_data):
    dataset = load(real_data / "photos")
    assert len(dataset) == 500
    assert dataset.num_classes == 10
    assert dataset.input_shape == (3, 64, 64)
    assert (dataset.split == "train").sum() == 400
    assert dataset.skipped == ()
    assert dataset.sources[0].startswith("train/cassette_player/")
    val = load(real_data / "photos", split="val", limit=30)
    assert np.bincount(val.labels).tolist() == [3] * 10
    assert val.ids.min() >= 400
    assert np.array_equal(val.inputs, dataset.inputs[val.ids])

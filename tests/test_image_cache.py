"""The cache of decoded pictures: what is read, decoded, kept and skipped."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noiseaudit import images
from noiseaudit.errors import DataError, NoiseAuditWarning, OutputError
from noiseaudit.image_cache import load_pictures
from tests._data import make_folder, make_picture


@pytest.fixture
def calls(monkeypatch):
    """The files whose header was read and whose pixels were decoded, as they come."""
    log = {"read": [], "decoded": []}
    read, decode = images.read_header, images.decode_picture

    def read_header(path):
        log["read"].append(path.name)
        return read(path)

    def decode_picture(path, size, *, grey):
        log["decoded"].append(path.name)
        return decode(path, size, grey=grey)

    monkeypatch.setattr(images, "read_header", read_header)
    monkeypatch.setattr(images, "decode_picture", decode_picture)
    return log


@pytest.fixture
def store():
    return Path(os.environ["NOISEAUDIT_CACHE"]) / "pixels"


def load(root, files=None, **options):
    files = files or sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    return load_pictures(root, files, cap=lambda: 64, **options)


def test_pixels_are_memory_mapped_and_read_only(tmp_path):
    root = make_folder(tmp_path, {"a": 3})
    pictures = load(root)
    assert isinstance(pictures.pixels, np.memmap)
    assert not pictures.pixels.flags.writeable
    assert pictures.pixels.shape == (3, 8, 10, 3)
    assert np.array_equal(pictures.pixels[1], np.asarray(Image.open(root / "a" / "1.png")))
    assert pictures.kept.tolist() == [0, 1, 2]
    assert pictures.reasons == {}


def test_second_load_reads_and_decodes_nothing(tmp_path, calls):
    root = make_folder(tmp_path, {"a": 3})
    first = load(root)
    assert (len(calls["read"]), len(calls["decoded"])) == (3, 3)
    second = load(root)
    assert (len(calls["read"]), len(calls["decoded"])) == (3, 3)
    assert second.key == first.key
    assert np.array_equal(second.pixels, first.pixels)


def test_changed_file_is_read_again_alone_and_decoded(tmp_path, calls):
    root = make_folder(tmp_path, {"a": 3})
    first = load(root)
    make_picture(77).save(root / "a" / "1.png")
    calls["read"].clear()
    second = load(root)
    assert calls["read"] == ["1.png"]
    assert second.key != first.key
    assert np.array_equal(second.pixels[1], np.asarray(make_picture(77)))
    assert np.array_equal(second.pixels[0], first.pixels[0])


def test_touched_file_is_read_but_not_decoded(tmp_path, calls):
    root = make_folder(tmp_path, {"a": 3})
    load(root)
    os.utime(root / "a" / "1.png", (1, 1))
    calls["decoded"].clear()
    load(root)
    assert calls["decoded"] == []
    assert calls["read"].count("1.png") == 2


def test_moved_folder_finds_the_pixels_after_one_hashing_pass(tmp_path, calls):
    root = make_folder(tmp_path / "old", {"a": 3})
    first = load(root)
    shutil.move(root, tmp_path / "new")
    second = load(tmp_path / "new")
    assert len(calls["read"]) == 6
    assert len(calls["decoded"]) == 3
    assert second.key == first.key


def test_working_size_and_colour_are_part_of_the_key(tmp_path):
    root = make_folder(tmp_path, {"a": 2}, mode="L")
    plain = load(root)
    assert plain.pixels.shape == (2, 8, 10)
    larger = load(root, image_size=16)
    assert larger.pixels.shape == (2, 16, 16)
    assert larger.key != plain.key


def test_one_colour_picture_makes_all_colour(tmp_path):
    make_folder(tmp_path, {"a": 2}, mode="L")
    make_folder(tmp_path, {"b": 1}, mode="RGB")
    pixels = load(tmp_path).pixels
    assert pixels.shape == (3, 8, 10, 3)
    assert np.array_equal(pixels[0, ..., 0], pixels[0, ..., 2])


def test_mixed_sizes_become_one_square(tmp_path):
    make_folder(tmp_path, {"a": 2}, size=(40, 50))
    make_folder(tmp_path, {"b": 1}, size=(300, 20))
    assert load(tmp_path).pixels.shape == (3, 40, 40, 3)


def test_cap_is_not_asked_for_with_an_explicit_size(tmp_path):
    root = make_folder(tmp_path, {"a": 1})
    found = load_pictures(root, ["a/0.png"], cap=lambda: pytest.fail("asked"), image_size=8)
    assert found.pixels.shape[:3] == (1, 8, 8)


@pytest.fixture
def broken(tmp_path):
    """Five files, of which the one in the middle and the last two cannot be read."""
    root = make_folder(tmp_path / "broken", {"a": 4}, size=(40, 40), suffix="jpg")
    (root / "a" / "1.jpg").write_bytes((root / "a" / "1.jpg").read_bytes()[:-300])
    (root / "a" / "3.jpg").write_bytes(b"")
    return root, ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg"]


def test_unreadable_files_are_told_and_the_rest_kept(broken, calls):
    root, files = broken
    for _ in range(2):  # the second time from the cache
        pictures = load(root, files)
        assert pictures.kept.tolist() == [0, 2]
        assert len(pictures.pixels) == 2
        assert pictures.reasons == {
            1: "truncated: the file ends too early",
            3: "file is empty",
            4: "file is missing",
        }
        assert np.array_equal(pictures.pixels[1], np.asarray(Image.open(root / "a" / "2.jpg")))
    assert len(calls["decoded"]) == 3


@pytest.mark.parametrize("index", [1, 3, 4])
def test_all_unreadable_is_an_error_with_the_first_reason(broken, index):
    root, files = broken
    with pytest.raises(DataError, match="none of the 1 pictures can be read; first 'a/"):
        load(root, [files[index]])


def test_decompression_bomb_is_skipped_and_pillow_left_alone(tmp_path, monkeypatch):
    root = make_folder(tmp_path, {"a": 2})
    make_picture(size=(30, 30)).save(root / "a" / "bomb.png")
    make_picture(size=(60, 60)).save(root / "a" / "worse.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    pictures = load(root)
    assert pictures.kept.tolist() == [0, 1]
    assert all("decompression bomb" in pictures.reasons[i] for i in (2, 3))
    assert Image.MAX_IMAGE_PIXELS == 500
    with pytest.warns(Image.DecompressionBombWarning):  # the filters are as before
        Image.open(root / "a" / "bomb.png")


def test_pipes_and_odd_paths_are_skipped(tmp_path):
    root = make_folder(tmp_path, {"a": 1})
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "dir.png").mkdir()
    reasons = load(root, ["a/0.png", "a/pipe.png", "a/dir.png", "a/\0.png"]).reasons
    assert sorted(reasons) == [1, 2, 3]


def test_killed_half_way_leaves_nothing_that_looks_finished(tmp_path, monkeypatch, store):
    root = make_folder(tmp_path, {"a": 4})
    decode = images.decode_picture

    def interrupted(path, size, *, grey):
        if path.name == "2.png":
            raise KeyboardInterrupt
        return decode(path, size, grey=grey)

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(root)
    assert list(store.glob("*.npy")) == []
    assert list(store.glob("*.part")) == []
    assert len(load(root).pixels) == 4


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage"])
def test_damaged_cache_is_rebuilt(tmp_path, store, damage, calls):
    root = make_folder(tmp_path, {"a": 2})
    first = np.array(load(root).pixels)
    for path in [*store.glob("*.npy"), *store.parent.glob("index/*.npz")]:
        path.write_bytes(damage)
    assert np.array_equal(load(root).pixels, first)
    assert (len(calls["read"]), len(calls["decoded"])) == (4, 4)


def test_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch, store):
    root = make_folder(tmp_path, {"a": 2})
    decode = images.decode_picture

    def changing(path, size, *, grey):
        os.utime(path, (1, 1))
        return decode(path, size, grey=grey)

    monkeypatch.setattr(images, "decode_picture", changing)
    with pytest.raises(DataError, match="changed while it was being read"):
        load(root)
    assert list(store.glob("*.npy")) == []


def test_file_that_vanishes_while_it_is_read_is_not_remembered(tmp_path, monkeypatch, store):
    root = make_folder(tmp_path, {"a": 2})
    decode = images.decode_picture

    def vanishing(path, size, *, grey):
        (root / "a" / "1.png").unlink(missing_ok=True)
        return decode(path, size, grey=grey)

    monkeypatch.setattr(images, "decode_picture", vanishing)
    with pytest.raises(DataError, match=r"1\.png vanished"):
        load(root)
    assert list(store.glob("*.json")) == []


def test_old_leftovers_are_removed_and_fresh_ones_not(tmp_path, store):
    store.mkdir(parents=True)
    for name, age in (("old.1.part", 2 * 86400), ("fresh.2.part", 60)):
        (store / name).touch()
        os.utime(store / name, (time.time() - age,) * 2)
    load(make_folder(tmp_path, {"a": 1}))
    assert [path.name for path in store.glob("*.part")] == ["fresh.2.part"]


def test_cache_that_cannot_be_written_falls_back_with_a_warning(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "pictures", {"a": 1})
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOISEAUDIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(NoiseAuditWarning, match="set NOISEAUDIT_CACHE"):
        assert len(load(root).pixels) == 1


def test_full_disk_is_an_error_that_names_the_way_out(tmp_path, monkeypatch, store):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"No space left.*NOISEAUDIT_CACHE"):
        load(make_folder(tmp_path, {"a": 1}))
    assert list(store.iterdir()) == []


def test_names_may_hold_anything_the_system_allows(tmp_path, calls):
    root = make_folder(tmp_path, {"a": 1})
    names = ["new\nline.png", "quote'\".png", "<script>.png", "\N{PILE OF POO}.png", "\udcff.png"]
    for seed, name in enumerate(names):
        make_picture(seed).save(root / "a" / "0.tmp", "PNG")
        (root / "a" / "0.tmp").rename(root / "a" / name)
    files = [f"a/{name}" for name in names]
    assert load(root, files).reasons == {}
    load(root, files)
    assert len(calls["read"]) == len(names)

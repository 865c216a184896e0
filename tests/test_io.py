import csv
import errno
import json

import numpy as np
import pytest

from noiseaudit import _io
from noiseaudit.errors import OutputError


def test_atomic_file_keeps_the_old_content_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way():
        with _io.atomic_file(path) as file:
            file.write(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_io.os, "fsync", full)
    with pytest.raises(OutputError, match=r"no space left while writing .*a\.json"):
        _io.write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_make_folder_says_when_a_file_is_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        _io.make_folder(tmp_path / "out")


def test_unwritable_folder_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(_io.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"cannot be written .*choose another output folder"):
        _io.make_folder(tmp_path)


def test_csv_neutralises_formulas_and_keeps_everything_else(tmp_path):
    cells = [
        "=1+1",
        "+x",
        "-x",
        "@x",
        "-3",
        "-2.5e3",
        "plain",
        'a,"b"',
        "two\nlines",
        "a\rb",
        "😀",
        7,
        -7,
    ]
    _io.write_csv(tmp_path / "a.csv", ["cell"], [[cell] for cell in cells])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        read = [row[0] for row in csv.reader(file)][1:]
    assert read[:4] == ["'=1+1", "'+x", "'-x", "'@x"]
    assert read[4:] == ["-3", "-2.5e3", "plain", 'a,"b"', "two\nlines", "a\rb", "😀", "7", "-7"]


def test_csv_with_a_name_that_is_not_utf8_stays_readable(tmp_path):
    _io.write_csv(tmp_path / "a.csv", ["path"], [["caf\udce9.png"]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "path\ncaf\\udce9.png\n"


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        _io.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_json_round_trip_and_unreadable_file(tmp_path):
    _io.write_json(tmp_path / "a.json", {"name": "é", "values": [1, 2.5, None]})
    assert _io.read_json(tmp_path / "a.json") == {"name": "é", "values": [1, 2.5, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(OutputError, match=r"b\.json cannot be read as JSON"):
        _io.read_json(tmp_path / "b.json")


def test_npz_never_pickles(tmp_path):
    with pytest.raises(TypeError, match="names"):
        _io.write_npz(tmp_path / "a.npz", {"names": np.array(["a", 1], dtype=object)})
    _io.write_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["x"].tolist() == [0, 1, 2]


def test_json_is_utf8_text(tmp_path):
    _io.write_json(tmp_path / "a.json", {"emoji": "😀"})
    assert json.loads((tmp_path / "a.json").read_bytes().decode("utf-8")) == {"emoji": "😀"}


def test_npz_comes_back_and_damage_is_told(tmp_path):
    path = tmp_path / "a.npz"
    _io.write_npz(path, {"x": np.arange(3), "y": np.ones(2)})
    assert _io.read_npz(path)["x"].tolist() == [0, 1, 2]
    assert list(_io.read_npz(path, ["y"])) == ["y"]
    for names, damage in ((["z"], None), (None, b"PK\x03\x04 cut"), (None, b"")):
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(OutputError, match=r"a\.npz cannot be read.*--no-resume"):
            _io.read_npz(path, names)

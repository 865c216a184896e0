"""One picture: every mode to uint8, thumbnails, data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from noiseaudit.errors import DataError, UsageError
from noiseaudit.images import (
    check_image_size,
    data_uri,
    decode_picture,
    picture_extensions,
    pillow_warnings,
    read_header,
    thumbnail,
    unreadable_reason,
    working_size,
)
from tests._data import corners, make_picture, quadrants

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


def decoded(path, *, grey=False):
    header = read_header(path)
    return decode_picture(path, (header.width, header.height), grey=grey)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "LAB"])
def test_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "a.tif"
    make_picture(mode=mode).save(path)
    assert not read_header(path).is_grey
    assert decoded(path).shape == (8, 10, 3)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_modes_are_grey(tmp_path, mode):
    path = tmp_path / "a.png"
    make_picture(mode=mode).save(path)
    assert read_header(path).is_grey
    assert decoded(path, grey=True).shape == (8, 10)


def test_grey_pixels_are_kept_exactly(tmp_path):
    pixels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decoded(tmp_path / "a.png", grey=True), pixels)


def test_bilevel_is_black_and_white(tmp_path):
    bits = np.eye(8, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").is_grey
    assert np.array_equal(decoded(tmp_path / "a.png", grey=True), bits * np.uint8(255))


def test_lab_keeps_the_colour(tmp_path):
    # CIE L*a*b* of sRGB red is (53, 80, 67); Pillow stores L * 255 / 100 and signed a, b.
    pixels = np.full((4, 4, 3), (136, 80, 67), np.uint8)
    Image.frombytes("LAB", (4, 4), pixels.tobytes()).save(tmp_path / "a.tif")
    red, green, blue = decoded(tmp_path / "a.tif")[0, 0]
    assert red > 240
    assert max(green, blue) < 40


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 65535], [0, 1, 255]),  # by 257
        ([0, 100, 255], [0, 100, 255]),  # 8 bits in a 16-bit file: as they are
    ],
)
def test_sixteen_bit_grey(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.uint16)).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").is_grey
    assert decoded(tmp_path / "a.png", grey=True)[0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),  # stretched
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
        (np.array([[0, 200, 1000]], np.float32), [0, 51, 255]),
        (np.array([[7, 7]], np.float32), [0, 0]),  # nothing to stretch
    ],
)
def test_wide_grey_is_scaled(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert decoded(tmp_path / "a.tif", grey=True)[0].tolist() == expected


def test_float_picture_with_nan_is_unreadable(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="NaN"):
        decoded(tmp_path / "a.tif", grey=True)


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 127]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png")[0].tolist() == [RED, WHITE, [128, 128, 128]]


def test_transparent_palette_entry_becomes_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=1)
    assert decoded(tmp_path / "a.png")[0].tolist() == [RED, WHITE]


def test_grey_with_a_transparent_value(tmp_path):
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(tmp_path / "a.png", transparency=0)
    assert read_header(tmp_path / "a.png").is_grey
    assert decoded(tmp_path / "a.png", grey=True)[0].tolist() == [255, 9]


@pytest.mark.parametrize(("palette", "is_grey"), [([9, 9, 9, 7, 7, 7], True), ([9, 9, 8], False)])
def test_palette_is_grey_when_its_used_colours_are(tmp_path, palette, is_grey):
    picture = Image.new("P", (2, 1))
    picture.putpalette([*palette, *([200, 0, 0] * 5)])  # never used
    picture.save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").is_grey == is_grey


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (6, [BLUE, RED, WHITE, GREEN]),  # stored lying on its left side: turned clockwise
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied(tmp_path, orientation, expected, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    quadrants().save(path, exif=exif)
    header = read_header(path)
    turned = orientation >= 5
    assert (header.width, header.height) == ((16, 32) if turned else (32, 16))
    found = decoded(path)
    assert np.abs(np.array(corners(found), int) - expected).max() < 12  # JPEG's loss
    small = np.asarray(thumbnail(path, 16))
    assert small.shape == ((16, 8, 3) if turned else (8, 16, 3))
    assert np.abs(np.array(corners(small), int) - expected).max() < 30


def test_broken_exif_is_ignored(tmp_path):
    quadrants().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 9)
    with pillow_warnings():
        found = decoded(tmp_path / "a.jpg")
    assert np.abs(np.array(corners(found), int) - [RED, GREEN, BLUE, WHITE]).max() < 12


def test_cmyk_jpeg(tmp_path):
    quadrants().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    found = np.array(corners(decoded(tmp_path / "a.jpg")), int)
    assert np.abs(found - [RED, GREEN, BLUE, WHITE]).max() < 12


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decoded(tmp_path / "a.gif")[0, 0].tolist() == RED


def test_planar_tiff_with_several_pages(tmp_path):
    pages = [make_picture(seed) for seed in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(decoded(tmp_path / "a.tif"), np.asarray(pages[0]))
    assert TiffImagePlugin.READ_LIBTIFF is False  # no global switch of Pillow's was touched


def test_resizing_squashes_and_crops_nothing(tmp_path):
    quadrants(640, 160).save(tmp_path / "a.jpg", quality=95)
    found = decode_picture(tmp_path / "a.jpg", (32, 32), grey=False)
    assert found.shape == (32, 32, 3)
    assert np.abs(np.array(corners(found), int) - [RED, GREEN, BLUE, WHITE]).max() < 12


def test_working_size():
    def of(*sizes, cap=64, image_size=None):
        return working_size(np.array(sizes), cap=cap, image_size=image_size)

    assert of((28, 20), (28, 20)) == (28, 20)  # one small size: exactly
    assert of((64, 64)) == (64, 64)
    assert of((65, 65)) == (64, 64)  # large: a square, a multiple of 8
    assert of((50, 47), (30, 90), (40, 41)) == (40, 40)  # median of 47, 30, 40
    assert of((200, 300), (400, 200)) == (64, 64)
    assert of((200, 300), (400, 200), cap=128) == (128, 128)
    assert of((3, 3), (4, 5)) == (8, 8)
    assert of((28, 28), image_size=100) == (100, 100)


@pytest.mark.parametrize("value", [7, 1025, 16.0, "16", True])
def test_bad_image_size(value):
    with pytest.raises(UsageError, match="image_size must be"):
        check_image_size(value)


def test_extensions_hold_pictures_only():
    extensions = picture_extensions()
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".gif", ".bmp"} <= extensions
    assert not {".h5", ".hdf", ".mpg", ".txt", ".pdf", ""} & extensions


def test_reasons_are_short_and_plain(tmp_path):
    quadrants().save(tmp_path / "a.jpg")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])

    def reason(name):
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the words are what is tested
            decoded(tmp_path / name)
        return unreadable_reason(caught.value)

    assert reason("text.png") == "not a picture that Pillow can read"
    assert reason("cut.jpg") == "truncated: the file ends too early"
    assert reason("absent.png") == "file is missing"
    assert unreadable_reason(MemoryError()) == "does not fit in memory"
    assert unreadable_reason(PermissionError(13, "Permission denied")).endswith("Permission denied")
    assert len(unreadable_reason(ValueError("word " * 500))) < 200


def test_thumbnail_of_an_array_keeps_aspect_and_never_enlarges():
    assert thumbnail(np.zeros((100, 50, 3), np.uint8), 20).size == (10, 20)
    assert thumbnail(np.zeros((8, 8), np.uint8), 20).size == (8, 8)
    assert thumbnail(np.zeros((8, 8, 1), np.uint8), 20).mode == "L"


def test_thumbnail_refuses_what_is_no_picture(tmp_path):
    with pytest.raises(DataError, match="file is missing"):
        thumbnail(tmp_path / "absent.png", 20)
    with pytest.raises(DataError, match="float64"):
        thumbnail(np.zeros((8, 8)), 20)
    with pytest.raises(DataError, match=r"\(3, 8, 8\)"):
        thumbnail(np.zeros((3, 8, 8), np.uint8), 20)
    with pytest.raises(UsageError, match="side must be at least 1"):
        thumbnail(np.zeros((8, 8), np.uint8), 0)


@pytest.mark.parametrize(("side", "kind", "loss"), [(64, "png", 0), (65, "jpeg", 12)])
def test_data_uri_round_trip(side, kind, loss):
    picture = quadrants(side, side)
    head, body = data_uri(picture).split(",")
    assert head == f"data:image/{kind};base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert np.abs(np.array(corners(found), int) - corners(np.asarray(picture))).max() <= loss


def test_data_uri_of_a_large_picture_with_alpha():
    assert data_uri(Image.new("RGBA", (70, 70))).startswith("data:image/jpeg;base64,")

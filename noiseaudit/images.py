"""One picture at a time: its header, its pixels as uint8, a thumbnail for the report."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from noiseaudit._io import digest_stream
from noiseaudit.errors import DataError, UsageError

__all__ = [
    "UNREADABLE",
    "Header",
    "check_image_size",
    "composite_on_white",
    "data_uri",
    "decode_picture",
    "open_picture",
    "picture_extensions",
    "pillow_warnings",
    "read_header",
    "resize_array",
    "thumbnail",
    "unreadable_reason",
    "working_size",
]

_SMALL = 64  # up to this side pictures of one size are kept as they are
_SIDES = (8, 1024)  # the working sizes that may be asked for
_PNG_SIDE = 64  # a JPEG of a smaller picture shows blocks and saves next to nothing
_ORIENTATION = 0x0112  # the EXIF tag
_NOT_PICTURES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})  # Pillow knows the names, not the data

UNREADABLE = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's plugins raise on a broken file; there is no common base class."""


@dataclass(frozen=True)
class Header:
    """What is known of a picture file before its pixels are decoded.

    Attributes:
        digest: 16-byte BLAKE2b of the file's bytes.
        width: of the upright picture where both sides are small, else as stored.
        height: likewise.
        is_grey: whether the picture has no colour channel (a palette counts by its used colours).
    """

    digest: bytes
    width: int
    height: int
    is_grey: bool


def picture_extensions() -> frozenset[str]:
    """The file extensions, lower case with the dot, of the pictures that Pillow can open."""
    known = Image.registered_extensions()  # calls Image.init(), which is not thread-safe
    readable = Image.OPEN.keys() - _NOT_PICTURES
    return frozenset(extension for extension, name in known.items() if name in readable)


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Make a decompression bomb an error and silence Pillow's other remarks in the block.

    The warning filters are the process's, not the thread's: enter it once around a pool of
    threads, never inside them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def unreadable_reason(error: BaseException) -> str:
    """A few words for the person who looks at the list of skipped files."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels: it could be a decompression bomb"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    if isinstance(error, FileNotFoundError):
        return "file is missing"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or any(word in text.lower() for word in ("truncated", "end of")):
        return "truncated: the file ends too early"
    return f"cannot be decoded: {text[:160] or type(error).__name__}"


def read_header(path: Path) -> Header:
    """Digest, size and greyness of a picture file; a palette's pixels are decoded to tell the last.

    Raises:
        OSError: and the rest of `UNREADABLE`, if it cannot be read.
    """
    with path.open("rb") as file:
        digest = digest_stream(file)
        file.seek(0)
        with Image.open(file) as image:
            width, height = image.size
            is_grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F"))
            if max(width, height) <= _SMALL and _orientation(image) >= 5:
                width, height = height, width
            if image.mode in ("P", "PA"):
                colours = np.asarray(image.convert("RGB"))
                is_grey = bool((colours == colours[..., :1]).all())
    return Header(digest, width, height, is_grey)


def check_image_size(
    image_size: int | None, *, sides: tuple[int, int] = _SIDES, what: str = "image_size"
) -> None:
    """Check the side in pixels that somebody asks for; by default of working copies.

    Raises:
        UsageError: if it is neither None nor a whole number from the first to the last of `sides`.
    """
    if image_size is None:
        return
    if isinstance(image_size, bool) or not isinstance(image_size, int):
        raise UsageError(f"{what} must be a whole number; got {image_size!r}")
    if not sides[0] <= image_size <= sides[1]:
        raise UsageError(f"{what} must be in {sides[0]}..{sides[1]}; got {image_size}")


def working_size(
    sizes: NDArray[np.int64], *, cap: int, image_size: int | None = None
) -> tuple[int, int]:
    """The (width, height) that pictures of these `sizes`, (n, 2) of width and height, get.

    Pictures of one size and at most 64 pixels a side are kept exactly. All others become a square:
    the median of their shorter sides, rounded down to a multiple of 8 (pooling halves sides three
    times), at least 8 and at most `cap`. The aspect is squashed; nothing is cropped away.
    `image_size` overrides all this.
    """
    if image_size is not None:
        return image_size, image_size
    first = sizes[0]
    if (sizes == first).all() and first.max() <= _SMALL:
        return int(first[0]), int(first[1])
    side = int(np.median(sizes.min(axis=1))) // 8 * 8
    side = min(max(side, 8), cap)
    return side, side


def decode_picture(path: Path, size: tuple[int, int], *, grey: bool) -> NDArray[np.uint8]:
    """The first frame of a picture file: (h, w) uint8 if `grey`, else (h, w, 3), for (w, h) `size`.

    EXIF rotation is applied and transparency laid over white. 16-bit greys are divided by 257
    unless they stay within 0..255 anyway; floats are taken as 0..1 or else stretched from their
    lowest to their highest value.

    Raises:
        OSError: and the rest of `UNREADABLE`, if it cannot be read.
    """
    with Image.open(path) as image:
        # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time; twice the wanted size
        # leaves the last step to the good filter.
        image.draft(None, (2 * size[0], 2 * size[1]))  # None: mode kept
        picture = _to_eight_bits(_upright(image))
    picture = picture.convert("L" if grey else "RGB")
    return np.asarray(_resized(picture, size))


def open_picture(data: bytes, side: int | None = None) -> tuple[Image.Image, NDArray[Any] | None]:
    """The first frame of a picture file in full size and upright: L or RGB, by the same rules.

    With it the pixels by which it is identical to another: with their transparency and all their
    bits, which L and RGB lose; None of several frames, which are identical as files only.

    Args:
        data: the file's bytes.
        side: decode a JPEG reduced, to no less than twice this; its pixels identify nothing then.

    Raises:
        OSError: and the rest of `UNREADABLE`, if it cannot be read.
    """
    with Image.open(io.BytesIO(data)) as image:
        if side is not None:
            image.draft(None, (2 * side, 2 * side))
        frames = getattr(image, "n_frames", 1)
        upright = _upright(image)
        picture = _to_eight_bits(upright)
        if frames > 1:
            return picture, None
        if upright.mode.startswith(("I", "F")):
            return picture, np.asarray(upright)
        if upright.has_transparency_data:
            pixels = np.asarray(upright.convert("RGBA"))
            if (pixels[..., 3] < 255).any():
                return picture, pixels
        return picture, np.asarray(picture)


def resize_array(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A uint8 picture (h, w) or (h, w, 3) brought to (w, h) `size` as `decode_picture` does."""
    return np.asarray(_resized(Image.fromarray(pixels), size))


def thumbnail(picture: Path | str | NDArray[np.uint8], side: int) -> Image.Image:
    """A picture for a report: grey or RGB, at most `side` pixels wide and high, aspect kept.

    Args:
        picture: a picture file, or a uint8 array (h, w), (h, w, 1) or (h, w, 3).
        side: the longest side; a smaller picture is not enlarged.

    Raises:
        DataError: if the file cannot be read, or the array is no such picture.
        UsageError: if `side` is less than 1.
    """
    if side < 1:
        raise UsageError(f"side must be at least 1; got {side}")
    if isinstance(picture, np.ndarray):
        result = _from_array(picture)
    else:
        try:
            with Image.open(picture) as image:
                image.draft(None, (2 * side, 2 * side))
                result = _to_eight_bits(_upright(image))
        except UNREADABLE as error:
            raise DataError(f"{picture}: {unreadable_reason(error)}") from error
    result.thumbnail((side, side), Image.Resampling.LANCZOS)
    return result


def data_uri(image: Image.Image, *, png_side: int = _PNG_SIDE) -> str:
    """A base64 data URI: PNG up to `png_side` pixels a side, JPEG at quality 85 above."""
    buffer = io.BytesIO()
    if max(image.size) <= png_side:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
        plain.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def composite_on_white(image: Image.Image) -> Image.Image:
    """An RGB picture of one that has transparency in any form."""
    plain = image.convert("LA") if image.mode == "La" else image
    layer = plain.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    squeezed = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    shape: Sequence[int] = squeezed.shape
    if squeezed.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise DataError(
            "a picture must be uint8 of shape (h, w) or (h, w, 3); "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(squeezed))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; a broken EXIF block says nothing, and viewers ignore it too."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # so that what the next step may fail on is the EXIF block alone
    if _orientation(image) == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    if picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Any mode to L or RGB."""
    if image.mode.startswith(("I", "F")):
        return _rescaled(image)
    if image.has_transparency_data:
        flat = composite_on_white(image)
        return flat.convert("L") if image.mode in ("1", "L", "LA", "La") else flat
    if image.mode == "LAB":
        return _from_lab(image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # a library of its own, for the one mode that convert() refuses

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("LAB picture cannot be converted")
    return converted


def _rescaled(image: Image.Image) -> Image.Image:
    """Wide greys to L. One rule for I and I;16: which of them a file opens as varies by version."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it holds NaN or infinity")
    is_float = image.mode.startswith("F")
    if is_float and low >= 0 and high <= 1:
        values *= 255
    elif not is_float and low >= 0 and high <= 65535:
        values /= 1 if high <= 255 else 257
    else:
        values = (values - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(np.rint(values).astype(np.uint8))

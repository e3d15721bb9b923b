"""Bytes to an upright RGB image, whatever people have; or one clear reason why not.

bytes -> format by content (never by name) -> first frame -> upright (EXIF) -> 8 bits -> RGB

The rules, where there is a choice:

* transparency (RGBA, LA, palette, or a colour key) is laid on **white**;
* 16-bit grey is divided by 257 (65535 becomes 255): a fixed scale, so that brightness still means
  something between images;
* 32-bit integers are read as 0..65535 when they fit, floats as 0..1, 0..255 or 0..65535 (the
  first that fits); anything else is stretched from its darkest to its brightest value, NaN being
  dark;
* CMYK, YCbCr, LAB and HSV are converted without colour profiles, like torchvision does;
* of animations and multi-page files the first frame counts.
"""

import contextlib
import ctypes
import io
import math
import re
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitrail.data.limits import (
    BYTES_PER_PIXEL,
    FREE_PIXELS,
    MAX_ASPECT,
    MAX_PIXELS,
    MAX_SCANNED,
    PIXELS_PER_BYTE,
    PIXELS_PER_BYTE_OF,
    MemoryGate,
)
from vitrail.errors import UserError, printable

#: Formats that are opened. EPS and the like are left out: they would start another program.
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000",
)  # fmt: skip

#: File endings taken for images, in any case.
ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
))  # fmt: skip

#: Images that Pillow alone cannot read: worth a line each, not silence.
UNSUPPORTED = frozenset((
    ".heic", ".heif", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raw", ".svg", ".psd",
))  # fmt: skip

_SCAN = re.compile(rb"\xff\xda\x00[\x06\x08\x0a\x0c][\x01-\x04]")
_PIXELS_AT_ONCE = 1 << 22  # converted in one go


class ImageError(UserError):
    """An image that cannot be used: ``kind`` is a key of ``KINDS``."""

    def __init__(self, reason: str, kind: str = "broken"):
        super().__init__(reason)
        self.kind = kind


def decode(data: bytes, *, short_side: int | None = None) -> Image.Image:
    """The upright RGB image in ``data``.

    ``short_side`` lets JPEGs be decoded at a half, a quarter or an eighth of their size, as long
    as the short side stays at least that long: several times faster for photographs.

    Raises:
        ImageError: with the reason, for damaged, oversized or foreign data.
    """
    image = _open(data)
    try:
        if short_side:
            _draft(image, short_side)
        _load(image)
        image = _upright(image)
        return to_rgb(image)
    except Exception as error:  # whatever a decoder raises on damage
        raise _as_image_error(error) from error


def decode_values(data: bytes) -> Image.Image:
    """The image in ``data`` as it is stored: own mode, not turned. For masks.

    Raises:
        ImageError: as :func:`decode`.
    """
    image = _open(data)
    try:
        image.load()
    except Exception as error:  # whatever a decoder raises on damage
        raise _as_image_error(error) from error
    return image


def probe(data: bytes, gate: MemoryGate | None = None) -> tuple[int, int]:
    """Read all of ``data`` and return (width, height), upright; the cheapest full check.

    ``gate`` bounds what several threads decode at once.

    Raises:
        ImageError: as :func:`decode`.
    """
    image = _open(data)
    size = image.size
    try:
        _draft(image, 1)
        with (gate or MemoryGate()).hold(BYTES_PER_PIXEL * image.width * image.height):
            _load(image)
            to_rgb(image.crop((0, 0, 1, 1)))  # what cannot become RGB cannot be used
            turned = 5 <= _orientation(image) <= 8
            image.close()
    except Exception as error:  # whatever a decoder raises on damage
        raise _as_image_error(error) from error
    return (size[1], size[0]) if turned else size


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by the rules above."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _by_rows(image, "L", _from_16_bits).convert("RGB")
    if image.mode in ("I", "F"):
        return _by_rows(image, "L", _to_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        return _by_rows(image, "RGB", _on_white)
    return image.convert("RGB")


def _row_blocks(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in pieces of whole rows, each with its top; one piece, where it is small."""
    width, height = image.size
    step = max(1, _PIXELS_AT_ONCE // width)
    if step >= height:
        yield 0, image
        return
    for top in range(0, height, step):
        yield top, image.crop((0, top, width, min(top + step, height)))


def _by_rows(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """``convert`` some rows at a time, so that a large image needs little beside itself."""
    whole = Image.new(mode, image.size)
    for top, rows in _row_blocks(image):
        whole.paste(convert(rows), (0, top))
    return whole


def _on_white(image: Image.Image) -> Image.Image:
    straight = image.convert("LA") if image.mode == "La" else image  # Pillow's only way from there
    layer = straight.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(ground, layer).convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    return _grey(np.rint(np.asarray(image).astype(np.float32) / 257))


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the file has zero bytes", "empty-file")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise _unknown_format_error(data) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"more than {MAX_PIXELS:,} pixels, refused as a decompression bomb", "too-large"
        ) from error
    except Exception as error:  # whatever a reader raises on a damaged header
        raise _as_image_error(error) from error
    _check_size(image, len(data))
    _check_scans(image, data)
    return image


def _load(image: Image.Image) -> None:
    """Decode all pixels of a picture that is to become RGB.

    Raises:
        ImageError: they stand for the colours of a palette that the file lacks.
    """
    image.load()
    if image.mode in ("P", "PA") and image.palette is None:
        raise ImageError("cannot be decoded (its palette is missing)", "broken")


def _check_size(image: Image.Image, held: int) -> None:
    """Refuse, by the header alone, what would cost far more than it can be worth.

    Raises:
        ImageError: too many pixels, too thin, or more pixels than the file can hold.
    """
    width, height = image.size
    pixels, said = width * height, f"{width} x {height}"
    if pixels > MAX_PIXELS:
        end = f"is more than {MAX_PIXELS:,} pixels, refused as a decompression bomb"
        raise ImageError(f"{said} {end}", "too-large")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{said} is thinner than 1 to {MAX_ASPECT:,}; cut it up", "too-large")
    stored = all(tile[0] == "raw" for tile in image.tile) and bool(image.tile)  # type: ignore[attr-defined]
    a_byte = PIXELS_PER_BYTE_OF.get(image.format or "", PIXELS_PER_BYTE)
    most = 8 * held if stored else max(FREE_PIXELS, a_byte * held)
    if pixels > most:
        raise ImageError(
            f"the file ends too early (truncated): {held:,} bytes cannot hold {said} pixels",
            "truncated",
        )


def _check_scans(image: Image.Image, data: bytes) -> None:
    """Refuse a JPEG whose scans go over its pixels again and again.

    Raises:
        ImageError: more scans than such an image can need.
    """
    pixels = image.width * image.height
    if image.format not in ("JPEG", "MPO") or data.count(b"\xff\xda") * pixels <= MAX_SCANNED:
        return
    scans = len(_SCAN.findall(data))
    if scans * pixels > MAX_SCANNED:
        line = f"{scans:,} scans of {image.width} x {image.height} pixels, refused as a bomb"
        raise ImageError(line, "too-large")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    _silence_libtiff()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _silence_libtiff() -> None:
    """libtiff prints what it finds damaged straight to the terminal; our line says it once."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        from PIL import _imaging

        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _draft(image: Image.Image, short_side: int) -> None:
    """Let the JPEG decoder skip detail; every byte is still read, so damage is still seen."""
    if image.format == "JPEG":
        scale = short_side / min(image.size)
        image.draft(image.mode, (int(image.width * scale), int(image.height * scale)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block must not cost the image
        return 1


# EXIF orientation -> what turns the stored image upright (EXIF 2.32, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def _to_eight_bits(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What brings the values of all rows of ``image`` to 0..255, by one scale."""
    low, high = math.inf, -math.inf
    for _, rows in _row_blocks(image):
        values = _finite(rows)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    scale = partial(_scale, low=low, high=high, whole=image.mode == "I")
    return lambda rows: _grey(scale(_finite(rows)))


def _finite(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.float64)
    return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _scale(values: np.ndarray, *, low: float, high: float, whole: bool) -> np.ndarray:
    tops = (65535.0,) if whole else (1.0, 255.0, 65535.0)
    for top in tops:
        if low >= 0 and high <= top:
            return np.rint(values * (255.0 / top))
    return np.rint((values - low) * (255.0 / max(high - low, 1e-12)))


def _as_image_error(error: BaseException) -> ImageError:
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        line = f"more than {MAX_PIXELS:,} pixels, refused as a decompression bomb"
        return ImageError(line, "too-large")
    if isinstance(error, MemoryError):
        return ImageError("takes more memory than there is", "too-large")
    text = printable(" ".join(str(error).split())[:200]) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return ImageError("the file ends too early (truncated)", "truncated")
    return ImageError(f"cannot be decoded ({text})", "broken")


# How files of these formats begin, to tell a damaged one from something else.
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}


def _unknown_format_error(data: bytes) -> ImageError:
    """The reason for data that no reader takes."""
    for beginning, name in _BEGINNINGS.items():
        if data.startswith(beginning):
            return ImageError(f"cannot be decoded (a damaged {name} file)", "broken")
    return ImageError(f"no picture inside ({_looks_like(data)})", "not-a-picture")


def _looks_like(data: bytes) -> str:
    head = data[:256].removeprefix(b"\xef\xbb\xbf")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: run `git lfs pull`"
    if not head.strip(b"\0"):
        return "only zero bytes"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "plain text"
    return "unknown format"

"""Bytes to an upright RGB picture, whatever people have; or one clear reason why not.

bytes -> format by content (never by name) -> first frame -> upright (EXIF) -> 8 bits -> RGB

The rules, where there is a choice:

* transparency (RGBA, LA, palette, or a colour key) is laid on **white**;
* 16-bit grey is divided by 257 (65535 becomes 255): a fixed scale, so that brightness still means
  something between pictures;
* 32-bit integers are read as 0..65535 when they fit, floats as 0..1, 0..255 or 0..65535 (the
  first that fits); anything else is stretched from its darkest to its brightest value, NaN being
  dark;
* CMYK, YCbCr, LAB and HSV are converted without colour profiles, like torchvision does;
* of animations and multi-page files the first frame counts.
"""

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitrail.errors import UserError

#: Formats that are opened. EPS and the like are left out: they would start another program.
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000",
)  # fmt: skip

#: File endings taken for pictures, in any case.
ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
))  # fmt: skip

#: Pictures that Pillow alone cannot read: worth a line each, not silence.
UNSUPPORTED = frozenset((
    ".heic", ".heif", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raw", ".svg", ".psd",
))  # fmt: skip

#: Pictures with more pixels than this are refused before they are decoded (about 537 MB as RGB).
MAX_PIXELS = 178_956_970

# What Pillow's readers are known to raise on damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    AttributeError, struct.error, zlib.error,
)  # fmt: skip


class PictureError(UserError):
    """A picture that cannot be used: ``kind`` is a key of ``KINDS``."""

    def __init__(self, reason: str, kind: str = "broken"):
        super().__init__(reason)
        self.kind = kind


def decode(data: bytes, *, short_side: int | None = None) -> Image.Image:
    """The upright RGB picture in ``data``.

    ``short_side`` lets JPEGs be decoded at a half, a quarter or an eighth of their size, as long
    as the short side stays at least that long: several times faster for photographs.

    Raises:
        PictureError: with the reason, for damaged, oversized or foreign data.
    """
    image = _open(data)
    try:
        if short_side:
            _draft(image, short_side)
        image.load()
        return to_rgb(_upright(image))
    except _DAMAGE as error:
        raise _reason(error) from error


def probe(data: bytes) -> tuple[int, int]:
    """Read all of ``data`` and return (width, height), upright; the cheapest full check.

    Raises:
        PictureError: as :func:`decode`.
    """
    image = _open(data)
    size = image.size
    try:
        _draft(image, 1)
        image.load()
        turned = 5 <= _orientation(image) <= 8
    except _DAMAGE as error:
        raise _reason(error) from error
    return (size[1], size[0]) if turned else size


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by the rules above."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _grey(np.rint(np.asarray(image).astype(np.float32) / 257))
    if image.mode in ("I", "F"):
        return _grey(_scaled(np.asarray(image), whole=image.mode == "I"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _open(data: bytes) -> Image.Image:
    if not data:
        raise PictureError("the file has zero bytes", "empty-file")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise _stranger(data) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"more than {MAX_PIXELS:,} pixels, refused as a decompression bomb", "too-large"
        ) from error
    except _DAMAGE as error:
        raise _reason(error) from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels, "
            "refused as a decompression bomb",
            "too-large",
        )
    return image


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _draft(image: Image.Image, short_side: int) -> None:
    """Let the JPEG decoder skip detail; every byte is still read, so damage is still seen."""
    if image.format == "JPEG":
        scale = short_side / min(image.size)
        image.draft(image.mode, (int(image.width * scale), int(image.height * scale)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except _DAMAGE:  # a damaged EXIF block must not cost the picture
        return 1


# EXIF orientation -> what turns the stored picture upright (EXIF 2.32, tag 0x0112).
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
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _scaled(values: np.ndarray, *, whole: bool) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    tops = (65535.0,) if whole else (1.0, 255.0, 65535.0)
    for top in tops:
        if low >= 0 and high <= top:
            return np.rint(values * (255.0 / top))
    return np.rint((values - low) * (255.0 / max(high - low, 1e-12)))


def _reason(error: BaseException) -> PictureError:
    if isinstance(error, PictureError):
        return error
    text = str(error).split("\n")[0] or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return PictureError("the file ends too early (truncated)", "truncated")
    return PictureError(f"cannot be decoded ({text})", "broken")


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


def _stranger(data: bytes) -> PictureError:
    """The reason for data that no reader takes."""
    for beginning, name in _BEGINNINGS.items():
        if data.startswith(beginning):
            return PictureError(f"cannot be decoded (a damaged {name} file)", "broken")
    return PictureError(f"no picture inside ({_looks_like(data)})", "not-a-picture")


def _looks_like(data: bytes) -> str:
    head = data[:256]
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: run `git lfs pull`"
    if not head.strip(b"\0"):
        return "only zero bytes"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "plain text"
    return "unknown format"

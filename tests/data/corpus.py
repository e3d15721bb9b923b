"""Good, odd and bad picture files, made in memory from one small known picture."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

WIDTH, HEIGHT = 24, 16


def truth(seed: int = 0) -> np.ndarray:
    """A smooth coloured picture ``(HEIGHT, WIDTH, 3)``, another for each seed."""
    x = np.linspace(20, 230, WIDTH)[None, :].repeat(HEIGHT, 0)
    y = np.linspace(30, 220, HEIGHT)[:, None].repeat(WIDTH, 1)
    blue = np.full_like(x, (90 + 37 * seed) % 256)
    return np.rint(np.stack([x, y, blue], -1)).astype(np.uint8)


def grey() -> np.ndarray:
    return truth()[:, :, 0]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(seed: int = 0, kind: str = "PNG", **options: object) -> bytes:
    return saved(Image.fromarray(truth(seed)), kind, **options)


def three(values: np.ndarray) -> np.ndarray:
    """Grey -> RGB."""
    return np.repeat(values[:, :, None], 3, 2)


@dataclass(frozen=True)
class Good:
    """A file that must decode to ``pixels`` within ``within`` grey levels (mean absolute)."""

    name: str
    data: Callable[[], bytes]
    pixels: Callable[[], np.ndarray]
    within: float = 0.0


@dataclass(frozen=True)
class Bad:
    """A file that must be left out for this reason."""

    name: str
    data: Callable[[], bytes]
    kind: str
    says: str


# ---- odd but good -------------------------------------------------------------------------------


def _rgba() -> bytes:
    """Left half clear, right half opaque."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    return saved(Image.fromarray(np.dstack([truth(), alpha])), "PNG")


def _on_white(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[:, : WIDTH // 2] = 255
    return pixels


def _half_clear() -> bytes:
    return saved(Image.fromarray(np.dstack([truth(), np.full_like(grey(), 128)])), "PNG")


def _grey_alpha() -> bytes:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    return saved(Image.merge("LA", [Image.fromarray(grey()), Image.fromarray(alpha)]), "PNG")


def _palette(transparent: int | None = None) -> bytes:
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[:, WIDTH // 2 :] = 1
    image = Image.fromarray(indices, "P")
    image.putpalette([200, 10, 30, 20, 150, 60])
    return saved(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def _palette_pixels(left: tuple[int, int, int] = (200, 10, 30)) -> np.ndarray:
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = left, (20, 150, 60)
    return pixels


def _colour_key() -> bytes:
    """An RGB PNG in which one colour is declared transparent."""
    return saved(Image.fromarray(_palette_pixels()), "PNG", transparency=(200, 10, 30))


def _turned(orientation: int) -> bytes:
    """A JPEG stored turned, with the EXIF tag that turns it back."""
    ways = {3: 2, 6: 1, 8: -1}  # quarter turns to the left that the camera had made
    stored = np.rot90(truth(), ways[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(stored), "JPEG", quality=95, exif=exif.tobytes())


def _bad_exif() -> bytes:
    return picture(kind="JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")


def _animated(kind: str, **options: object) -> bytes:
    frames = [Image.fromarray(truth(seed)) for seed in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _gif_pixels() -> np.ndarray:
    return np.asarray(Image.fromarray(truth()).quantize(256).convert("RGB"))


def _grey16(order: str = "") -> bytes:
    values = grey().astype(np.uint16) * 257
    return saved(Image.fromarray(values), "TIFF" if order else "PNG")


def _tiff(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values), "TIFF")


def _rgb16_png() -> bytes:
    """16-bit RGB, which Pillow cannot write."""
    rows = (truth().astype(">u2") * 257).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return _png((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        check = zlib.crc32(name + body)
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", check))
    return b"".join(parts)


def _cmyk_pixels() -> np.ndarray:
    return np.asarray(Image.fromarray(truth()).convert("CMYK").convert("RGB"))


def _pages() -> bytes:
    return _animated("TIFF")


def _one_bit() -> bytes:
    return saved(Image.fromarray(grey() > 127), "PNG")


GOOD = (
    Good("rgb.png", picture, truth),
    Good("UPPER.PNG", picture, truth),
    Good("name with spaces.png", picture, truth),
    Good("grüße 写真.png", picture, truth),
    Good("really-a-png.jpg", picture, truth),
    Good("photo.jpg", lambda: picture(kind="JPEG", quality=95), truth, 2.0),
    Good("photo.jfif", lambda: picture(kind="JPEG", quality=95), truth, 2.0),
    Good("progressive.jpg", lambda: picture(kind="JPEG", quality=95, progressive=True), truth, 2.0),
    Good("grey.jpg", lambda: saved(Image.fromarray(grey()), "JPEG"), lambda: three(grey()), 2.0),
    Good("grey.png", lambda: saved(Image.fromarray(grey()), "PNG"), lambda: three(grey())),
    Good("one-bit.png", _one_bit, lambda: three((grey() > 127) * np.uint8(255))),
    Good("palette.png", _palette, _palette_pixels),
    Good("palette-clear.png", lambda: _palette(0), lambda: _palette_pixels((255, 255, 255))),
    Good("colour-key.png", _colour_key, lambda: _palette_pixels((255, 255, 255))),
    Good("rgba.png", _rgba, lambda: _on_white(truth())),
    Good("half-clear.png", _half_clear, lambda: truth() / 2 + 127.5, 1.0),
    Good("grey-alpha.png", _grey_alpha, lambda: _on_white(three(grey()))),
    Good("grey16.png", _grey16, lambda: three(grey())),
    Good("grey16.tif", lambda: _grey16("tiff"), lambda: three(grey())),
    Good("rgb16.png", _rgb16_png, truth),
    Good("int32.tif", lambda: _tiff(grey().astype(np.int32) * 257), lambda: three(grey())),
    Good("float01.tif", lambda: _tiff(grey().astype("f") / 255), lambda: three(grey())),
    Good("float255.tif", lambda: _tiff(grey().astype("f")), lambda: three(grey())),
    Good("cmyk.jpg", lambda: saved(Image.fromarray(truth()).convert("CMYK"), "JPEG", quality=95),
         _cmyk_pixels, 4.0),
    Good("cmyk.tif", lambda: saved(Image.fromarray(truth()).convert("CMYK"), "TIFF"),
         _cmyk_pixels),
    Good("turned-3.jpg", lambda: _turned(3), truth, 2.5),
    Good("turned-6.jpg", lambda: _turned(6), truth, 2.5),
    Good("turned-8.jpg", lambda: _turned(8), truth, 2.5),
    Good("bad-exif.jpg", _bad_exif, truth, 2.0),
    Good("animated.gif", lambda: _animated("GIF"), _gif_pixels, 6.0),
    Good("animated.webp", lambda: _animated("WEBP", lossless=True), truth),
    Good("animated.png", lambda: _animated("PNG"), truth),
    Good("pages.tiff", _pages, truth),
    Good("photo.webp", lambda: picture(kind="WEBP", lossless=True), truth),
    Good("plain.bmp", lambda: picture(kind="BMP"), truth),
    Good("plain.ppm", lambda: picture(kind="PPM"), truth),
)  # fmt: skip


# ---- bad ----------------------------------------------------------------------------------------


def _bomb() -> bytes:
    """A few bytes that claim 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return _png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))


def _text_bomb() -> bytes:
    """A small picture whose comment unpacks to far more than it should."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * (70 << 20), zip=True)
    return picture(pnginfo=info)


def _bad_checksum() -> bytes:
    data = bytearray(picture())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    return bytes(data)


def _without_palette() -> bytes:
    """Numbers of colours, and nowhere the colours."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    rows = zlib.compress(bytes((WIDTH + 1) * HEIGHT))
    return _png((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))


BAD = (
    Bad("zero.jpg", lambda: b"", "empty-file", "the file has zero bytes"),
    Bad("text.jpg", lambda: b"I am no picture.\n" * 9, "not-a-picture",
        "no picture inside (plain text)"),
    Bad("page.png", lambda: b"<!DOCTYPE html><html>404</html>", "not-a-picture",
        "no picture inside (a web page)"),
    Bad("pointer.png", lambda: b"version https://git-lfs.github.com/spec/v1\n", "not-a-picture",
        "no picture inside (a Git LFS pointer: run `git lfs pull`)"),
    Bad("nulls.jpg", lambda: bytes(500), "not-a-picture", "no picture inside (only zero bytes)"),
    Bad("noise.jpg", lambda: bytes(range(128, 256)), "not-a-picture",
        "no picture inside (unknown format)"),
    Bad("drawing.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "not-a-picture", "no picture inside (plain text)"),
    Bad("cut.jpg", lambda: picture(kind="JPEG", quality=95)[:-200], "truncated",
        "the file ends too early (truncated)"),
    Bad("cut.png", lambda: picture()[: len(picture()) // 2], "truncated",
        "the file ends too early (truncated)"),
    Bad("cut.gif", lambda: picture(kind="GIF")[:-120], "truncated",
        "the file ends too early (truncated)"),
    Bad("cut.bmp", lambda: picture(kind="BMP")[:-300], "truncated",
        "the file ends too early (truncated)"),
    Bad("cut.webp", lambda: picture(kind="WEBP", lossless=True)[:-60], "broken",
        "cannot be decoded"),
    Bad("cut.tif", lambda: picture(kind="TIFF")[:100], "broken",
        "cannot be decoded (a damaged TIFF file)"),
    Bad("head-only.jpg", lambda: b"\xff\xd8\xff\xe0", "broken",
        "cannot be decoded (a damaged JPEG file)"),
    Bad("checksum.png", _bad_checksum, "broken", "cannot be decoded"),
    Bad("no-palette.png", _without_palette, "broken",
        "cannot be decoded (its palette is missing)"),
    Bad("bomb.png", _bomb, "too-large",
        "more than 178,956,970 pixels, refused as a decompression bomb"),
    Bad("text-bomb.png", _text_bomb, "broken", "cannot be decoded"),
)  # fmt: skip


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by relative name."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def small_set(
    classes: str = "ab", each: int = 5, prefix: str = "", seed: int = 1
) -> dict[str, bytes]:
    """Class folders of distinct pictures."""
    return {
        f"{prefix}{name}/{i}.png": numbered(seed * 1000 + 100 * c + i)
        for c, name in enumerate(classes)
        for i in range(each)
    }


def numbered(number: int) -> bytes:
    """A picture for each number below 256 ** 3, all different."""
    pixels = truth()
    pixels[0, 0] = number >> 16 & 255, number >> 8 & 255, number & 255
    return saved(Image.fromarray(pixels), "PNG")

"""Files of visitors -> images, within limits: every fault becomes one message, nothing is unpacked.

Zip files are read member by member into memory, so that no name in them can point anywhere.
"""

import io
import lzma
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")  # what Pillow may try; the ending is not believed

MAX_PIXELS = 25_000_000  # of one image, looked at before it is decoded
MIN_SIDE = 8  # pixels; below that nobody can be seen
MAX_IMAGE_BYTES = 20 * 2**20
MAX_UPLOAD_BYTES = 100 * 2**20  # of one file as it is sent
MAX_UNPACKED_BYTES = 300 * 2**20  # of all images of one zip file
MAX_MEMBERS = 20_000  # of one zip file, whatever they are
MAX_CROPS = 2_000  # of one gallery,
MAX_TOTAL_PIXELS = 500_000_000  # and of all its pictures together: they take time to decode

# RuntimeError: a password is needed, or the compression is unknown here.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


class UploadError(ValueError):
    """What is wrong with a file, in words for the visitor."""


def open_crop(source: str | os.PathLike | bytes, name: str | None = None) -> Image.Image:
    """The image of a file or of its bytes: whole, upright, its first frame, 8 bits RGB.

    Args:
        source: path or content. name: what messages call it; None: the file's name.

    Raises:
        UploadError: for anything else than an image within the limits.
    """
    name = name or (Path(source).name if not isinstance(source, bytes) else "the file")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise UploadError(f"{name} is gone. Send it again.")
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise UploadError(f"{name} has {size / 2**20:.0f} MB; at most {MAX_IMAGE_BYTES >> 20} MB.")
    try:
        with opened(source) as image:
            check_size(image, name)
            return to_rgb(image)
    except UploadError:
        raise
    except Image.UnidentifiedImageError:
        raise UploadError(f"{name} is no JPEG, PNG, WebP, BMP or GIF image.") from None
    except Image.DecompressionBombError:
        raise UploadError(too_large(name, "far more pixels than fit")) from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UploadError(f"{name} is damaged: {error}") from None


@contextmanager
def opened(source: str | os.PathLike | bytes) -> Iterator[Image.Image]:
    """An image of which no more than the head is read."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limits are lower
        with Image.open(stream, formats=FORMATS) as image:
            yield image


def check_size(image: Image.Image, name: str) -> None:
    """Raise for an image that is too large to decode, or too small to show anybody."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UploadError(too_large(name, f"{width} x {height} pixels"))
    if min(width, height) < MIN_SIDE:
        raise UploadError(
            f"{name} has {width} x {height} pixels; a crop needs at least {MIN_SIDE} on each side."
        )


def too_large(name: str, size: str) -> str:
    """The message for an image with too many pixels."""
    return f"{name} has {size}; at most {MAX_PIXELS // 10**6} megapixels. Crop it to one person."


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB; what is transparent becomes white, 16 bits become 8, as the processor does it.

    Raises:
        UploadError: for pixels without a fixed range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.mode in ("I", "F"):
        raise UploadError(f"Images need 8 or 16 bits for each colour; this one is {image.mode!r}.")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def zip_members(path: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each image in a zip file; names are for show and never a path to write.

    Raises:
        UploadError: for a file that is no zip, that is encrypted, or that unpacks to too much.
    """
    name, left = Path(path).name, MAX_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise UploadError(f"{name} has {len(members)} entries; at most {MAX_MEMBERS}.")
            for member in filter(is_image, members):
                left -= member.file_size
                if left < 0 or member.file_size > MAX_IMAGE_BYTES:
                    raise UploadError(
                        f"{name} unpacks to too much: at most {MAX_IMAGE_BYTES >> 20} MB for one "
                        f"image and {MAX_UNPACKED_BYTES >> 20} MB in all."
                    )
                with archive.open(member) as file:
                    # Never more than was declared, whatever the stream holds.
                    yield Path(member.filename).name, file.read(member.file_size)
    except DAMAGED_ZIP as error:
        raise UploadError(f"{name} is no readable zip file: {error}") from None


def is_image(member: zipfile.ZipInfo) -> bool:
    """Whether an entry of a zip file is named like an image; folders and system files are not."""
    name = Path(member.filename).name
    is_system = member.filename.startswith("__MACOSX/") or name.startswith(".")
    return not member.is_dir() and not is_system and name.lower().endswith(IMAGE_ENDINGS)


def read_crops(
    paths: Iterable[str], problems: list[str], most: int = MAX_CROPS
) -> Iterator[tuple[str, Image.Image]]:
    """(name, image) of every image among files and zip files, within the limits of a gallery.

    Args:
        problems: is filled with one message for each file that is left out.
        most: images that are read.

    Raises:
        UploadError: for a zip file that breaks a limit.
    """
    count, left = 0, MAX_TOTAL_PIXELS
    for name, source in sources(paths):
        left -= pixels_to_decode(source)
        if count == most or left < 0:
            # First, as only the first messages are shown.
            problems.insert(0, stopped(count, is_too_large=left < 0))
            return
        try:
            image = open_crop(source, name)
        except UploadError as error:
            problems.append(str(error))
        else:
            yield name, image
            count += 1


def stopped(count: int, is_too_large: bool) -> str:
    """The message for files that are more than is read."""
    if not is_too_large:
        return f"Only the first {count:,} crops are read."
    return (
        f"Only the first {count:,} crops are read: the pictures have more than "
        f"{MAX_TOTAL_PIXELS // 10**6} megapixels in all. Crop each to one person."
    )


def pixels_to_decode(source: str | bytes) -> int:
    """What an image claims, broken or not; 0 for what `open_crop` refuses by its first bytes."""
    try:
        with opened(source) as image:
            pixels = image.width * image.height
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError):
        return 0
    return pixels if pixels <= MAX_PIXELS else 0


def sources(paths: Iterable[str]) -> Iterator[tuple[str, str | bytes]]:
    """(name, path or content) of every file; those that a folder holds beside images are passed."""
    paths = list(paths)
    for path in paths:
        if Path(path).suffix.lower() == ".zip":
            yield from zip_members(path)
        elif len(paths) == 1 or Path(path).name.lower().endswith(IMAGE_ENDINGS):
            yield Path(path).name, path


def discard(paths: Iterable[str | None], folder: str | os.PathLike) -> None:
    """Delete files of a visitor; only those inside the folder of uploads, and its empty folders."""
    folder = Path(folder).resolve()
    for path in filter(None, paths):
        path = Path(path).resolve()
        if path.is_relative_to(folder):
            path.unlink(missing_ok=True)
            parent = path.parent
            while parent != folder and not any(parent.iterdir()):
                parent.rmdir()
                parent = parent.parent

"""Files that visitors of the Space may send: a message or a sound result, nothing else."""

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SPACE = Path(__file__).resolve().parents[1] / "space"
sys.path.insert(0, str(SPACE))  # the Space imports its own files by their plain names

import uploads  # noqa: E402
from uploads import UploadError, discard, open_crop, read_crops, zip_members  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


CROP = Image.fromarray(PIXELS)
JPEG, PNG = encoded(CROP, "JPEG", quality=95), encoded(CROP, "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size; its pixels would be decoded only after the claim is believed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sums = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sums

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def make_zip(path: Path, members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


# ---- single images ----------------------------------------------------------------------------


def test_an_image_comes_out_as_it_is_from_a_path_and_from_bytes(tmp_path):
    (tmp_path / "crop.png").write_bytes(PNG)
    for image in (open_crop(tmp_path / "crop.png"), open_crop(PNG)):
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), PIXELS)


def test_the_content_counts_and_not_the_ending(tmp_path):
    (tmp_path / "crop.jpg").write_bytes(PNG)
    assert np.array_equal(np.asarray(open_crop(tmp_path / "crop.jpg")), PIXELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Dear sir, this is a letter.", "it.jpg is no JPEG, PNG, WebP, BMP or GIF image"),
        (b"", "it.jpg is no JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it.jpg is no JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it.jpg is no JPEG"),
        (JPEG[: len(JPEG) // 2], "it.jpg is damaged"),
        (PNG[: len(PNG) // 2], "it.jpg is damaged"),
        (PNG[:30], "it.jpg is"),
        (png_header(10_000, 10_000), "10000 x 10000 pixels; at most 25 megapixels"),
        (png_header(60_000, 60_000), "it.jpg has .* pixels.*; at most 25 megapixels"),
        (encoded(CROP.resize((1, 1)), "PNG"), "1 x 1 pixels; a crop needs at least 8"),
        (encoded(CROP.resize((400, 4)), "PNG"), "400 x 4 pixels; a crop needs at least 8"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "it.jpg is no JPEG"),
    ],
)
def test_what_is_no_crop_gets_a_message(content, message):
    with pytest.raises(UploadError, match=message):
        open_crop(content, "it.jpg")


def test_a_file_that_is_too_large_is_not_opened(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_IMAGE_BYTES", 2**20)
    with pytest.raises(UploadError, match="it has 3 MB; at most 1 MB"):
        open_crop(b"\0" * 3 * 2**20, "it")


def test_a_hundred_megapixels_are_never_decoded():
    """The claim alone is read: less than a megabyte is taken up."""
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(UploadError):
        open_crop(png_header(10_000, 10_000))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_odd_modes_become_rgb():
    red = Image.new("RGB", (16, 32), (200, 30, 30))
    frames = [red, Image.new("RGB", (16, 32), (0, 0, 255))]
    clear = Image.new("RGBA", (16, 32), (0, 0, 0, 0))
    upright = Image.Exif()
    upright[0x0112] = 6  # turned by 90 degrees
    cases = {
        "CMYK": (encoded(red.convert("CMYK"), "JPEG", quality=95), (200, 30, 30)),
        "animated": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50),
            (200, 30, 30),
        ),
        "palette": (
            encoded(red.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
            (200, 30, 30),
        ),
        "transparent": (encoded(clear, "PNG"), (255, 255, 255)),
        "grey": (encoded(red.convert("L"), "PNG"), (81, 81, 81)),
        "16 bits": (
            encoded(Image.fromarray(np.full((32, 16), 51 * 256, np.uint16)), "PNG"),
            (51,) * 3,
        ),
        "turned": (encoded(red.rotate(90, expand=True), "JPEG", exif=upright), (200, 30, 30)),
    }
    for name, (content, colour) in cases.items():
        image = open_crop(content)
        assert (image.mode, image.size) == ("RGB", (16, 32)), name
        assert np.abs(np.asarray(image, int) - colour).max() <= 6, name


def test_pixels_are_those_that_the_processor_reads(tmp_path):
    """One reading of an image, here and in the model's own processor."""
    from clear_par.processing_clear import to_rgb

    clear = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))
    deep = Image.fromarray((PIXELS[..., 0].astype(np.uint16) << 8) + 77)
    for image in (CROP, clear, deep, CROP.convert("L"), CROP.convert("CMYK")):
        assert np.array_equal(np.asarray(uploads.to_rgb(image)), np.asarray(to_rgb(image)))


# ---- zip files --------------------------------------------------------------------------------


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_names_in_a_zip_point_nowhere_and_nothing_is_written(tmp_path):
    members = ["/etc/passwd.png", "../../up.png", "C:\\a\\b.png", "in/side.jpg", "in/../x.png"]
    path = make_zip(tmp_path / "crops.zip", dict.fromkeys(members, PNG))
    before = files_below(tmp_path)
    read = list(read_crops([path], problems := []))
    assert [name for name, _ in read] == [
        "passwd.png",
        "up.png",
        "C:\\a\\b.png",
        "side.jpg",
        "x.png",
    ]
    assert all(np.array_equal(np.asarray(image), PIXELS) for _, image in read)
    assert problems == []
    assert files_below(tmp_path) == before


def test_what_is_no_image_in_a_zip_is_passed_over(tmp_path):
    members = {"a.png": PNG, "b.txt": b"x", "__MACOSX/._a.png": b"x", ".c.png": b"x", "d.zip": b"x"}
    assert [n for n, _ in zip_members(make_zip(tmp_path / "z.zip", members))] == ["a.png"]


def test_a_zip_bomb_is_stopped_before_it_is_unpacked(tmp_path, monkeypatch):
    bomb = make_zip(tmp_path / "bomb.zip", {f"{i}.png": b"\0" * 2**20 for i in range(12)})
    assert Path(bomb).stat().st_size < 2**15  # 12 MB in less than 32 KB
    monkeypatch.setattr(uploads, "MAX_UNPACKED_BYTES", 5 * 2**20)
    read = []
    with pytest.raises(UploadError, match=r"bomb.zip unpacks to too much: .* 5 MB in all"):
        read.extend(zip_members(bomb))
    monkeypatch.setattr(uploads, "MAX_IMAGE_BYTES", 2**19)
    with pytest.raises(UploadError, match="unpacks to too much"):
        next(zip_members(bomb))
    monkeypatch.setattr(uploads, "MAX_MEMBERS", 11)
    with pytest.raises(UploadError, match="has 12 entries; at most 11"):
        next(zip_members(bomb))


def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_it_declares(tmp_path):
    path = Path(make_zip(tmp_path / "liar.zip", {"a.png": b"\0" * 2**20}))
    content = path.read_bytes().replace(struct.pack("<I", 2**20), struct.pack("<I", 100))
    path.write_bytes(content)
    with pytest.raises(UploadError, match=r"liar.zip is no readable zip file"):
        list(zip_members(path))


@pytest.mark.parametrize("content", [b"no zip at all", b"PK\x03\x04" + b"\0" * 50, b""])
def test_what_is_no_zip_gets_a_message(tmp_path, content):
    (tmp_path / "it.zip").write_bytes(content)
    with pytest.raises(UploadError, match=r"it.zip is no readable zip file"):
        list(read_crops([str(tmp_path / "it.zip")], []))


@pytest.mark.parametrize("name", ["ZIP_DEFLATED", "ZIP_BZIP2", "ZIP_LZMA"])
def test_a_zip_with_damaged_content_gets_a_message(tmp_path, name):
    path = Path(make_zip(tmp_path / "it.zip", {"a.png": PNG * 40}, getattr(zipfile, name)))
    content = bytearray(path.read_bytes())
    content[45:60] = bytes(byte ^ 0xFF for byte in content[45:60])  # after name and header
    path.write_bytes(content)
    with pytest.raises(UploadError, match=r"it.zip is no readable zip file"):
        list(zip_members(path))


def test_an_encrypted_zip_gets_a_message(tmp_path):
    path = Path(make_zip(tmp_path / "it.zip", {"a.png": PNG}, zipfile.ZIP_STORED))
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(sign) + offset] |= 1  # the flag of encryption
    path.write_bytes(content)
    with pytest.raises(UploadError, match=r"it.zip is no readable zip file: .*encrypted"):
        list(zip_members(path))


# ---- many files -------------------------------------------------------------------------------


def test_bad_files_among_good_ones_are_left_out_and_named(tmp_path):
    for name, content in (
        ("a.png", PNG),
        ("b.jpg", b"letter"),
        ("c.jpg", JPEG[:300]),
        ("n.txt", b""),
    ):
        (tmp_path / name).write_bytes(content)
    read = list(read_crops(map(str, sorted(tmp_path.iterdir())), problems := []))
    assert [name for name, _ in read] == ["a.png"]
    assert [problem.split()[0] for problem in problems] == ["b.jpg", "c.jpg"]


def test_a_gallery_has_an_end(tmp_path):
    path = make_zip(tmp_path / "z.zip", {f"{i}.png": PNG for i in range(5)})
    assert len(list(read_crops([path], problems := [], most=3))) == 3
    assert problems == ["Only the first 3 crops are read."]


@pytest.mark.parametrize("is_zip", [True, False])
def test_many_large_pictures_have_an_end(tmp_path, monkeypatch, is_zip):
    large = encoded(Image.new("1", (1000, 1000)), "PNG")
    members = {f"{i}.png": large for i in range(6)}
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    paths = [make_zip(tmp_path / "z.zip", members)] if is_zip else [*map(str, tmp_path.glob("*"))]
    monkeypatch.setattr(uploads, "MAX_TOTAL_PIXELS", 4_500_000)
    read = list(read_crops(paths, problems := []))
    assert len(read) == 4
    (message,) = problems
    assert "Only the first 4 crops are read: the pictures have more than 4 megapixels" in message


def test_broken_pictures_count_as_they_are_decoded_too(tmp_path, monkeypatch):
    """A small file can hold many that fail only at their last row."""
    opened = []
    monkeypatch.setattr(uploads, "to_rgb", lambda image: opened.append(1) or image.load())
    monkeypatch.setattr(uploads, "MAX_TOTAL_PIXELS", 3_500_000)
    path = make_zip(tmp_path / "z.zip", {f"{i}.png": png_header(1000, 1000) for i in range(9)})
    assert list(read_crops([path], problems := [])) == []
    assert len(opened) == 3
    assert "Only the first 0 crops are read" in problems[0]
    assert len(problems) == 4


def test_only_files_of_uploads_are_deleted(tmp_path):
    inside, other = tmp_path / "uploads" / "ab" / "a.png", tmp_path / "other.png"
    inside.parent.mkdir(parents=True)
    for path in (inside, other):
        path.write_bytes(PNG)
    sneaky = tmp_path / "uploads" / "ab" / ".." / ".." / "other.png"
    discard(
        [str(inside), str(other), str(sneaky), None, str(tmp_path / "none")], tmp_path / "uploads"
    )
    assert not inside.exists()
    assert (tmp_path / "uploads").is_dir()
    assert not inside.parent.exists()
    assert other.exists()

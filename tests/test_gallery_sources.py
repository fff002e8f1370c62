"""Where crops come from: a Hub id, archives that cannot be read; options that belong together."""

import io
import re
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clear_par import gallery_clear
from clear_par.gallery.sources import open_source, read_again

pytest_plugins = ["clear_par.tests.hub_endpoint"]
NAME = "people/crops"


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 4, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def without_files(hub_endpoint, monkeypatch) -> None:
    """The Hub's answer for a file that a repository does not have: `datasets` asks for some."""
    from clear_par.tests.hub_endpoint import _Handler  # imported by pytest before

    answer, send = hub_endpoint.answer, _Handler.send_response

    def answer_or_say(method: str, path: str, body: bytes):
        try:
            return answer(method, path, body)
        except KeyError:
            return 404, {"error": "Entry not found"}

    def send_and_say(self, code: int, message: str | None = None) -> None:
        send(self, code, message)
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound")

    monkeypatch.setattr(hub_endpoint, "answer", answer_or_say)
    monkeypatch.setattr(_Handler, "send_response", send_and_say)


@pytest.fixture
def on_the_hub(hub_endpoint, without_files, tmp_path, monkeypatch) -> list[bytes]:
    """A data set of Parquet in a repository; the files of its crops."""
    files = [png(number) for number in range(5)]
    cells = [{"bytes": content, "path": f"{n}.png"} for n, content in enumerate(files)]
    table = pa.table({"image": cells, "camera": ["c1", "c2", "c1", "c2", "c1"]})
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text("Crops.\n")
    pq.write_table(table, folder / "train.parquet")
    api = hub_endpoint.api()
    api.create_repo(NAME, repo_type="dataset")
    api.upload_folder(repo_id=NAME, repo_type="dataset", folder_path=folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_endpoint.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return files


def test_a_hub_id_is_downloaded_and_read_again(on_the_hub):
    source = open_source(NAME)
    assert source.name == f"dataset:{NAME}"
    assert [item.read() for item in source.items()] == on_the_hub
    assert [item.metadata["camera"] for item in source.items()] == ["c1", "c2", "c1", "c2", "c1"]
    assert read_again(source.name, "train#3") == on_the_hub[3]


# ---- archives -----------------------------------------------------------------------------------


def archive(place: Path, compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(place, "w", compression) as opened:
        opened.writestr("a.png", png(1))
        opened.writestr("metadata.csv", "file_name,floor\na.png,1\n" + "#" * 200)
    return place.read_bytes()


def encrypted(content: bytes) -> bytes:
    """With the bit of every entry that says so."""
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = content.split(mark)
        flagged = [p[: at - 4] + bytes([p[at - 4] | 1]) + p[at - 3 :] for p in parts[1:]]
        content = mark.join([parts[0], *flagged])
    return content


def swapped(content: bytes) -> bytes:
    """Metadata that are not what their checksum says."""
    return content.replace(b"a.png,1", b"a.png,2")


DAMAGES = {
    "encrypted": (encrypted, "it is encrypted"),
    "cut": (lambda content: content[:-40], "not a zip file"),
    "empty": (lambda content: b"", "not a zip file"),
    "no list": (lambda content: content.replace(b"PK\x01\x02", b"PK\x00\x00"), "central dir"),
    "swapped": (swapped, "Bad CRC-32"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_zip_that_cannot_be_read_is_one_clear_error(name, tmp_path):
    damage, reason = DAMAGES[name]
    place = tmp_path / "crops.zip"
    place.write_bytes(damage(archive(place)))
    with pytest.raises(SystemExit) as error:
        gallery_clear.main(["build", str(tmp_path / "new"), str(place)])
    words = r"clear-gallery: error: `images` must be a whole zip file without a password, got '.*'"
    assert re.fullmatch(rf"{words}: .*{reason}.*give the folder\.", str(error.value)), error.value
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damaged_content_is_said_with_every_compression(compression, tmp_path):
    place = tmp_path / "crops.zip"
    content = bytearray(archive(place, compression))
    start = content.index(b"metadata.csv") + len("metadata.csv") + 12  # behind LZMA's own header
    content[start : start + 10] = bytes(byte ^ 0xFF for byte in content[start : start + 10])
    place.write_bytes(content)
    with pytest.raises(ValueError, match="`images` must be a whole zip file"):
        open_source(str(place))


def test_an_archive_that_was_damaged_later_is_said(tmp_path):
    place = tmp_path / "crops.zip"
    content = archive(place)
    source = open_source(str(place))
    place.write_bytes(encrypted(content))
    with pytest.raises(ValueError, match=r"must still be in its source, .* encrypted"):
        read_again(source.name, "a.png")


# ---- options that tuning alone reads ------------------------------------------------------------


@pytest.mark.parametrize("option", ["--recall 0.9", "--num-queries 5", "--index exact", "--ray x"])
def test_tuning_options_without_tuning_are_refused(option, tmp_path):
    with pytest.raises(SystemExit) as error:
        gallery_clear.main(["info", str(tmp_path), *option.split()])
    name = option.split()[0]
    assert f"`{name}` must be given together with `--tune`" in str(error.value)

"""What a gallery survives: kill -9, a full disk, readers beside a writer; and more processes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clear_par.gallery.embedding import Embedder
from clear_par.gallery.gallery import BuildOptions, Gallery
from clear_par.gallery.index_settings import IVF
from clear_par.gallery.searching import Search
from clear_par.gallery.table import GalleryTable

WRITER = Path(__file__).parent / "fixtures" / "gallery_writer.py"
NUM_FILES = 1_500


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Two folders of small files that are images for the writer without a model."""
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(NUM_FILES):
            (folder / f"{number:04d}.png").write_text(f"{name} {number}")
        made.append(folder)
    return made


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def kill_after(process: subprocess.Popen, lines: int, seconds: float) -> list[str]:
    """Kill -9 some time after so many lines; what the process has said by then."""
    said = [process.stdout.readline() for _ in range(lines)]
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return [line.strip() for line in said if line.endswith("\n")]


def check(place: Path, acknowledged: set[str]) -> GalleryTable:
    """The gallery opens, has every acknowledged row once, and can be searched."""
    table = GalleryTable.open(str(place))
    ids = table.ids()
    assert acknowledged <= ids
    assert table.count() == len(ids)
    assert table.nearest(np.ones(16, np.float32), 3).num_rows == min(3, len(ids))
    return table


def hashes(folder: Path) -> set[str]:
    return {hashlib.sha256(p.read_bytes()).hexdigest()[:32] for p in folder.iterdir()}


def finish(place: Path, folder: Path) -> None:
    process = start("fill", place, folder)
    process.communicate()
    assert process.returncode == 0


def survive(place: Path, folders: list[Path], kills: list[str], seed: int) -> None:
    """Kill a writer again and again, each time in what the list names; then let it finish."""
    rng = np.random.default_rng(seed)
    acknowledged, removed = set(), set()
    for work in kills:
        if work == "index":
            kill_after(start("index", place), 1, rng.uniform(0, 0.4))
        elif work == "remove":
            said = kill_after(start("remove", place), 1, rng.uniform(0, 0.4))
            removed |= set(said)
        else:
            folder = folders[work == "add"]
            lines = int(rng.integers(1, 5))
            said = kill_after(start("fill", place, folder), lines, rng.uniform(0, 0.05))
            acknowledged |= {found for line in said for found in line.split()}
        check(place, acknowledged - removed)
    for folder in folders:
        finish(place, folder)
    table = check(place, acknowledged)
    assert table.ids() == hashes(folders[0]) | hashes(folders[1])
    assert not table.is_removal_unfinished


def test_a_killed_writer_loses_nothing(folders, tmp_path):
    place = tmp_path / "people"
    acknowledged = set(" ".join(kill_after(start("fill", place, folders[0]), 2, 0.01)).split())
    assert len(acknowledged) >= 80
    table = check(place, acknowledged)
    with table.writing():  # the killed one holds no lock
        assert table.count() < NUM_FILES


@pytest.mark.slow
def test_twenty_kills(folders, tmp_path):
    kills = ["build"] * 5 + ["index"] * 4 + ["add"] * 5 + ["index"] * 3 + ["remove"] * 3
    survive(tmp_path / "people", folders, kills, seed=0)


@pytest.mark.slow
def test_a_reader_beside_a_writer_and_a_remover(folders, tmp_path):
    place = tmp_path / "people"
    process, counts, stop = start("fill", place, folders[0]), [], threading.Event()
    process.stdout.readline()
    reader = GalleryTable.open(str(place))
    threading.Thread(target=lambda: (process.communicate(), stop.set())).start()
    while not stop.is_set():
        assert reader.nearest(np.ones(16, np.float32), 5).num_rows == 5
        counts.append(reader.count())
    assert counts == sorted(counts)
    assert reader.count() == NUM_FILES
    remover = start("remove", place)
    for _ in range(6):
        remover.stdout.readline()
        for _ in range(5):
            assert reader.nearest(np.ones(16, np.float32), 5).num_rows == 5
    kill_after(remover, 1, 0)
    assert reader.count() <= NUM_FILES - 6


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="only root may mount a small disk"
)
def test_a_disk_that_is_really_full(folders, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        process = start("fill", disk / "people", folders[0])
        acknowledged = set(process.communicate()[0].split())
        assert process.returncode != 0
        assert 0 < len(acknowledged) < NUM_FILES
        check(disk / "people", acknowledged)
        subprocess.run([*mount[:4], "remount,size=50M", *mount[5:]], check=True)
        finish(disk / "people", folders[0])
        assert check(disk / "people", acknowledged).ids() == hashes(folders[0])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- several processes, with the micro model ----------------------------------------------------


@pytest.fixture
def crops(tmp_path) -> Path:
    folder = tmp_path / "crops"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(50):
        pixels = rng.integers(0, 256, (40, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    (folder / "broken.png").write_text("no image")
    shutil.copy(folder / "003.png", folder / "copy.png")
    return folder


def rows(place: Path) -> dict[str, tuple]:
    found = GalleryTable.open(str(place)).batches(["id", "image", "embedding"])
    listed = [row for batch in found for row in batch.to_pylist()]
    assert len({row["id"] for row in listed}) == len(listed) == 50
    return {row["id"]: row["embedding"] for row in listed}


def run(command: list, timeout: float = 240) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_two_processes_of_accelerate_make_the_same_gallery(gallery_model, crops, tmp_path):
    build = ["build", tmp_path / "two", crops, "--model", gallery_model, "--batch-size", 4]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", 2, "-m"]
    said = run([*launch, "clear_par.gallery_clear", *build, "--device", "cpu"])
    assert "50 crops added" in said
    assert "1 duplicates skipped, 1 broken images skipped" in said
    assert said.count("crops added") == 1
    build[1] = tmp_path / "one"
    run(["-m", "clear_par.gallery_clear", *build, "--device", "cpu"])
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert one.keys() == two.keys()
    for found, vector in one.items():
        np.testing.assert_allclose(two[found], vector, atol=1e-5)


@pytest.mark.slow
def test_two_workers_of_ray_find_the_same(gallery_model, crops, tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra gallery-ray")
    pytest.importorskip("lance_ray", reason="needs the extra gallery-ray")
    embedder = Embedder.load(str(gallery_model), device="cpu")
    galleries = {}
    try:
        for address in (None, "local"):
            options = BuildOptions(batch_size=8, ray=address)
            place = tmp_path / str(address)
            galleries[address], report = Gallery.build(str(place), str(crops), embedder, options)
            assert (report.added, report.duplicates, len(report.broken)) == (50, 1, 1)
        here, there = rows(tmp_path / "None"), rows(tmp_path / "local")
        assert here.keys() == there.keys()
        for found, vector in here.items():
            np.testing.assert_allclose(there[found], vector, atol=1e-5)
        gallery = galleries["local"]
        searches = [
            Search({"hat": True}),
            Search("red skirt", filter="image < '040'"),
            Search(image=str(crops / "007.png")),
        ]
        require_same(gallery, searches)  # without an index
        trials = gallery.tune(5, recall=1, kind=IVF, say=str, ray="local")
        assert trials[-1].settings.kind == IVF
        assert gallery.info()["index"]["indexed_rows"] == 50
        require_same(gallery, searches)
    finally:
        ray.shutdown()


def require_same(gallery: Gallery, searches: list[Search]) -> None:
    """The same top ten, found here and by the workers."""
    here = gallery.search_many(searches)
    there = gallery.search_many(searches, ray="local")
    for one, other in zip(here, there, strict=True):
        assert len(one.hits) == 10
        assert [hit.id for hit in one.hits] == [hit.id for hit in other.hits]
        scores = [hit.score for hit in other.hits]
        assert scores == pytest.approx([hit.score for hit in one.hits], abs=1e-5)

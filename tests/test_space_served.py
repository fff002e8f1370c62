"""The Space as it is served: called by programs, and used in a headless Chromium.

Needs gradio (`pip install -e '.[space-test]'`); the browser tests a Chromium of the system as well.
CLEAR_SCREENSHOTS: a folder; the pictures of the documentation are written there.
"""

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = [str(ROOT / f"assets/samples/{number:05d}.jpg") for number in range(12)]
START = 120  # seconds that a loaded machine may take
# Runs the app and writes down every place outside this machine that it looks up or connects to.
CONTRAST = """(element) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = colour.slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  let behind = element;
  const fill = () => numbers(getComputedStyle(behind).backgroundColor);
  while (fill()[3] === 0 && behind.parentElement) behind = behind.parentElement;
  const pair = [light(numbers(getComputedStyle(element).color)), light(fill())];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""  # of a text with what is behind it, as WCAG 2 has it
WATCHED = """
import runpy, socket, sys
log, app = sys.argv[1:]
LOCAL = {None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0", "::", socket.gethostname()}
def note(host):
    if host not in LOCAL:
        with open(log, "a") as file:
            file.write(f"{host}\\n")
def watch(owner, name, host_of):
    real = getattr(owner, name)
    def watched(*args, **kwargs):
        note(host_of(*args))
        return real(*args, **kwargs)
    setattr(owner, name, watched)
watch(socket, "getaddrinfo", lambda host, *_: host.decode() if isinstance(host, bytes) else host)
for name in ("connect", "connect_ex"):
    watch(socket.socket, name, lambda _, a: a[0] if isinstance(a, tuple) else None)
try:
    socket.create_connection(("watched.invalid", 80), timeout=1)
except OSError:
    pass
sys.argv = [app]
sys.path.insert(0, app.rpartition("/")[0])
runpy.run_path(app, run_name="__main__")
"""


class Server:
    """The app in a process of its own, in folders of its own."""

    def __init__(self, folder: Path):
        self.uploads, self.home, self.log = folder / "uploads", folder / "home", folder / "hosts"
        for path in (self.uploads, self.home, folder / "tmp"):
            path.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        variables = {
            "GRADIO_SERVER_PORT": self.url.rpartition(":")[2],
            "GRADIO_TEMP_DIR": str(self.uploads),
            "TMPDIR": str(folder / "tmp"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | variables
        self.output = (folder / "output").open("w+")
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(self.log), str(ROOT / "space/app.py")],
            cwd=self.home,
            env=environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )
        self.seconds = self._wait()

    def _wait(self) -> float:
        """Seconds until the page answers."""
        port = int(self.url.rpartition(":")[2])
        while time.perf_counter() - self.started < START:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return time.perf_counter() - self.started
            time.sleep(0.2)
        self.output.seek(0)
        pytest.fail(f"the Space did not start: {self.output.read()[-2000:]}")

    def megabytes(self) -> float:
        """Memory that the process holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def files(self) -> list[Path]:
        """What visitors have left on the server."""
        return [path for path in self.uploads.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[space-test]'")
    served = Server(tmp_path_factory.mktemp("space"))
    yield served
    served.process.terminate()
    served.process.wait(30)
    # After all tests: nobody was asked but this machine (the first entry shows that the watch
    # works), and nothing lies about.
    assert served.log.read_text().splitlines() == ["watched.invalid"]
    assert list(served.home.rglob("*")) == []


@pytest.fixture(scope="module")
def judge():
    """A function: what the public calls say of each image."""
    model = AutoModel.from_pretrained(ROOT, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(ROOT, trust_remote_code=True)

    @torch.no_grad()
    def judge(images: list) -> list[dict]:
        return processor.decode(model(**processor(images=images, return_tensors="pt")).logits)

    return judge


@pytest.fixture(scope="module")
def expected(judge) -> list[dict]:
    """What the public calls say of each sample."""
    return judge(SAMPLES)


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """name -> (a bad file, what is said of it)."""
    folder, jpeg = tmp_path_factory.mktemp("broken"), Path(SAMPLES[0]).read_bytes()
    huge = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(huge, "PNG")
    content = {
        "letter.jpg": (b"Dear sir", "letter.jpg is no JPEG"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "half.jpg is damaged"),
        "huge.png": (huge.getvalue(), "10000 x 10000 pixels"),
        "dot.png": (b"", "dot.png has 1 x 1 pixels"),
    }
    dot = io.BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "PNG")
    content["dot.png"] = (dot.getvalue(), content["dot.png"][1])
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, message) for name, (_, message) in content.items()}


@pytest.fixture(scope="module")
def unusual(tmp_path_factory) -> dict[str, Path]:
    """kind -> the first sample as a file that few would send."""
    folder, sample = tmp_path_factory.mktemp("unusual"), Image.open(SAMPLES[0])
    other = Image.open(SAMPLES[1]).resize(sample.size)
    paths = {kind: folder / f"crop.{kind}" for kind in ("gif", "jpg", "png")}
    sample.save(paths["gif"], save_all=True, append_images=[other], duration=100)
    sample.convert("CMYK").save(paths["jpg"], quality=95)
    sample.convert("RGBA").save(paths["png"])
    return paths


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """One entry of 21 megabytes in 20 kilobytes."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.png", b"\0" * (21 * 2**20))
    return path


@pytest.fixture(scope="module")
def zipped(tmp_path_factory) -> Path:
    """All samples under names that point elsewhere, and a file that is no image."""
    path = tmp_path_factory.mktemp("zip") / "crops.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, sample in enumerate(SAMPLES):
            archive.write(sample, f"../../escaped/{number}.jpg")
        archive.writestr("/broken.png", b"no image")
    return path


# ---- by programs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connect(server):
    client = pytest.importorskip("gradio_client", reason="needs gradio_client")
    patient = {"timeout": START}  # on a loaded machine
    return lambda: client.Client(server.url, verbose=False, httpx_kwargs=patient)


@pytest.mark.slow
class TestCalled:
    def recognise(self, client, path) -> dict:
        from gradio_client import handle_file

        return client.predict(handle_file(str(path)), None, api_name="/recognise")

    def test_it_serves_within_half_a_minute(self, server):
        assert server.seconds < (30 if os.getloadavg()[0] < 2 else START)

    def test_twenty_clients_at_once_get_their_own_answers(self, connect, expected):
        def visit(visitor: int) -> None:
            client = connect()
            for turn in range(10):
                number = (visitor + turn) % len(SAMPLES)
                answer = self.recognise(client, SAMPLES[number])
                for name, (value, probability) in expected[number].items():
                    assert answer[name]["value"] == value, (number, name)
                    assert answer[name]["probability"] == pytest.approx(probability, abs=1e-4)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(visit, range(20)))

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
    def test_the_memory_does_not_grow_with_the_visits(self, connect, server):
        def rounds(count: int) -> float:
            for visitor in range(count):
                client = connect()
                for turn in range(10):
                    self.recognise(client, SAMPLES[(visitor + turn) % len(SAMPLES)])
            return server.megabytes()

        before = rounds(2)  # the first visits fill what is kept anyway
        assert rounds(6) - before < 20

    @pytest.mark.parametrize("kind", ["gif", "jpg", "png"])
    def test_an_unusual_file_is_recognised(self, connect, unusual, judge, kind):
        """Animated (its first frame), CMYK, with transparency."""
        with Image.open(unusual[kind]) as image:
            (wanted,) = judge([image.convert("RGB")])
        answer = self.recognise(connect(), unusual[kind])
        assert {name: one["value"] for name, one in answer.items()} == {
            name: value for name, (value, _) in wanted.items()
        }
        for name, (_, probability) in wanted.items():
            assert answer[name]["probability"] == pytest.approx(probability, abs=1e-4), name

    def test_a_text_finds_the_best_crops(self, connect):
        found = connect().predict("a woman with a red top", 7, api_name="/find")
        scores = [hit["score"] for hit in found]
        assert len(found) == 7
        assert scores == sorted(scores, reverse=True)

    @pytest.mark.parametrize("name", ["letter.jpg", "half.jpg", "huge.png", "dot.png"])
    def test_a_bad_file_gets_its_message(self, connect, broken, name):
        path, message = broken[name]
        with pytest.raises(Exception, match=message):
            self.recognise(connect(), path)

    def test_a_query_that_says_nothing_gets_a_message(self, connect):
        with pytest.raises(Exception, match="Say whom you are looking for"):
            connect().predict(" ", 3, api_name="/find")

    @pytest.mark.parametrize("form", ["{}", "file", "text"])
    def test_files_of_the_server_cannot_be_asked_for(self, server, form):
        """Only what was uploaded is read, whatever a program sends."""
        bare = {"path": SAMPLES[0]}
        payload = {
            "{}": bare,
            "file": bare | {"meta": {"_type": "gradio.FileData"}},
            "text": SAMPLES[0],
        }[form]
        call = f"{server.url}/gradio_api/call/recognise"
        body = json.dumps({"data": [payload, None]}).encode()
        head = {"Content-Type": "application/json"}
        with urlopen(Request(call, body, head), timeout=30) as reply:
            event = json.load(reply)["event_id"]
        with urlopen(f"{call}/{event}", timeout=30) as reply:
            answer = reply.read().decode()
        assert answer.startswith("event: error")
        assert "probability" not in answer


# ---- in a browser -----------------------------------------------------------------------------


def chromium() -> str | None:
    """A Chromium of the system."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[space-test]")
    if chromium() is None:
        pytest.skip("needs a Chromium of the system: apt-get install chromium")
    with api.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = driver.chromium.launch(executable_path=chromium(), args=options)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, server):
    """A function that opens the Space; its pages ask this machine alone and have no error."""
    opened, asked, errors = [], [], []

    def open_page(width=1280, height=1120, **settings):
        size = {"width": width, "height": height}
        page = browser.new_context(viewport=size, **settings).new_page()
        opened.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.wait_for_selector("#recognised .card")
        return page

    yield open_page
    for page in opened:
        page.context.close()
    outside = [u for u in asked if not u.startswith((server.url, "data:", "blob:"))]
    assert asked
    assert outside == []
    assert errors == []


@pytest.mark.browser
class TestInABrowser:
    def upload(self, page, label: str, *paths) -> None:
        """Give files to a field, or to the button of that label."""
        field = page.locator(f'input[data-testid="{label}-upload-button"]')
        if label.startswith("#"):
            field = page.locator(f"{label} input[type=file]").first
        field.set_input_files(list(map(str, paths)))

    def find(self, page) -> None:
        page.get_by_role("tab", name="Find people").click()
        page.wait_for_selector("#results .result")

    def said(self, page) -> list[str]:
        return page.locator("#recognised .bar.said .name").all_inner_texts()

    def test_an_uploaded_crop_is_recognised_as_by_the_public_calls(self, open_page, expected):
        page = open_page()
        for number in (7, 4):
            self.upload(page, "#crop-input", SAMPLES[number])
            page.locator("#recognised figcaption", has_text=f"{number:05d}.jpg").wait_for()
            decoded = expected[number]
            wanted = [name if v is True else v for name, (v, _) in decoded.items() if v]
            assert sorted(self.said(page)) == sorted(wanted)
            value, probability = decoded["upper colour"]
            bar = page.locator(".choice", has_text="upper colour").locator(".bar.said")
            assert bar.inner_text().split() == [value, f"{round(100 * probability)}%"]
            page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()

    def test_the_threshold_and_the_heat_map_answer(self, open_page):
        page = open_page()
        if page.locator("#mode").is_visible():  # the checkpoint has calibrated thresholds
            page.get_by_text("One for all").click()
            page.locator("#threshold").wait_for()
        before = len(self.said(page))
        page.locator("#threshold input[type=number]").fill("0.05")
        page.locator("#threshold input[type=number]").press("Enter")
        page.wait_for_function(
            f"document.querySelectorAll('#recognised .bar.said').length > {before + 5}"
        )
        field = page.locator("#heat input")
        field.fill("backpack")
        field.press("Enter")
        page.locator("#recognised figcaption", has_text="looked at for backpack").wait_for()

    def test_several_crops_are_recognised_and_downloaded(self, open_page, tmp_path):
        page = open_page()
        self.upload(page, "Several crops at once", *SAMPLES[:3])
        page.wait_for_function("document.querySelectorAll('#recognised .strip button').length == 3")
        page.locator("#recognised .strip button").nth(2).click()
        page.locator("#recognised figcaption", has_text="00002.jpg").wait_for()
        with page.expect_download() as download:
            page.get_by_text("Download CSV").click()
        download.value.save_as(tmp_path / "table.csv")
        crops = {line.split(",")[0] for line in (tmp_path / "table.csv").read_text().splitlines()}
        assert crops == {"crop", "00000.jpg", "00001.jpg", "00002.jpg"}

    def test_a_query_finds_as_many_crops_as_asked_and_goes_on_from_one(self, open_page):
        page = open_page()
        self.find(page)
        assert page.locator("#sent").inner_text().splitlines()[-1] == "A woman wearing a red top."
        assert page.locator("#results .result").count() == 10
        page.get_by_text("In words").click()
        page.locator("#text textarea").fill("a tall man with black trousers and a backpack")
        page.locator("#text textarea").press("Enter")
        page.locator(
            "#sent", has_text="A man wearing black trousers, carrying a backpack."
        ).wait_for()
        assert "Not understood: tall." in page.locator("#sent").inner_text()
        page.locator("#results .chips", has_text="backpack").first.wait_for()
        page.locator("#results .more").first.click()
        page.locator("#results", has_text="Nearest to").wait_for()
        assert page.locator("#results .result").count() == 10

    def test_the_classifiers_evidence_can_be_switched_off(self, open_page):
        page = open_page()
        self.find(page)
        first = page.locator("#results .score").first
        assert first.inner_text().startswith("score ")
        assert "12 × cosine + 4 × evidence" in page.locator("#results .note").inner_text()
        page.get_by_role("button", name=re.compile("^More")).click()
        page.get_by_label("Use the classifier's evidence").uncheck()
        page.locator("#go").click()
        page.locator("#results .score", has_text="cosine").first.wait_for()
        assert "evidence" not in page.locator("#results .note").inner_text()
        scores = page.locator("#results .score").all_inner_texts()
        assert all(-1 <= float(text.removeprefix("cosine ")) <= 1 for text in scores)

    def test_a_zip_bomb_gets_its_message_and_the_page_lives(self, open_page, bomb):
        page = open_page()
        self.find(page)
        page.get_by_text("Gallery: the drawn crops").click()
        self.upload(page, "Images or a zip", bomb)
        page.get_by_text("bomb.zip unpacks to too much").first.wait_for()
        page.locator("#go").click()
        page.locator("#results", has_text="Best of 240 crops").wait_for()

    def test_ones_own_gallery_is_searched_and_deleted(self, open_page, server, zipped):
        page = open_page()
        self.find(page)
        page.get_by_text("Gallery: the drawn crops").click()
        self.upload(page, "Images or a zip", zipped)
        page.locator("#results", has_text="Best of 12 crops").wait_for()
        assert page.get_by_text("broken.png is no JPEG").count() == 1

    @pytest.mark.parametrize("name", ["letter.jpg", "half.jpg", "huge.png", "dot.png"])
    def test_a_bad_file_gets_its_message_and_the_page_lives(self, open_page, broken, name):
        page = open_page()
        path, message = broken[name]
        self.upload(page, "#crop-input", path)
        page.get_by_text(message).first.wait_for()
        page.locator("#samples button").nth(3).click()
        page.locator("#recognised figcaption", has_text="00003.jpg").wait_for()

    def focused(self, page) -> str:
        """The name of what has the focus."""
        focus = "document.activeElement"
        return page.evaluate(f"{focus}.getAttribute('aria-label') ?? {focus}.innerText") or ""

    def go_on_to(self, page, name: str) -> None:
        """Press the tabulator until something of this name has the focus."""
        for _ in range(60):
            page.keyboard.press("Tab")
            if self.focused(page).strip().startswith(name):
                return
        pytest.fail(f"no key leads to {name!r}")

    def test_keys_are_enough(self, open_page):
        page = open_page()
        page.get_by_role("tab", name="Recognise").focus()
        self.go_on_to(page, "Several crops at once")
        self.go_on_to(page, "Show 00001.jpg")
        page.keyboard.press("Enter")
        page.locator("#recognised figcaption", has_text="00001.jpg").wait_for()
        self.go_on_to(page, "Download CSV")
        page.get_by_role("tab", name="Recognise").focus()
        self.go_on_to(page, "Find people")
        page.keyboard.press("Enter")
        page.wait_for_selector("#results .result")
        self.go_on_to(page, "Find")
        page.keyboard.press("Enter")
        self.go_on_to(page, "Find more like")
        page.keyboard.press("Enter")
        page.locator("#results", has_text="Nearest to").wait_for()

    def test_the_focus_stays_where_it_was_pressed(self, open_page):
        page = open_page()
        self.upload(page, "Several crops at once", *SAMPLES[:3])
        page.wait_for_function("document.querySelectorAll('#recognised .strip button').length == 3")
        page.locator("#recognised .strip button").nth(2).press("Enter")
        page.locator("#recognised figcaption", has_text="00002.jpg").wait_for()
        assert self.focused(page) == "Show 00002.jpg"
        assert page.evaluate("document.activeElement.closest('#recognised') !== null")
        self.find(page)
        page.locator("#results .more").nth(4).press("Enter")
        page.locator("#results", has_text="Nearest to").wait_for()
        assert self.focused(page).startswith("Find more like")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_phone(self, open_page, scheme):
        page = open_page(390, 844, color_scheme=scheme)
        for tab in ("Recognise", "Find people", "About"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, colour.strip("rgba() ").split(",")[:3]))
        assert (brightness > 600) == (scheme == "light")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_every_text_can_be_read(self, open_page, scheme):
        """WCAG 2, level AA: a contrast of 4.5."""
        page = open_page(color_scheme=scheme)
        texts = [".hero p", ".badges li", "[role=tab].selected", ".card h3", ".choice h4"]
        texts += [".bar.said .name", ".bar.unsaid .name", ".said-of small", "a.download"]
        read = {name: page.locator(name).first.evaluate(CONTRAST) for name in texts}
        self.find(page)
        texts = ["#go", "#results .note", ".chips .agrees span", "#results .more"]
        read |= {name: page.locator(name).first.evaluate(CONTRAST) for name in texts}
        assert {name: value for name, value in read.items() if value < 4.5} == {}

    def test_what_was_uploaded_is_deleted_when_the_page_is_closed(self, browser, open_page, server):
        page = open_page()
        self.upload(page, "#crop-input", SAMPLES[9])
        page.locator("#recognised figcaption", has_text="00009.jpg").wait_for()
        assert any("00009" in path.name for path in server.files())
        page.close()
        for _ in range(90):  # half a minute of grace
            if not any("00009" in path.name for path in server.files()):
                break
            time.sleep(0.5)
        assert not any("00009" in path.name for path in server.files())

    def test_pictures_for_the_documentation(self, open_page, tmp_path):
        folder = Path(os.environ.get("CLEAR_SCREENSHOTS", tmp_path))
        page = open_page(1280, 1120, device_scale_factor=1.5)
        page.locator("#samples button").nth(7).click()
        page.locator("#recognised figcaption", has_text="00007.jpg").wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "recognise.png")
        self.find(page)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "find.png")
        for name in ("recognise.png", "find.png"):
            with Image.open(folder / name) as picture:
                assert picture.size == (1920, 1680)

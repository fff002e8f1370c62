"""The Space of CLEAR: recognise attributes of person crops, find people by attributes.

    python app.py          # http://127.0.0.1:7860

CLEAR_MODEL: folder or Hub id of the model; from a clone, the enclosing repository is taken.
"""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path

# Gradio reads these when it is imported: no visit is counted, uploads lie where they are deleted.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if "GRADIO_TEMP_DIR" not in os.environ:
    _uploads = tempfile.TemporaryDirectory(prefix="clear-space-")  # removed when the server ends
    os.environ["GRADIO_TEMP_DIR"] = _uploads.name

import cards
import find_tab
import gradio as gr
import recognise_tab
import uploads
from engine import Crops, Engine
from visitors import Visitors, refuse, unopened

HERE = Path(__file__).resolve().parent
SAMPLES = 12  # drawn crops that are offered in the first tab
PARALLEL = 4  # requests that are prepared at the same time; the model takes one after another
WAITING = 64  # further requests are told to come back later
SESSIONS = 64  # of which Gradio remembers which crop is chosen; each holds half a megabyte
LIFE = 1800  # seconds that a file lies at most, should the end of a session go unnoticed


def bundled(engine: Engine, count: int | None = None, keep_pixels: bool = False) -> Crops:
    """The drawn crops that come with the Space, or the first of them, embedded."""
    images = uploads.read_crops([str(HERE / "drawn_crops.zip")], [])
    return engine.read(islice(images, count), keep_pixels)


class Later:
    """Crops that are made once the page is served; whoever asks before waits for them.

    Args:
        make: what makes them.
    """

    def __init__(self, make: Callable[[], Crops]):
        self.make = make
        self.promise: Future[Crops] = Future()
        self.is_begun = False
        self.lock = threading.Lock()

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self.lock:
            begun, self.is_begun = self.is_begun, True
        if not begun:
            threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        try:
            self.promise.set_result(self.make())
        except Exception as error:  # whoever asks gets it
            self.promise.set_exception(error)

    def __call__(self) -> Crops:
        self.start()
        return self.promise.result()


def add_api(engine: Engine, visitors: Visitors, drawn: Callable[[], Crops]) -> None:
    """Two calls for programs: /recognise (a file) and /find (a text)."""

    def recognise_file(image: str, threshold: float | None, request: gr.Request) -> dict:
        with visitors.holding(request, [image]), refuse():
            crops = engine.read([(Path(image).name, uploads.open_crop(image))])
            (decoded,) = engine.decode(crops.logits, threshold)
        return {name: {"value": v, "probability": p} for name, (v, p) in decoded.items()}

    def find_text(text: str, count: float) -> list[dict]:
        with refuse():
            query, _ = find_tab.read_query(engine.schema, find_tab.WORDS, text, [])
            adapter = next(iter(engine.adapters))
            kind = engine.kinds(adapter)[0]
            gallery = drawn()
            hits = find_tab.search(engine, gallery, query, adapter, kind, max(1, int(count)))
        return [{"crop": gallery.names[hit.index], "score": hit.score} for hit in hits]

    with gr.Group(visible=False):
        image, threshold = unopened(gr.Image(type="filepath")), gr.Number(None)
        text, count, answer = gr.Textbox(), gr.Number(8), gr.JSON()
        press = gr.Button()
        press.click(recognise_file, [image, threshold], answer, api_name="recognise")
        if engine.adapters:
            press.click(find_text, [text, count], answer, api_name="find")


def build(engine: Engine, visitors: Visitors, drawn: Callable[[], Crops]) -> gr.Blocks:
    """The whole page.

    Args:
        drawn: gives the gallery that is searched unless the visitor brings one.
    """
    samples = bundled(engine, SAMPLES, keep_pixels=True)
    with gr.Blocks(title="CLEAR", delete_cache=(300, LIFE), analytics_enabled=False) as page:
        gr.HTML((HERE / "header.html").read_text(encoding="utf-8"))
        with gr.Tabs():
            with gr.Tab("Recognise", id="recognise"):
                page.load(*recognise_tab.build(engine, visitors, samples), **QUIET)
            with gr.Tab("Find people", id="find"):
                if engine.adapters:
                    page.load(*find_tab.build(engine, visitors, drawn), **QUIET)
                else:
                    gr.HTML(cards.note("This model has no retrieval adapter.", "empty"))
            with gr.Tab("About", id="about"):
                gr.Markdown((HERE / "about.md").read_text(encoding="utf-8"), elem_id="about")
        add_api(engine, visitors, drawn)
        page.unload(visitors.forget)
    page.queue(max_size=WAITING, default_concurrency_limit=PARALLEL)
    return page


QUIET = {"show_progress": "hidden", "api_visibility": "private"}
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=("Inter", "ui-sans-serif", "system-ui", "sans-serif"),  # names only: nothing is fetched
    font_mono=("ui-monospace", "monospace"),
).set(  # small and pale text as well must be read: a contrast of 4.5 at least
    body_text_color_subdued="*neutral_500",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
)


def launch(page: gr.Blocks, **changes):
    """Serve the page; see gr.Blocks.launch for what may be changed."""
    settings = {
        "theme": THEME,
        "css_paths": HERE / "style.css",
        "max_file_size": uploads.MAX_UPLOAD_BYTES,
        "max_threads": 16,
        "state_session_capacity": SESSIONS,
        "footer_links": [],
        "ssr_mode": False,
    }
    return page.launch(**settings | changes)


def main() -> None:
    """Load and serve."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the uploads are removed as well
    engine = Engine()
    drawn = Later(partial(bundled, engine))
    page = build(engine, Visitors(os.environ["GRADIO_TEMP_DIR"]), drawn)
    launch(page, prevent_thread_lock=True)
    drawn.start()  # not before: it would take both processors from the start
    page.block_thread()


if __name__ == "__main__":
    main()

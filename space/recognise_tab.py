"""The tab "Recognise": crops in, what they show out."""

from collections.abc import Callable

import cards
import gradio as gr
import heatmap
import recognise
import uploads
from engine import UNKNOWN, Crops, Engine
from visitors import Visitors, refuse

MOST_CROPS = 32  # at once; a gallery of thousands belongs into the other tab
CALIBRATED, ONE = "Calibrated for each attribute", "One for all"
HINTS = "Drop, paste or photograph one person, cut out from head to foot."


def crop_input(**settings) -> gr.Image:
    """A gr.Image that hands on the path without opening the file: what is wrong is said by us."""
    image = gr.Image(type="filepath", image_mode=None, **settings)
    opened = image.preprocess

    def preprocess(payload):
        return payload.path if payload is not None and payload.path else opened(payload)

    image.preprocess = preprocess
    return image


def read_images(engine: Engine, visitors: Visitors, paths: list[str], request: gr.Request) -> Crops:
    """What was uploaded, recognised; files are forgotten with the session."""
    visitors.remember(request, paths)
    problems: list[str] = []
    with refuse():
        images = []
        for path in paths[:MOST_CROPS]:
            try:
                images.append((visitors.name_of(path), uploads.open_crop(path)))
            except uploads.UploadError as error:
                problems.append(str(error))
        if problems and not images:
            raise uploads.UploadError(" ".join(problems[:3]))
        crops = engine.read(images, keep_pixels=True)
    for problem in problems[:3]:
        gr.Warning(f"Left out: {problem}")
    if len(paths) > MOST_CROPS:
        gr.Warning(f"Only the first {MOST_CROPS} crops are shown.")
    return crops


def sentence(engine: Engine, decoded: dict) -> str:
    """Everything that is said of a crop, in the words of the pseudo-descriptions."""
    labels = [UNKNOWN] * engine.schema.num_attributes
    said = [(g.options.get(decoded[g.name][0])) for g in engine.schema.groups]
    said += [f.attribute for f in engine.schema.flags if decoded[f.name][0]]
    for attribute in filter(None, said):
        labels[engine.schema.index(attribute)] = 1
    return engine.schema.describe(labels) if 1 in labels else "Nothing is above its threshold."


def draw_heat(engine: Engine, crops: Crops, index: int, attribute: str) -> tuple[str, bytes]:
    """(label, JPEG) of what one attribute looked at in one crop."""
    place = engine.schema.index(attribute)
    with engine.lock:
        values = heatmap.attribute_map(engine.model, crops.pixel_values[index : index + 1], place)
    label = {a: label for label, a in recognise.looked_at(engine.schema)}[attribute]
    return label, heatmap.blend(crops.image(index), values)


def show(engine: Engine, crops: Crops | None, index: int, mode: str, slider: float, attribute: str):
    """Everything on the right of the tab, for one crop of those that were given."""
    if crops is None:
        return "", cards.note("Choose a crop.", "empty"), "", ""
    index = min(max(index, 0), len(crops) - 1)
    threshold = None if mode == CALIBRATED else slider
    limits = engine.thresholds(threshold)
    decoded = engine.decode(crops.logits, threshold)
    found = recognise.findings(engine.schema, crops.logits[index], limits, decoded[index])
    heat = draw_heat(engine, crops, index, attribute) if attribute else None
    words = sentence(engine, decoded[index])
    table = recognise.rows(engine.schema, crops.names, decoded)
    as_json = recognise.to_json(engine.schema, crops.names, crops.logits, decoded)
    many = cards.strip(crops.names, crops.thumbnails, index) if len(crops) > 1 else ""
    return (
        many,
        cards.person(crops.names[index], crops.thumbnails[index], words, heat),
        cards.findings_grid(found),
        cards.downloads(recognise.to_csv(table), as_json),
    )


def inputs_column(engine: Engine, samples: Crops) -> dict:
    """The left of the tab: where crops come from, and how they are judged."""
    made = {}
    made["image"] = crop_input(
        label="Your crop",
        sources=["upload", "clipboard", "webcam"],
        height=260,
        buttons=[],
        elem_id="crop-input",
        placeholder=HINTS,
    )
    made["files"] = gr.UploadButton(
        "Several crops at once",
        file_count="multiple",
        file_types=["image"],
        size="sm",
        elem_id="crops-input",
    )
    gr.HTML('<h3 class="label">or one of the drawn samples</h3>')
    made["samples"] = gr.HTML(
        cards.strip(samples.names, samples.thumbnails), js_on_load=cards.PICK, elem_id="samples"
    )
    modes = [CALIBRATED, ONE] if engine.is_calibrated else [ONE]
    made["mode"] = gr.Radio(
        modes, value=modes[0], label="Threshold", visible=engine.is_calibrated, elem_id="mode"
    )
    made["slider"] = gr.Slider(
        0.05,
        0.95,
        value=0.5,
        step=0.01,
        label="Threshold: above it, a thing is said to be there",
        visible=not engine.is_calibrated,
        elem_id="threshold",
    )
    made["attribute"] = gr.Dropdown(
        [("nothing", ""), *recognise.looked_at(engine.schema)],
        value="",
        label="Heat map: where does it see",
        elem_id="heat",
    )
    return made


def build(engine: Engine, visitors: Visitors, samples: Crops) -> Callable:
    """The tab; returns what fills it when the page opens, with its outputs."""
    crops, index = gr.State(samples.part(slice(1)), time_to_live=3600), gr.State(0)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            made = inputs_column(engine, samples)
        with gr.Column(scale=7, min_width=320):
            strip = gr.HTML("", js_on_load=cards.PICK, elem_id="crops")
            person = gr.HTML("", elem_id="person")
            grid = gr.HTML("", elem_id="findings")
            links = gr.HTML("", elem_id="downloads")
    shown = [strip, person, grid, links]
    settings = [made["mode"], made["slider"], made["attribute"]]

    def one(path, mode, slider, attribute, request: gr.Request):
        if not path:
            return [None, 0, *show(engine, None, 0, mode, slider, attribute)]
        read = read_images(engine, visitors, [path], request)
        return [read, 0, *show(engine, read, 0, mode, slider, attribute)]

    def several(paths, mode, slider, attribute, request: gr.Request):
        read = read_images(engine, visitors, paths or [], request)
        return [None, read, 0, *show(engine, read, 0, mode, slider, attribute)]

    def sample(mode, slider, attribute, event: gr.EventData):
        place = picked(event, len(samples))
        chosen = samples.part(slice(place, place + 1))
        return [None, chosen, 0, *show(engine, chosen, 0, mode, slider, attribute)]

    def other(crops, mode, slider, attribute, event: gr.EventData):
        place = picked(event, len(crops))
        return [place, *show(engine, crops, place, mode, slider, attribute)]

    def again(crops, index, mode, slider, attribute):
        return show(engine, crops, index, mode, slider, attribute)

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    image, files = made["image"], made["files"]
    image.input(one, [image, *settings], [crops, index, *shown], api_visibility="private")
    files.upload(
        several, [files, *settings], [image, crops, index, *shown], api_visibility="private"
    )
    made["samples"].click(sample, settings, [image, crops, index, *shown], **quiet)
    strip.click(other, [crops, *settings], [index, *shown], **quiet)
    made["attribute"].input(again, [crops, index, *settings], shown, **quiet)
    made["slider"].change(again, [crops, index, *settings], shown, **quiet)
    made["mode"].input(
        lambda mode: gr.Slider(visible=mode == ONE), made["mode"], made["slider"], **quiet
    ).then(again, [crops, index, *settings], shown, **quiet)
    return again, [crops, index, *settings], shown


def picked(event: gr.EventData, count: int) -> int:
    """The place that was pressed, wherever the message came from."""
    place = event.pick
    if not isinstance(place, int) or not 0 <= place < count:
        raise gr.Error("There is no such crop any more.", print_exception=False)
    return place

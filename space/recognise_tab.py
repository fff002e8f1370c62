"""The tab "Recognise": crops in, what they show out."""

from collections.abc import Callable
from functools import lru_cache

import cards
import gradio as gr
import heatmap
import recognise
from engine import UNKNOWN, Crops, Engine
from visitors import Visitors, refuse, unopened, warn

MOST_CROPS = 32  # at once; a gallery of thousands belongs into the other tab
MOST_SHOWN = 128  # answers to samples that are kept, of 0.1 MB each
CALIBRATED, ONE = "Calibrated for each attribute", "One for all"
SUREST = "surest"
GIVEN = "given"  # the name under which the crops of this tab are kept
HINTS = "Drop, paste or photograph one person, cut out from head to foot."


def read_images(engine: Engine, visitors: Visitors, paths: list[str], request: gr.Request) -> Crops:
    """What was uploaded, recognised; files are forgotten with the session."""
    visitors.remember(request, paths)
    with refuse():
        crops, problems = engine.read_files(paths, MOST_CROPS, keep_pixels=True)
    warn(problems)
    return crops


def attributes_said(engine: Engine, decoded: dict) -> list[str]:
    """Every attribute that is said of a crop."""
    said = [group.options.get(decoded[group.name][0]) for group in engine.schema.groups]
    said += [flag.attribute for flag in engine.schema.flags if decoded[flag.name][0]]
    return [attribute for attribute in said if attribute]


def sentence(engine: Engine, said: list[str]) -> str:
    """Attributes in the words of the pseudo-descriptions."""
    if not said:
        return "Nothing is above its threshold."
    labels = [1 if name in said else UNKNOWN for name in engine.schema.attributes]
    return engine.schema.describe(labels)


def draw_heat(engine: Engine, crops: Crops, index: int, attribute: str) -> tuple[str, bytes]:
    """(label, JPEG) of what one attribute looked at in one crop."""
    place = engine.schema.index(attribute)
    with engine.lock:
        values = heatmap.attribute_map(engine.model, crops.pixel_values[index : index + 1], place)
    label = {a: label for label, a in recognise.looked_at(engine.schema)}[attribute]
    return label, heatmap.blend(crops.image(index), values)


def show(
    engine: Engine, crops: Crops | None, index: int, mode: str, slider: float, attribute: str
) -> str:
    """Everything on the right of the tab, for one crop of those that were given."""
    if crops is None:
        return cards.note("Choose a crop.", "empty")
    index = min(max(index, 0), len(crops) - 1)
    threshold = None if mode == CALIBRATED else slider
    decoded = engine.decode(crops.logits, threshold)
    limits = engine.thresholds(threshold)
    found = recognise.findings(engine.schema, crops.logits[index], limits, decoded[index])
    said = attributes_said(engine, decoded[index])
    if attribute == SUREST:
        places = [engine.schema.index(name) for name in said]
        surest = max(places, key=crops.logits[index].tolist().__getitem__, default=None)
        attribute = "" if surest is None else engine.schema.attributes[surest]
    heat = draw_heat(engine, crops, index, attribute) if attribute else None
    words = sentence(engine, said)
    table = recognise.rows(engine.schema, crops.names, decoded)
    as_json = recognise.to_json(engine.schema, crops.names, crops.logits, decoded)
    many = cards.strip(crops.names, crops.thumbnails, index) if len(crops) > 1 else ""
    links = cards.downloads(recognise.to_csv(table), as_json)
    name, jpeg = crops.names[index], crops.thumbnails[index]
    return many + cards.person(name, jpeg, words, heat, links) + cards.findings_grid(found)


def inputs_column(engine: Engine, samples: Crops) -> dict:
    """The left of the tab: where crops come from, and how they are judged."""
    made = {}
    made["image"] = unopened(
        gr.Image(
            type="filepath",
            image_mode=None,
            label="Your crop",
            sources=["upload", "clipboard", "webcam"],
            height=260,
            buttons=[],
            elem_id="crop-input",
            placeholder=HINTS,
        )
    )
    made["files"] = unopened(
        gr.UploadButton(
            "Several crops at once",
            file_count="multiple",
            file_types=["image"],
            size="sm",
            elem_id="crops-input",
        )
    )
    made["samples"] = gr.HTML(
        cards.strip(samples.names, samples.thumbnails, label="or one of these drawn people"),
        js_on_load=cards.PICK,
        elem_id="samples",
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
        label="Threshold of single items (the marks on the bars)",
        visible=not engine.is_calibrated,
        elem_id="threshold",
    )
    made["attribute"] = gr.Dropdown(
        [("its surest finding", SUREST), ("nothing", ""), *recognise.looked_at(engine.schema)],
        value=SUREST,
        label="Heat map: show what it looked at for",
        elem_id="heat",
    )
    return made


def build(engine: Engine, visitors: Visitors, samples: Crops) -> tuple[Callable, list, list]:
    """The tab; returns what fills it when the page opens, its inputs and its outputs."""
    index = gr.State(0)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            made = inputs_column(engine, samples)
        with gr.Column(scale=7, min_width=320):
            result = gr.HTML("", js_on_load=cards.PICK, elem_id="recognised")
    settings = [made["mode"], made["slider"], made["attribute"]]

    @lru_cache(MOST_SHOWN)
    def show_sample(place, *judged) -> str:
        return show(engine, samples.part(slice(place, place + 1)), 0, *judged)

    def shown(request, crops, *judged):
        visitors.keep(request, GIVEN, crops)
        return 0, show(engine, crops, 0, *judged)

    def one(path, mode, slider, attribute, request: gr.Request):
        crops = read_images(engine, visitors, [path], request) if path else None
        return shown(request, crops, mode, slider, attribute)

    def several(paths, mode, slider, attribute, request: gr.Request):
        crops = read_images(engine, visitors, paths or [], request)
        return None, *shown(request, crops, mode, slider, attribute)

    def sample(mode, slider, attribute, event: gr.EventData, request: gr.Request):
        place = picked(event, len(samples))
        visitors.keep(request, GIVEN, samples.part(slice(place, place + 1)))
        return None, 0, show_sample(place, mode, slider, attribute)

    def other(mode, slider, attribute, event: gr.EventData, request: gr.Request):
        crops = visitors.kept(request, GIVEN)
        place = picked(event, len(crops or ()))
        return place, show(engine, crops, place, mode, slider, attribute)

    def again(index, mode, slider, attribute, request: gr.Request):
        crops = visitors.kept(request, GIVEN)
        return show(engine, crops, index, mode, slider, attribute)

    def start(mode, slider, attribute, request: gr.Request):
        visitors.keep(request, GIVEN, samples.part(slice(1)))
        return 0, show_sample(0, mode, slider, attribute)

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    image, files = made["image"], made["files"]
    image.input(one, [image, *settings], [index, result], api_visibility="private")
    files.upload(several, [files, *settings], [image, index, result], api_visibility="private")
    made["samples"].click(sample, settings, [image, index, result], **quiet)
    result.click(other, settings, [index, result], **quiet)
    made["attribute"].input(again, [index, *settings], result, **quiet)
    made["slider"].change(again, [index, *settings], result, **quiet)
    made["mode"].input(
        lambda mode: gr.Slider(visible=mode == ONE), made["mode"], made["slider"], **quiet
    ).then(again, [index, *settings], result, **quiet)
    return start, settings, [index, result]


def picked(event: gr.EventData, count: int) -> int:
    """The place that was pressed, wherever the message came from."""
    place = event.pick
    if not isinstance(place, int) or not 0 <= place < count:
        raise gr.Error("There is no such crop any more.", print_exception=False)
    return place

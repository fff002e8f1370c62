"""The tab "Find people": a query by choices or in words, a gallery, the crops that fit best."""

from collections.abc import Callable

import cards
import find
import gradio as gr
import uploads
from engine import Crops, Engine
from recognise_tab import picked
from visitors import Visitors, refuse

DRAWN, OWN = "Drawn crops", "Your crops"
FORM, WORDS = "Choose attributes", "In your own words"
KINDS = {  # what a query is turned into, as it is called on the page
    "soft+hard": "Sentence + attributes",
    "soft": "Sentence alone",
    "words": "Attribute names alone",
    "hard": "Attributes alone",
}
START = {"gender": "female", "upper colour": ["red"]}  # where the schema has it
EXAMPLE = "a woman with long hair, a red top and a backpack"


def form(schema) -> tuple[list, gr.Dropdown, gr.Dropdown]:
    """One field for each choice, two for all flags."""
    fields = []
    with gr.Row(elem_classes="fields"):
        for group in schema.groups:
            start = START.get(group.name)
            fields.append(
                gr.Dropdown(
                    [("any", None)] * group.exclusive + [(v, v) for v in group.phrases],
                    value=start if start or not group.exclusive else None,
                    label=group.name,
                    multiselect=not group.exclusive,
                    min_width=130,
                    elem_classes="field",
                )
            )
    flags = [flag.name for flag in schema.flags]
    with_ = gr.Dropdown(flags, multiselect=True, label="with", elem_id="with")
    without = gr.Dropdown(flags, multiselect=True, label="without", elem_id="without")
    return fields, with_, without


def read_query(schema, way: str, text: str, values: list) -> tuple[dict, tuple[str, ...]]:
    """(query, words that were not understood) of the form or of the text.

    Raises:
        ValueError: for an empty query, and as the schema does.
    """
    if way == WORDS:
        if not (text or "").strip():
            raise ValueError("Say whom you are looking for.")
        return find.read_text(schema, text[:500])
    *chosen, wanted, unwanted = values
    names = [group.name for group in schema.groups]
    chosen = dict(zip(names, chosen, strict=True))
    query = find.build_query(schema, chosen, wanted or [], unwanted or [])
    if not query:
        raise ValueError("Choose at least one attribute.")
    return query, ()


def sent(engine: Engine, way: str, text: str, kind: str, values: list) -> str:
    """The box with what the language model reads; of a query that is none, why."""
    try:
        query, unknown = read_query(engine.schema, way, text, values)
        words = engine.sentence(engine.schema.query_values(query), kind)
    except ValueError as error:
        return cards.query_box("Your query", str(error))
    notes = [f"Not understood: {', '.join(unknown)}."] if unknown else []
    if not words:
        return cards.query_box("No sentence", "The attribute vector alone is asked.", notes)
    return cards.query_box("The language model reads", words, notes)


def search(engine: Engine, gallery: Crops, labels_of: dict, adapter: str, kind: str, count: int):
    """The best crops for a query dict."""
    labels = engine.schema.query_values(labels_of)
    query = engine.embed_query(labels, adapter, kind)
    best = find.ranking(engine.embed_crops(gallery, adapter) @ query, count)
    return hits_of(engine, gallery, best, labels_of)


def similar(engine: Engine, gallery: Crops, place: int, adapter: str, count: int):
    """The crops that lie nearest to one of them in the joint space."""
    embeds = engine.embed_crops(gallery, adapter)
    best = find.ranking(embeds @ embeds[place], count, without=place)
    (decoded,) = engine.decode(gallery.logits[place : place + 1], None)
    return hits_of(engine, gallery, best, find.traits(engine.schema, decoded))


def hits_of(engine: Engine, gallery: Crops, best: list[tuple[int, float]], query: dict) -> list:
    """The ranking with what the classifier says to each crop."""
    decoded = engine.decode(gallery.logits[[i for i, _ in best]], None) if best else []
    return [
        find.Hit(i, score, find.agreement(engine.schema, query, one, gallery.logits[i]))
        for (i, score), one in zip(best, decoded, strict=True)
    ]


def read_gallery(engine: Engine, visitors: Visitors, paths: list[str], progress) -> Crops:
    """The visitor's own gallery; the files are deleted as soon as they are read."""
    problems: list[str] = []
    try:
        with refuse():
            images = uploads.read_crops(paths, problems)
            crops = engine.read(images, report=lambda n: progress(None, desc=f"{n} crops read"))
    except gr.Error:
        if problems:
            raise gr.Error(" ".join(problems[:3]), print_exception=False) from None
        raise
    finally:
        uploads.discard(paths, visitors.folder)
    if problems:
        gr.Warning(f"{len(problems)} left out. {' '.join(problems[:3])}")
    return crops


def controls(engine: Engine) -> dict:
    """The left of the tab."""
    made = {}
    made["way"] = gr.Radio([FORM, WORDS], value=FORM, label="Query", elem_id="way")
    with gr.Group(visible=False) as made["words"]:
        made["text"] = gr.Textbox(
            label="Whom are you looking for?", placeholder=EXAMPLE, lines=2, elem_id="text"
        )
    with gr.Group() as made["form"]:
        fields, with_, without = form(engine.schema)
        made["values"] = [*fields, with_, without]
    adapters = list(engine.adapters)
    made["go"] = gr.Button("Find", variant="primary", elem_id="go")
    with gr.Accordion("Gallery: the drawn crops, or your own", open=False):
        made["source"] = gr.Radio([DRAWN, OWN], value=DRAWN, label="Search in", elem_id="source")
        with gr.Row():
            made["files"] = gr.UploadButton(
                "Images or a zip",
                file_count="multiple",
                file_types=["image", ".zip"],
                size="sm",
                elem_id="gallery-files",
            )
            made["folder"] = gr.UploadButton(
                "A folder", file_count="directory", size="sm", elem_id="gallery-folder"
            )
        gr.Markdown(
            f"At most {uploads.MAX_CROPS:,} crops, {uploads.MAX_UPLOAD_BYTES >> 20} MB a file. "
            "They are read, embedded and deleted at once; the embeddings live until you close "
            "the page."
        )
    with gr.Accordion("More", open=False):
        made["count"] = gr.Slider(1, 24, value=8, step=1, label="Crops to show", elem_id="count")
        made["adapter"] = gr.Dropdown(adapters, value=adapters[0], label="Retrieval adapter")
        kinds = engine.kinds(adapters[0])
        made["kind"] = gr.Dropdown(
            [(KINDS[kind], kind) for kind in kinds], value=kinds[0], label="Query is sent as"
        )
    return made


def build(engine: Engine, visitors: Visitors, drawn: Crops) -> tuple[Callable, list, list]:
    """The tab; returns what fills it when the page opens, its inputs and its outputs."""
    own = gr.State(None, time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            made = controls(engine)
        with gr.Column(scale=7, min_width=320):
            box = gr.HTML("", elem_id="sent")
            status = gr.HTML("", elem_id="status")
            results = gr.HTML("", js_on_load=cards.PICK, elem_id="results")
    query = [made["way"], made["text"], made["kind"], *made["values"]]
    where = [own, made["source"], made["adapter"], made["count"]]

    def gallery_of(own, source):
        if source == OWN and own is None:
            raise gr.Error("Give your own crops first.", print_exception=False)
        return own if source == OWN else drawn

    def told(hits, gallery, words):
        found = cards.results(hits, gallery.names, gallery.thumbnails)
        return cards.note(f"{words} of {len(gallery):,} crops."), found

    def go(own, source, adapter, count, way, text, kind, *values):
        gallery = gallery_of(own, source)
        with refuse():
            asked, _ = read_query(engine.schema, way, text, list(values))
            hits = search(engine, gallery, asked, adapter, kind, int(count))
        return sent(engine, way, text, kind, list(values)), *told(hits, gallery, "Best")

    def more(own, source, adapter, count, event: gr.EventData):
        gallery = gallery_of(own, source)
        place = picked(event, len(gallery))
        hits = similar(engine, gallery, place, adapter, int(count))
        box = cards.query_box("More like", gallery.names[place])
        return box, *told(hits, gallery, f"Nearest to {gallery.names[place]}")

    def take(paths, progress=gr.Progress()):  # noqa: B008  # Gradio finds it by its default
        read = read_gallery(engine, visitors, paths or [], progress)
        gr.Info(f"{len(read):,} crops are ready.")
        return read, OWN

    private, outputs = {"api_visibility": "private"}, [box, status, results]
    quiet = private | {"show_progress": "hidden"}
    made["go"].click(go, [*where, *query], outputs, **private)
    made["text"].submit(go, [*where, *query], outputs, **private)
    results.click(more, where, outputs, **private)
    for button in (made["files"], made["folder"]):
        button.upload(take, button, [own, made["source"]], **private).success(
            go, [*where, *query], outputs, **private
        )
    made["way"].change(
        lambda way: (gr.Group(visible=way == WORDS), gr.Group(visible=way == FORM)),
        made["way"],
        [made["words"], made["form"]],
        **quiet,
    )
    made["adapter"].change(
        lambda adapter: gr.Dropdown(
            [(KINDS[kind], kind) for kind in engine.kinds(adapter)], value=engine.kinds(adapter)[0]
        ),
        made["adapter"],
        made["kind"],
        **quiet,
    )
    gr.on(
        [component.change for component in query],
        lambda way, text, kind, *values: sent(engine, way, text, kind, list(values)),
        query,
        box,
        trigger_mode="always_last",
        **quiet,
    )
    return go, [*where, *query], outputs

"""The tab "Find people": a query by choices or in words, a gallery, the crops that fit best."""

from collections.abc import Callable

import cards
import find
import gradio as gr
import uploads
from engine import Crops, Engine
from recognise_tab import picked
from visitors import Visitors, refuse, unopened, warn

DRAWN, OWN = "Drawn crops", "Your crops"
FORM, WORDS = "By attributes", "In words"
ANY = "any"
KINDS = {  # what a query is turned into, as it is called on the page
    "soft+hard": "Sentence + attributes",
    "soft": "Sentence alone",
    "words": "Attribute names alone",
    "hard": "Attributes alone",
}
START = {"gender": "female", "upper colour": ["red"]}  # where the schema has it
FIRST = {  # choices that are shown at once, the others fold away
    *("gender", "age", "hair length", "hair colour"),
    *("upper colour", "upper type", "lower colour", "lower type"),
}
EXAMPLE = "a woman with long hair, a red top and a backpack"


def form(schema) -> list[gr.Dropdown]:
    """One field for each choice, in the schema's order, then two for all flags."""
    flags = [flag.name for flag in schema.flags]
    first = [group for group in schema.groups if group.name in FIRST] or list(schema.groups)
    rest = [group for group in schema.groups if group not in first]
    with gr.Row(elem_classes="fields"):
        fields = {group.name: field(group) for group in first}
    with gr.Row(elem_classes="fields"):
        marks = [
            gr.Dropdown(flags, multiselect=True, label=name, elem_id=name, elem_classes="several")
            for name in ("with", "without")
        ]
    if rest:
        with gr.Accordion("Style, sleeves, footwear", open=False), gr.Row(elem_classes="fields"):
            fields |= {group.name: field(group) for group in rest}
    return [*(fields[group.name] for group in schema.groups), *marks]


def field(group) -> gr.Dropdown:
    """The values of a choice; several, where a person may have several."""
    several = not group.exclusive
    return gr.Dropdown(
        list(group.phrases) if several else [ANY, *group.phrases],
        value=START.get(group.name, None if several else ANY),
        label=group.name,
        multiselect=several,
        min_width=130,
        elem_classes="several" if several else "single",
    )


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
    chosen = {name: None if v == ANY else v for name, v in zip(names, chosen, strict=True)}
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


def search(
    engine: Engine,
    gallery: Crops,
    labels_of: dict,
    adapter: str,
    kind: str,
    count: int,
    weighed: bool = True,
) -> list[find.Hit]:
    """The best crops for a query dict.

    Args:
        weighed: whether the classifier counts, where the adapter has a weight for it.
    """
    labels = engine.schema.query_values(labels_of)
    query = engine.embed_query(labels, adapter, kind)
    best = find.ranking(engine.scores(labels, query, gallery, adapter, weighed), count)
    return hits_of(engine, gallery, best, labels_of)


def measure_of(engine: Engine, adapter: str, weighed: bool) -> tuple[str, str]:
    """What the scores of a search are: in a word, and in a sentence."""
    weight = engine.evidence_weight(adapter)
    if not (weighed and weight):
        return "cosine", "Score: the cosine of query and crop in the joint space."
    scale = engine.adapters[adapter]["scale"]
    return "score", (
        f"Score: {scale:g} × cosine + {weight:g} × evidence, the classifier's mean log-probability "
        "of what is asked."
    )


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


def read_gallery(
    engine: Engine, visitors: Visitors, paths: list[str], progress, request: gr.Request
) -> Crops:
    """The visitor's own gallery; the files are deleted as soon as they are read."""
    with visitors.holding(request, paths), refuse():
        crops, problems = engine.read_files(
            paths,
            uploads.MAX_CROPS,
            report=lambda count: progress(None, desc=f"{count} crops read"),
        )
    warn(problems)
    return crops


def controls(engine: Engine) -> dict:
    """The left of the tab."""
    made = {}
    made["way"] = gr.Radio([FORM, WORDS], value=FORM, label="Query", elem_id="way")
    with gr.Group(visible=False) as made["words"]:
        made["text"] = gr.Textbox(
            label="Whom are you looking for?", placeholder=EXAMPLE, elem_id="text"
        )
    with gr.Group() as made["form"]:
        made["values"] = form(engine.schema)
    with gr.Accordion("Gallery: the drawn crops, or your own", open=False):
        made["source"] = gr.Radio([DRAWN, OWN], value=DRAWN, label="Search in", elem_id="source")
        with gr.Row():
            made["files"] = unopened(
                gr.UploadButton(
                    "Images or a zip",
                    file_count="multiple",
                    file_types=["image", ".zip"],
                    size="sm",
                    elem_id="gallery-files",
                )
            )
            made["folder"] = unopened(
                gr.UploadButton(
                    "A folder", file_count="directory", size="sm", elem_id="gallery-folder"
                )
            )
        gr.Markdown(
            f"At most {uploads.MAX_CROPS:,} crops, {uploads.MAX_UPLOAD_BYTES >> 20} MB a file, "
            f"{uploads.MAX_TOTAL_PIXELS // 10**6} megapixels in all. They are read, embedded "
            "and deleted; the embeddings live until you close the page."
        )
    return made | further_controls(engine)


def further_controls(engine: Engine) -> dict:
    """What most searches leave as it is."""
    made, adapters = {}, list(engine.adapters)
    with gr.Accordion("More", open=False):
        made["count"] = gr.Slider(1, 24, value=10, step=1, label="Crops to show", elem_id="count")
        made["adapter"] = gr.Dropdown(adapters, value=adapters[0], label="Retrieval adapter")
        kinds = engine.kinds(adapters[0])
        made["kind"] = gr.Dropdown(
            [(KINDS[kind], kind) for kind in kinds], value=kinds[0], label="Query is sent as"
        )
        made["weighed"] = gr.Checkbox(
            True,
            label="Use the classifier's evidence",
            info="Crops that show what is asked, by the classifier, move up. Off: cosine alone.",
            visible=bool(engine.evidence_weight(adapters[0])),
            elem_id="weighed",
        )
    return made


def actions(engine: Engine, visitors: Visitors, drawn: Callable[[], Crops]) -> tuple:
    """What the tab does: search, go on from a result, take a gallery."""

    def gallery_of(source, request: gr.Request) -> Crops:
        gallery = visitors.kept(request, OWN) if source == OWN else drawn()
        if gallery is None:
            raise gr.Error("Give your own crops first.", print_exception=False)
        return gallery

    def told(hits, gallery, words, measure, meaning):
        found = cards.results(hits, gallery.names, gallery.thumbnails, measure)
        return cards.note(f"{words} of {len(gallery):,} crops. {meaning}") + found

    def go(request: gr.Request, source, adapter, count, weighed, way, text, kind, *values):
        gallery = gallery_of(source, request)
        with refuse():
            asked, _ = read_query(engine.schema, way, text, list(values))
            hits = search(engine, gallery, asked, adapter, kind, int(count), weighed)
        measure = measure_of(engine, adapter, weighed)
        return sent(engine, way, text, kind, list(values)), told(hits, gallery, "Best", *measure)

    def more(source, adapter, count, event: gr.EventData, request: gr.Request):
        gallery = gallery_of(source, request)
        place = picked(event, len(gallery))
        hits = similar(engine, gallery, place, adapter, int(count))
        box = cards.query_box("More like", gallery.names[place])
        words, meaning = f"Nearest to {gallery.names[place]}", "Score: their cosine."
        return box, told(hits, gallery, words, "cosine", meaning)

    # Gradio finds the progress by its default.
    def take(paths, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        read = read_gallery(engine, visitors, paths or [], progress, request)
        visitors.keep(request, OWN, read)
        gr.Info(f"{len(read):,} crops are ready.")
        return OWN

    return go, more, take


def build(
    engine: Engine, visitors: Visitors, drawn: Callable[[], Crops]
) -> tuple[Callable, list, list]:
    """The tab; returns what fills it when the page opens, its inputs and its outputs."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            made = controls(engine)
        with gr.Column(scale=7, min_width=320):
            with gr.Row(elem_classes="asked"):
                box = gr.HTML("", elem_id="sent", scale=6)
                made["go"] = gr.Button("Find", variant="primary", elem_id="go", scale=1)
            results = gr.HTML("", js_on_load=cards.PICK, elem_id="results")
    query = [made["way"], made["text"], made["kind"], *made["values"]]
    where = [made["source"], made["adapter"], made["count"]]
    asked, outputs = [*where, made["weighed"], *query], [box, results]
    go, more, take = actions(engine, visitors, drawn)
    private = {"api_visibility": "private"}
    made["go"].click(go, asked, outputs, **private)
    made["text"].submit(go, asked, outputs, **private)
    results.click(more, where, outputs, **private)
    for button in (made["files"], made["folder"]):
        taken = button.upload(take, button, made["source"], **private)
        taken.success(go, asked, outputs, **private)
    adapt(engine, made, query, box)
    return go, asked, outputs


def adapt(engine: Engine, made: dict, query: list, box: gr.HTML) -> None:
    """Let the fields follow each other, and the box follow the query as it is typed."""
    quiet = {"api_visibility": "private", "show_progress": "hidden"}

    def fields_of(adapter: str) -> tuple[gr.Dropdown, gr.Checkbox]:
        kinds, weight = engine.kinds(adapter), engine.evidence_weight(adapter)
        offered = [(KINDS[kind], kind) for kind in kinds]
        return gr.Dropdown(offered, value=kinds[0]), gr.Checkbox(visible=bool(weight))

    made["way"].change(
        lambda way: (gr.Group(visible=way == WORDS), gr.Group(visible=way == FORM)),
        made["way"],
        [made["words"], made["form"]],
        **quiet,
    )
    fields = [made["kind"], made["weighed"]]
    made["adapter"].change(fields_of, made["adapter"], fields, **quiet)
    gr.on(
        [component.change for component in query],
        lambda way, text, kind, *values: sent(engine, way, text, kind, list(values)),
        query,
        box,
        trigger_mode="always_last",
        **quiet,
    )

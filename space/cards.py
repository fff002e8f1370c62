"""HTML of what is shown; every text that comes from a file or a visitor goes through `text`."""

import base64
import html
from collections.abc import Sequence

from find import Hit
from recognise import Bar, Finding

SHOWN_FLAGS = 3  # flags of a section that are shown although they are not there
# Gradio reads the HTML as a template: what opens a placeholder must not come from a file's name.
TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
# A press on anything with `data-pick` sends its number; keyboards press buttons as mice do.
PICK = """
element.addEventListener('click', (event) => {
  const chosen = event.target.closest('[data-pick]');
  if (chosen) trigger('click', {pick: Number(chosen.dataset.pick)});
});
"""


def text(words: object) -> str:
    """Any text, made harmless."""
    return html.escape(str(words)).translate(TEMPLATE_SIGNS)


def picture(jpeg: bytes, alt: str) -> str:
    """An image inside the page: nothing is written to disk for it."""
    return f'<img alt="{text(alt)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def percent(probability: float) -> str:
    """A probability as it is read; never 100% or 0% of what is not certain."""
    return f"{min(max(round(100 * probability), 1), 99)}%"


# ---- recognition ------------------------------------------------------------------------------


def strip(
    names: Sequence[str], thumbnails: Sequence[bytes], chosen: int | None = None, label: str = ""
) -> str:
    """Small crops to press on, one line that scrolls."""
    buttons = "".join(
        f'<button type="button" data-pick="{i}" aria-label="Show {text(name)}" '
        f'aria-pressed="{str(i == chosen).lower()}">{picture(jpeg, name)}</button>'
        for i, (name, jpeg) in enumerate(zip(names, thumbnails, strict=True))
    )
    heading = f'<h3 class="label">{text(label)}</h3>' if label else ""
    return f'{heading}<div class="strip">{buttons}</div>'


def meter(bar: Bar) -> str:
    """A name, a bar with its threshold, a probability."""
    width, said = 100 * bar.probability, "said" if bar.is_said else "unsaid"
    mark = "" if bar.threshold is None else f'<i style="left:{100 * bar.threshold:.0f}%"></i>'
    return (
        f'<div class="bar {said}"><span class="name">{text(bar.name)}</span>'
        f'<span class="track" role="meter" aria-label="{text(bar.name)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{width:.0f}"><b style="width:{width:.1f}%"></b>{mark}'
        f'</span><span class="value">{percent(bar.probability)}</span></div>'
    )


def section_card(name: str, findings: Sequence[Finding]) -> str:
    """One section: its choices, its flags that are there, and the likeliest that are not."""
    choices = [finding for finding in findings if finding.is_choice]
    flags = [finding for finding in findings if not finding.is_choice]
    there = [flag for flag in flags if flag.bars[0].is_said]
    absent = [flag for flag in flags if not flag.bars[0].is_said]
    body = "".join(map(choice, choices)) + "".join(meter(f.bars[0]) for f in there)
    body += "".join(meter(f.bars[0]) for f in absent[:SHOWN_FLAGS])
    if rest := absent[SHOWN_FLAGS:]:
        bars = "".join(meter(f.bars[0]) for f in rest)
        body += f"<details><summary>{len(rest)} less likely</summary>{bars}</details>"
    return f'<section class="card"><h3>{text(name)}</h3>{body}</section>'


def choice(finding: Finding) -> str:
    """The name of a choice above its values."""
    bars = "".join(map(meter, finding.bars))
    return f'<div class="choice"><h4>{text(finding.name)}</h4>{bars}</div>'


def person(
    name: str, jpeg: bytes, sentence: str, heat: tuple[str, bytes] | None, links: str = ""
) -> str:
    """The crop, its heat map when one is asked for, and all that was recognised in one sentence.

    Args:
        heat: label and JPEG of the map. links: HTML below the sentence.
    """
    figures = f"<figure>{picture(jpeg, name)}<figcaption>{text(name)}</figcaption></figure>"
    if heat:
        label, image = heat
        figures += (
            f"<figure>{picture(image, f'Heat map of {label}')}"
            f"<figcaption>looked at for <em>{text(label)}</em></figcaption></figure>"
        )
    return (
        f'<div class="person">{figures}<div class="said-of"><small>Recognised</small>'
        f"{text(sentence)}{links}</div></div>"
    )


def findings_grid(found: dict[str, list[Finding]]) -> str:
    """All sections side by side."""
    return f'<div class="sections">{"".join(section_card(*item) for item in found.items())}</div>'


def downloads(csv: str, json: str) -> str:
    """Links that hold their files: what was recognised never lies on the server."""
    links = "".join(
        f'<a class="download" download="attributes.{kind}" '
        f'href="data:{media};base64,{base64.b64encode(content.encode()).decode()}">'
        f"Download {kind.upper()}</a>"
        for kind, media, content in (("csv", "text/csv", csv), ("json", "application/json", json))
    )
    return f'<div class="downloads">{links}</div>'


# ---- retrieval --------------------------------------------------------------------------------


def results(
    hits: Sequence[Hit], names: Sequence[str], thumbnails: Sequence[bytes], measure: str = "cosine"
) -> str:
    """The ranked crops as cards.

    Args:
        measure: what the scores are, in a word.
    """
    cards = "".join(
        result(rank, hit, names[hit.index], thumbnails[hit.index], measure)
        for rank, hit in enumerate(hits, start=1)
    )
    return f'<div class="results">{cards}</div>'


def result(rank: int, hit: Hit, name: str, jpeg: bytes, measure: str) -> str:
    """One crop: rank, score, what agrees, and the button to go on from it."""
    chips = "".join(
        f'<li class="{"agrees" if agrees else "differs"}" title="{percent(p)} by the classifier">'
        f"<span>{'✓' if agrees else '✗'} {text(label)}</span><small>{percent(p)}</small></li>"
        for label, p, agrees in hit.agreement
    )
    return (
        f'<article class="result"><div class="shot">{picture(jpeg, name)}'
        f'<span class="rank">{rank}</span><span class="score">'
        f"{text(measure)} {hit.score:.2f}</span></div>"
        f'<ul class="chips">{chips}</ul><button type="button" class="more" '
        f'data-pick="{hit.index}" aria-label="Find more like {text(name)}">More like this</button>'
        f"</article>"
    )


def query_box(heading: str, sentence: str, notes: Sequence[str] = ()) -> str:
    """What the language model reads, as it reads it, and what was passed over."""
    said = "".join(f'<p class="note">{text(note)}</p>' for note in notes)
    return f'<div class="said-of"><small>{text(heading)}</small>{text(sentence)}{said}</div>'


def note(words: str, kind: str = "note") -> str:
    """A line of plain text."""
    return f'<p class="{kind}">{text(words)}</p>'

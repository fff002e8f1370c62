"""A searchable gallery of person crops, on one machine or a cluster: library and command line.

    clear-gallery build people.gallery crops/
    clear-gallery search people.gallery "woman with a red top and a backpack" --figure found.png

The same from Python:

    from clear_par.gallery_clear import Gallery, load_embedder
    gallery, report = Gallery.build("people.gallery", "crops/", load_embedder("MODEL"))
    for hit in gallery.search("woman with a red top and a backpack").hits:
        print(hit.rank, hit.score, hit.image, hit.matched)

Crops lie in a LanceDB table: one folder without a server, or object storage. The parts are in
`gallery/`; docs/gallery.md says when one machine is no longer enough.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clear_par.gallery.building import BuildReport
from clear_par.gallery.gallery import BuildOptions, Gallery, load_embedder
from clear_par.gallery.options import constants_of, parser, searches_of, tuning_of
from clear_par.gallery.output import render
from clear_par.gallery.searching import Found, Hit, Search
from clear_par.gallery.table import GalleryTable

ROOT = Path(__file__).resolve().parent


def build(arguments: argparse.Namespace) -> None:
    """Make a gallery."""
    options = build_options(arguments)
    options.open(arguments.images)  # wrong images are said before a model is loaded
    embedder = load_embedder(arguments.model or str(ROOT), arguments.adapter, arguments.device)
    gallery, report = Gallery.build(arguments.gallery, arguments.images, embedder, options)
    print_report(gallery, report)


def add(arguments: argparse.Namespace) -> None:
    """Add to a gallery."""
    options = build_options(arguments)
    options.open(arguments.images)
    gallery = open_gallery(arguments)
    print_report(gallery, gallery.add(arguments.images, options))


def build_options(arguments: argparse.Namespace) -> BuildOptions:
    """How images are read and embedded."""
    return BuildOptions(
        arguments.split,
        arguments.name_pattern,
        constants_of(arguments.set),
        arguments.keep_jpeg,
        arguments.batch_size,
        arguments.ray,
    )


def open_gallery(arguments: argparse.Namespace) -> Gallery:
    """The gallery with its model."""
    table = GalleryTable.open(arguments.gallery)
    embedder = load_embedder(arguments.model, arguments.adapter, arguments.device, table)
    return Gallery(table, embedder)


def print_report(gallery: Gallery, report: BuildReport) -> None:
    """What a build has done, said once; broken images belong to the errors."""
    if not report.is_main:
        return
    first, *broken = report.summary().splitlines()
    print(f"{first}\n{gallery.table.uri}: {gallery.table.count()} crops.")
    for line in broken:
        print(line, file=sys.stderr)


def search(arguments: argparse.Namespace) -> None:
    """Search a gallery."""
    searches = searches_of(arguments)
    gallery = open_gallery(arguments)
    found = gallery.search_many(searches, arguments.ray)
    text = render(found, arguments.format)
    if arguments.output is None:
        print(text)
    else:
        write(arguments.output, text)
    if arguments.figure is not None:
        draw(gallery, found, arguments.figure)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def draw(gallery: Gallery, found: Sequence[Found], path: Path) -> None:
    """Draw what was found, and say which crops are no longer in their place."""
    from clear_par.gallery.contact_sheet import draw_contact_sheet

    if missing := draw_contact_sheet(gallery.table, found, path):
        print(f"{missing} crops are no longer in their source: grey in {path}.", file=sys.stderr)


def remove(arguments: argparse.Namespace) -> None:
    """Remove crops."""
    chosen = (arguments.id, arguments.filter, arguments.source)
    if not any(chosen) and not arguments.finish:
        raise ValueError("`--id`, `--filter`, `--source` or `--finish` must be given, got none.")
    gallery = Gallery.open(arguments.gallery)
    count = gallery.remove(*chosen)
    facts = gallery.table.facts()
    print(
        f"{count} crops removed, {facts['crops']} left; {facts['versions']} version on the disk, "
        f"{facts['removed_rows_on_disk']} removed rows in it."
    )


def info(arguments: argparse.Namespace) -> None:
    """Say what a gallery is."""
    tuning = tuning_of(arguments)
    if arguments.tune:
        said = sys.stderr if arguments.json else sys.stdout
        open_gallery(arguments).tune(say=lambda line: print(line, file=said), **tuning)
    facts = Gallery.open(arguments.gallery).info()
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


COMMANDS = {"build": build, "add": add, "search": search, "remove": remove, "info": info}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what the user got wrong ends it with one message."""
    parsed = parser().parse_args(arguments)
    try:
        COMMANDS[parsed.command](parsed)
    except (ValueError, OSError) as error:
        raise SystemExit(f"clear-gallery: error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("clear-gallery: stopped; the same command goes on from here.") from None


__all__ = ["BuildOptions", "Found", "Gallery", "Hit", "Search", "load_embedder", "main"]

if __name__ == "__main__":
    main()

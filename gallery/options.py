"""The command line of `clear-gallery`: commands, options, and what they teach."""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

from .index_settings import EXACT, IVF
from .output import FORMATS
from .searching import Search

EXAMPLES = """
  clear-gallery build people.gallery crops/
  clear-gallery search people.gallery "woman with a red top and a backpack"

More:
  clear-gallery search people.gallery '{"upper colour": "red", "backpack": true}' --figure found.png
  clear-gallery search people.gallery --image example.jpg --filter "camera = 'c1' AND NOT backpack"
  clear-gallery search people.gallery --queries queries.jsonl --format csv --output found.csv
  clear-gallery add people.gallery more.zip --set camera=entrance
  clear-gallery info people.gallery --tune
  clear-gallery remove people.gallery --filter "time < '2024-05-01'"
"""
BUILD = """
IMAGES is a folder (with all below it), a zip file, a Parquet file or a folder of them, a folder of
datasets' save_to_disk, a builder of this project ("peta@FOLDER") or a Hub id. metadata.csv or
metadata.jsonl beside the images, with a column file_name, become columns; camera and time (ISO
8601, UTC where no zone is given) are known by these names.

Started again after an interruption, the same command goes on where it stopped. Images with the
same bytes are kept once. Several processes or GPUs:
  accelerate launch --multi_gpu --num_processes 4 -m clear_par.gallery_clear build ...
"""
SEARCH = """
QUERY is a sentence, or JSON: {"upper colour": "red", "backpack": true} or ["hat", "backpack"].
The score is the cosine; where the adapter says so, "scale * cosine + weight * evidence" of the
attributes that the classifier sees. With --image as well it is the weighted mean of both.

FILTER is a condition over the columns that `info` lists and over the attributes, whose columns are
probabilities and mean "above 0.5" when they stand alone:
  camera IN ('c1', 'c2') AND time BETWEEN '2024-05-01' AND '2024-05-02T12:00' AND NOT accessoryHat
  "upper colour red" > 0.8 OR shop LIKE 'north%'     (names with spaces in double quotes)

--queries FILE: .txt with a sentence in each line; .jsonl with {"query", "image", "filter",
"top_k", "image_weight"} in each line; .csv with such columns.
"""
REMOVE = """
Rows leave the table at once and the disk before the command ends: the table and its index are
written anew, earlier versions are dropped. Searches that run meanwhile go on. `info` shows that
nothing is left.
"""
INFO = """
--tune measures recall and latency with descriptions of crops of this gallery, not with images, for
which any index looks perfect; it chooses exact search while that is fast, else the least of the
lists of an index that reaches --recall without and with filters, and stores that in the gallery.
"""


def parser() -> argparse.ArgumentParser:
    """All commands."""
    top = argparse.ArgumentParser(
        prog="clear-gallery",
        description="Find people in a gallery of crops by a sentence, attributes or an image.",
        epilog=f"Two commands from a folder to a ranked list:{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add, name, words, more in (
        (_add_build, "build", "make a gallery from images, or go on with one", BUILD),
        (_add_build, "add", "add images to a gallery", BUILD),
        (_add_search, "search", "rank the crops", SEARCH),
        (_add_remove, "remove", "remove crops from gallery and disk", REMOVE),
        (_add_info, "info", "say what a gallery holds; tune its index", INFO),
    ):
        command = commands.add_parser(
            name,
            help=words,
            description=f"{words[0].upper()}{words[1:]}.\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("gallery", help="folder of the gallery, or s3://bucket/name")
        add(command)
    return top


def _add_model(command: argparse.ArgumentParser, default: str) -> None:
    add = command.add_argument
    add("--model", help=f"folder or Hub id of the model (default: {default})")
    add("--adapter", help="retrieval adapter (default: the gallery's, or MODEL/adapters/peta)")
    add("--device", help='such as "cpu" or "cuda:1" (default: a GPU where there is one)')
    add(
        "--ray",
        metavar="ADDRESS",
        help='work on a Ray cluster: "auto", "ray://HOST:10001", or "local" for two workers here',
    )


def _add_build(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("images", help="folder, zip, Parquet, data set or Hub id")
    is_new = command.prog.endswith(" build")
    _add_model(command, "that of this checkout" if is_new else "the gallery's")
    add("--split", help="of a data set (default: all)")
    add(
        "--name-pattern",
        metavar="REGEX",
        help="find metadata in file names: '_c(?P<camera>[0-9]+)s' gives the camera",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="metadata of all images, such as camera=entrance; may be repeated",
    )
    add("--keep-jpeg", action="store_true", help="keep the crops in the gallery, as JPEG")
    add("--batch-size", type=int, default=64, help="crops that go through the model together (64)")


def _add_search(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("query", nargs="?", help="a sentence, or JSON")
    add("--image", help="an example image, alone or beside the query")
    add("--image-weight", type=float, default=0.5, help="share of the image in the score (0.5)")
    add("--filter", help="condition that crops must meet")
    add("--top-k", type=int, default=10, help="crops to find (10)")
    add("--queries", type=Path, metavar="FILE", help="many searches from a file")
    add("--exact", action="store_true", help="compare with every crop, whatever index there is")
    add(
        "--no-evidence",
        dest="evidence",
        action="store_false",
        help="rank by the cosine alone, whatever weight the adapter gives to the attributes seen",
    )
    add("--format", choices=FORMATS, default="table", help="of the output (table)")
    add("--output", type=Path, metavar="FILE", help="write there instead of printing")
    add("--figure", type=Path, metavar="PNG", help="draw the crops found")
    _add_model(command, "the gallery's")


def _add_remove(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--id", nargs="+", default=[], metavar="ID", help="ids, as `search` shows them")
    add("--filter", help="condition that the removed crops meet; see search")
    add("--source", help="a source, as `info` shows it")
    add("--finish", action="store_true", help="clear away what a killed removal has left")


def _add_info(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--json", action="store_true", help="print JSON")
    add("--tune", action="store_true", help="choose and tune the index")
    add("--num-queries", type=int, help="descriptions that --tune asks (50)")
    add("--recall", type=float, help="recall@10 that --tune must reach (0.95)")
    add("--index", choices=(EXACT, IVF), help="let --tune take this kind (default: by speed)")
    _add_model(command, "the gallery's")


def tuning_of(arguments: argparse.Namespace) -> dict:
    """The options of `info --tune` that were given, as arguments of `Gallery.tune`.

    Raises:
        ValueError: when one that only tuning reads was given without `--tune`.
    """
    names = ("num_queries", "recall", "index", "model", "adapter", "device", "ray")
    given = {name: vars(arguments)[name] for name in names if vars(arguments)[name] is not None}
    if given and not arguments.tune:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise ValueError(f"`{option}` must be given together with `--tune`, got it alone.")
    renamed = {"index": "kind"}
    read = ("num_queries", "recall", "index", "ray")
    return {renamed.get(name, name): value for name, value in given.items() if name in read}


# ---- values ---------------------------------------------------------------------------------


def constants_of(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE of `--set` as a dict.

    >>> constants_of(["camera=north gate"])
    {'camera': 'north gate'}
    """
    for pair in pairs:
        if "=" not in pair[1:]:
            raise ValueError(f"`--set` must be NAME=VALUE, got {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs)


def query_of(text: str | None):
    """A query as written on the command line: JSON where it looks like that, else a sentence.

    >>> query_of('["hat"]'), query_of("a hat")
    (['hat'], 'a hat')
    """
    if text is None or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"`query` must be a sentence or JSON, got {text!r}: {error}.") from None


def searches_of(arguments: argparse.Namespace) -> list[Search]:
    """The searches of a command line; options hold for all searches of a file."""
    shared = {
        "filter": arguments.filter,
        "top_k": arguments.top_k,
        "image_weight": arguments.image_weight,
        "exact": arguments.exact,
        "evidence": arguments.evidence,
    }
    if arguments.queries is None:
        return [Search(query_of(arguments.query), arguments.image, **shared)]
    if arguments.query is not None or arguments.image is not None:
        raise ValueError("`--queries` must stand alone, got a query or an image beside it.")
    rows = _read_queries(arguments.queries)
    if not rows:
        raise ValueError(f"`--queries` must hold searches, got {str(arguments.queries)!r} empty.")
    return [Search(**{**shared, **row}) for row in rows]


def _read_queries(path: Path) -> list[dict]:
    """The fields of Search in each line of a file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        lines = [line for line in lines if line.strip()]
        if path.suffix == ".jsonl":
            return [_checked(json.loads(line)) for line in lines]
        if path.suffix == ".csv":
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
            return [_checked(_typed(row)) for row in rows]
        return [{"query": query_of(line)} for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"`--queries` must be readable, got {str(path)!r}: {error}") from None


def _typed(row: dict) -> dict:
    casts = {"top_k": int, "image_weight": float, "query": query_of}
    return {name: casts.get(name, str)(value) for name, value in row.items()}


def _checked(row: dict) -> dict:
    known = ("query", "image", "filter", "top_k", "image_weight")
    if not isinstance(row, dict) or not row or set(row) - set(known):
        raise ValueError(f"a search has fields of {known}, got {row}")
    return row


__all__ = ["constants_of", "parser", "query_of", "searches_of", "tuning_of"]

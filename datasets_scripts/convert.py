"""Convert a person data set to Parquet with the images inside, for stock `load_dataset`.

python -m clear_par.datasets_scripts.convert peta data/PETA --output peta-parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .parquet_folder import write_folder
from .person_dataset import BUILDERS, open_person_dataset
from .publish import PublishError, add_push_options, push_from


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clear_par.datasets_scripts.convert",
        description=__doc__.splitlines()[0],
        epilog="The output is a data set card, schema.json and Parquet files with the original "
        "image bytes; it appears only when it is whole. Terms of use stay those of the owners.",
    )
    parser.add_argument(
        "dataset",
        help=f"{', '.join(BUILDERS)}, a folder of your own data, or the JSON file of a mixture",
    )
    parser.add_argument("source", nargs="?", help="folder of the official download, for a builder")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--config_name", help="such as partition0; default: the one papers use")
    parser.add_argument(
        "--allow-partial", action="store_true", help="leave out images that are missing or broken"
    )
    parser.add_argument("--push-to-hub", metavar="ID", help="owner/name; needs a login")
    add_push_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line: convert, then push if asked for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.private or options.public or options.i_may_publish) and not options.push_to_hub:
        parser.error("--private, --public and --i-may-publish belong to --push-to-hub")
    partial = {"allow_partial": True} if options.allow_partial else {}
    try:
        data = open_person_dataset(options.dataset, options.source, options.config_name, **partial)
        conversion = write_folder(data, options.output)
        print(f"{conversion.split_sizes} in {options.output}")
        if options.push_to_hub:
            push_from(options, options.output, options.push_to_hub)
    except (ValueError, FileNotFoundError, PublishError) as error:
        raise SystemExit(f"convert: error: {error}") from None


if __name__ == "__main__":
    main()

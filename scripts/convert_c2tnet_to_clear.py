"""Convert a checkpoint of the authors' C2T-Net into a repository that AutoModel loads.

    python scripts/convert_c2tnet_to_clear.py --checkpoint best_model.pth --output clear-upar

Every key is accounted for: a checkpoint with one that is missing, unexpected or of another shape
is refused with the whole list, and nothing is written. Sizes come from the tensors; what tensors
do not tell (image size, heads of the global branch and of the fusion) are options. The result
gives the numbers of the authors' code, and needs neither that code nor mmcv.

    model = AutoModel.from_pretrained("clear-upar", trust_remote_code=True)
    processor = AutoProcessor.from_pretrained("clear-upar", trust_remote_code=True)
    processor.decode(model(**processor(images="crop.jpg", return_tensors="pt")).logits)
"""

import argparse
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import ClearConfig
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.scripts.c2tnet_checkpoint import (
    CheckpointSizes,
    check_indices,
    check_keys,
    convert_tensors,
    key_table,
    read_checkpoint,
    shapes_of,
    table_lines,
)

SCHEMAS = Path(__file__).resolve().parents[1] / "datasets_scripts" / "schemas"
HEAD_WIDTH = 64  # of the plain vision transformers in timm, unless an option says otherwise


# ---- attributes -----------------------------------------------------------------------------


def schemas_by_count(count: int) -> dict[str, AttributeSchema]:
    """Schemas of the known data sets, by name, with all or all evaluated attributes this many."""
    known = {path.stem: AttributeSchema.from_json(path) for path in sorted(SCHEMAS.glob("*.json"))}
    sized = {name: sized_schema(schema, count) for name, schema in known.items()}
    return {name: schema for name, schema in sized.items() if schema is not None}


def sized_schema(schema: AttributeSchema, count: int) -> AttributeSchema | None:
    """The schema, or that of its evaluated attributes, if it has this many; else None."""
    if schema.num_attributes == count:
        return schema
    return schema.subset(schema.evaluated) if len(schema.evaluated) == count else None


def read_schema(attributes: str) -> AttributeSchema:
    """The schema of a known data set, of a schema file (.json), or of a file of names."""
    path = SCHEMAS / f"{attributes}.json"
    if path.is_file():
        return AttributeSchema.from_json(path)
    path = Path(attributes)
    if not path.is_file():
        names = ", ".join(sorted(known.stem for known in SCHEMAS.glob("*.json")))
        raise ValueError(
            f"`--attributes` must be one of {names}, or a file of names, one a line, or a schema "
            f"in JSON, got {attributes!r}."
        )
    if path.suffix == ".json":
        return AttributeSchema.from_json(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return AttributeSchema.from_names([line.strip() for line in lines if line.strip()], path.stem)


def schema_for(attributes: str | None, count: int) -> AttributeSchema:
    """The schema that the option names, or the only one with as many attributes as the head.

    Without the option and a schema that fits, attributes are called by their number.

    Raises:
        ValueError: when the counts differ; without the option, when several schemas fit.
    """
    if attributes is not None:
        given = read_schema(attributes)
        schema = sized_schema(given, count)
        if schema is None:
            raise ValueError(
                f"`--attributes` must name the {count} outputs of the checkpoint, got "
                f"{given.num_attributes} in {attributes!r}. Give a file of {count} names, one a "
                "line, in the order of the outputs."
            )
        return schema
    fitting = schemas_by_count(count)
    if not fitting:
        warnings.warn(
            f"No known data set has the {count} attributes of the checkpoint: they are called by "
            f"their number. Give `--attributes` a file of {count} names, one a line, to name them.",
            stacklevel=2,
        )
        return AttributeSchema.from_names([f"attribute {i}" for i in range(count)])
    if len(fitting) > 1:
        raise ValueError(
            f"`--attributes` must be given: both {' and '.join(fitting)} have the {count} "
            f"attributes of the checkpoint. Name the data set, or give a file of {count} names, "
            "one a line, in their order."
        )
    return next(iter(fitting.values()))


# ---- configuration --------------------------------------------------------------------------


def size_fits(sizes: CheckpointSizes, height: int, width: int) -> bool:
    """Whether an image of this size gives each part as many tokens as its tensors have."""
    step = sizes.local_patch_size << (len(sizes.local_tokens) - 1)
    grid = height // sizes.local_patch_size, width // sizes.local_patch_size
    local = [(grid[0] >> stage) * (grid[1] >> stage) for stage in range(len(sizes.local_tokens))]
    patch = sizes.global_patch_size
    is_whole = height % step == 0 and width % step == 0
    return (
        is_whole
        and local == sizes.local_tokens
        and 1 + (height // patch) * (width // patch) == sizes.global_tokens
    )


def fitting_sizes(sizes: CheckpointSizes) -> list[tuple[int, int]]:
    """Every (height, width) in pixels that fits the tensors."""
    tokens, patch = sizes.local_tokens[0], sizes.local_patch_size
    grids = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    images = [(rows * patch, columns * patch) for rows, columns in grids]
    return [image for image in images if size_fits(sizes, *image)]


def check_image_size(sizes: CheckpointSizes, height: int, width: int) -> None:
    """Refuse an image size that the tensors contradict, naming those that fit."""
    if not size_fits(sizes, height, width):
        fitting = " or ".join(f"{h} {w}" for h, w in fitting_sizes(sizes)) or "none does"
        raise ValueError(
            f"`--image-size` must fit the checkpoint: {sizes.local_tokens} tokens in the channel "
            f"attentions, {sizes.global_tokens} position embeddings. Got {height} {width}; what "
            f"fits: {fitting}."
        )


def global_heads_for(width: int, heads: int | None) -> int:
    """Heads of the global branch: those of the option, else the width / 64."""
    if heads is None and width % HEAD_WIDTH:
        raise ValueError(
            f"`--global-heads` must be given: width {width} of the global branch is no multiple "
            f"of {HEAD_WIDTH}."
        )
    return width // HEAD_WIDTH if heads is None else heads


def check_widths(sizes: CheckpointSizes) -> None:
    """The authors' fusion has no projections: both branches must have its width."""
    widths = sizes.local_widths[-1], sizes.global_width, sizes.fusion_width
    if len(set(widths)) > 1:
        raise ValueError(
            "`--checkpoint` must have one width where its branches meet, got local "
            f"{widths[0]}, global {widths[1]}, fusion {widths[2]}."
        )


def build_config(
    sizes: CheckpointSizes,
    schema: AttributeSchema,
    image_size: tuple[int, int] = (256, 128),
    global_heads: int | None = None,
    fusion_heads: int = 8,
) -> ClearConfig:
    """The configuration of a checkpoint: sizes of its tensors, the rest as given."""
    check_widths(sizes)
    check_image_size(sizes, *image_size)
    return ClearConfig(
        image_height=image_size[0],
        image_width=image_size[1],
        local_patch_size=sizes.local_patch_size,
        local_window_size=sizes.local_window_size,
        local_embed_dim=sizes.local_widths[0],
        local_depths=sizes.local_depths,
        local_num_heads=sizes.local_num_heads,
        local_mlp_ratio=sizes.local_hidden / sizes.local_widths[0],
        channel_attention_published_layout=True,
        global_patch_size=sizes.global_patch_size,
        global_embed_dim=sizes.global_width,
        global_depth=sizes.global_depth,
        global_num_heads=global_heads_for(sizes.global_width, global_heads),
        global_mlp_ratio=sizes.global_hidden / sizes.global_width,
        fusion_num_heads=fusion_heads,
        id2label=dict(enumerate(schema.attributes)),
        label2id={name: index for index, name in enumerate(schema.attributes)},
    )


# ---- conversion -----------------------------------------------------------------------------


def convert(
    checkpoint: Path,
    output: Path,
    attributes: str | None = None,
    image_size: tuple[int, int] = (256, 128),
    global_heads: int | None = None,
    fusion_heads: int = 8,
) -> list[str]:
    """Convert a checkpoint file into a repository folder.

    Args:
        checkpoint: torch file (no code of it runs) or safetensors file of the authors' keys.
        output: folder to make; it must not exist, or be empty.
        attributes: name of a data set, a file of names or a schema; None: told by their count.
        image_size: (height, width) in pixels.
        global_heads: heads of the global branch; None: its width / 64.
    Returns: the lines of the table of what went where.
    Raises: ValueError, before anything is written, for whatever does not fit.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"`--output` must be a new or an empty folder, got {str(output)!r}.")
    tensors = read_checkpoint(checkpoint)
    sizes = CheckpointSizes.from_shapes(shapes_of(tensors))
    table = key_table(sizes)
    check_keys(table, tensors)
    check_indices(tensors, sizes.local_window_size)
    schema = schema_for(attributes, sizes.num_labels)
    config = build_config(sizes, schema, image_size, global_heads, fusion_heads)
    model = ClearModel(config)
    model.load_state_dict(convert_tensors(table, tensors))  # strict: every key of ours is filled
    processor = ClearProcessor.for_schema(schema, *image_size, query_kind="hard")
    write_repository(model, processor, output)
    return table_lines(table)


def write_repository(model: ClearModel, processor: ClearProcessor, output: Path) -> None:
    """Write weights, configuration, processor and code under a hidden name, then rename."""
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def build_parser() -> argparse.ArgumentParser:
    """The options, each with what it means and when it is needed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        help="the authors' torch file (its state dict may stand under `state_dicts` or "
        "`state_dict_ema`, its keys may start with `module.`), or a safetensors file of the same "
        "keys; no code stored in it is run",
    )
    add("--output", type=Path, required=True, help="folder to make; must be new or empty")
    add(
        "--attributes",
        help="what the outputs mean, in their order: a data set "
        f"({', '.join(sorted(path.stem for path in SCHEMAS.glob('*.json')))}), a file of names, "
        "one a line, or a schema in JSON. A data set's order is that of its own annotation file; "
        "weights trained on labels in another order need a file. Default: the only data set with "
        "as many attributes, all or all evaluated ones, as the checkpoint has outputs; where there "
        "is none, numbers",
    )
    size = {"type": int, "nargs": 2, "metavar": ("HEIGHT", "WIDTH"), "default": (256, 128)}
    add("--image-size", help="pixels of the input; checked against the tensors (256 128)", **size)
    add(
        "--global-heads",
        type=int,
        help="attention heads of the plain vision transformer; the tensors do not tell (width/64)",
    )
    add("--fusion-heads", type=int, default=8, help="heads of each cross attention (8)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; whatever does not fit ends it with the reason."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        options.image_size = tuple(options.image_size)
        lines = convert(**vars(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print("\n".join(lines))
    print(f"Written to {options.output}; load with trust_remote_code=True.")


if __name__ == "__main__":
    main()

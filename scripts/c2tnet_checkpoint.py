"""The authors' C2T-Net checkpoint: how it is read, what it must hold, and where each key goes.

Source: facts of the authors' public C2T-Net code (WACV-W 2024). Sizes come from the shapes of all
tensors by majority, so that one that is missing or misshapen is named and does not hide the rest.
"""

import re
import zipfile
from _codecs import encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.swin_transformer import get_relative_position_index

Shape = tuple[int, ...]
Tensors = Mapping[str, torch.Tensor]

NESTS = ("state_dicts", "state_dict_ema")  # the same weights, under both names
PREFIX = "module."  # left by the authors' data-parallel wrapper
# A checkpoint also holds its score, which may be a NumPy number: these rebuild one, and no more.
NUMPY_NUMBER = [
    np._core.multiarray.scalar,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    encode,
]
NORM_UNUSED = "the authors' forward uses the norm of the last stage only"
FC_NORM_UNUSED = "timm's head would use it; the authors take the class token before the head"
INDEX_REBUILT = "follows from the window size; checked equal, then rebuilt on loading"


# ---- reading --------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The authors' state dict of a torch or safetensors file, without wrapper and prefix.

    Raises:
        ValueError: when the file cannot be read without running code, or holds no state dict.
    """
    try:
        content = load_file(path) if is_safetensors(path) else load_torch_file(path)
    except Exception as error:  # whatever a damaged file makes the two libraries raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`--checkpoint` must be a torch file of plain tensors or a safetensors file, got "
            f"{str(path)!r}: {type(error).__name__}: {reason}"
        ) from error
    for name in NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"`--checkpoint` must hold a state dict, got {type(content).__name__} in {str(path)!r}."
        )
    strip = all(str(name).startswith(PREFIX) for name in content)
    return {str(name)[len(PREFIX) * strip :]: tensor for name, tensor in content.items()}


def is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def load_torch_file(path: Path) -> object:
    """Tensors, numbers and text of a torch file; anything that could run code is refused."""
    with torch.serialization.safe_globals(NUMPY_NUMBER):
        # The authors publish a pickle; weights_only runs none of its code.
        return torch.load(  # noqa: TID251
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )


# ---- sizes ----------------------------------------------------------------------------------


def shapes_of(tensors: Tensors) -> dict[str, Shape]:
    """Shape of each entry; what is no tensor has none."""
    return {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}


def common_size(shapes: Mapping[str, Shape], pattern: str, axis: int = 0) -> int:
    """The size most frequent along an axis of the tensors whose name matches; 0: there is none."""
    matching = [s for name, s in shapes.items() if re.fullmatch(pattern, name) and len(s) > axis]
    counts = Counter(shape[axis] for shape in matching)
    return counts.most_common(1)[0][0] if counts else 0


def count_of(shapes: Mapping[str, Shape], pattern: str) -> int:
    """One more than the largest number that stands in the group of a pattern."""
    found = (re.match(pattern, name) for name in shapes)
    return max((1 + int(match[1]) for match in found if match), default=0)


@dataclass(frozen=True)
class CheckpointSizes:
    """Every size that the shapes tell; 0 where no tensor tells it, which `check_keys` reports.

    local_widths, local_depths, local_num_heads, local_tokens: one value for each stage.
    local_hidden: width of the first stage's MLP; it grows with the stage.
    """

    local_patch_size: int
    local_window_size: int
    local_widths: list[int]
    local_depths: list[int]
    local_num_heads: list[int]
    local_tokens: list[int]
    local_hidden: int
    global_patch_size: int
    global_width: int
    global_depth: int
    global_hidden: int
    global_tokens: int
    fusion_width: int
    num_labels: int

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape]) -> "CheckpointSizes":
        """Read the sizes from the tensors' shapes."""

        def size(pattern: str, axis: int = 0) -> int:
            return common_size(shapes, r"backbone\." + pattern, axis)

        stages = range(count_of(shapes, r"backbone\.stages\.(\d+)\."))
        width = size(r"patch_embed\.(projection|norm)\.(weight|bias)")
        table = r"attn\.w_msa\.relative_position_bias_table"
        return cls(
            local_patch_size=size(r"patch_embed\.projection\.weight", 2),
            local_window_size=(isqrt(size(rf"stages\.\d+\.blocks\.\d+\.{table}")) + 1) // 2,
            local_widths=[width * 2**s for s in stages],
            local_depths=[
                count_of(shapes, rf"backbone\.stages\.{s}\.blocks\.(\d+)") for s in stages
            ],
            local_num_heads=[size(rf"stages\.{s}\.blocks\.\d+\.{table}", 1) for s in stages],
            local_tokens=[size(rf"tablocks\.{s}\.c_[qkv]\.(weight|bias)") for s in stages],
            local_hidden=size(r"stages\.0\.blocks\.\d+\.ffn\.layers\.0\.0\.(weight|bias)"),
            global_patch_size=size(r"vit\.patch_embed\.proj\.weight", 2),
            global_width=size(r"vit\.blocks\.\d+\.norm[12]\.(weight|bias)"),
            global_depth=count_of(shapes, r"backbone\.vit\.blocks\.(\d+)\."),
            global_hidden=size(r"vit\.blocks\.\d+\.mlp\.fc1\.(weight|bias)"),
            global_tokens=size(r"vit\.pos_embed", 1),
            fusion_width=size(r"(cross_att_\w+\.(w[qkv]|proj)|norm_[12])\.(weight|bias)"),
            num_labels=common_size(shapes, r"classifier\.logits\.0\.(weight|bias)"),
        )


# ---- the table ------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyEntry:
    """One key of the authors: the shape it must have, and where it goes.

    target: our key; None: dropped, for `reason`. rule: (source, target) with `*` for numbers.
    """

    source: str
    shape: Shape
    target: str | None
    rule: tuple[str, str]
    change: Callable[[torch.Tensor], torch.Tensor] | None = None
    reason: str = ""


def entry(source: str, target: str | None, shape: Shape, numbers=(), **kwargs) -> KeyEntry:
    """An entry of the backbone; `numbers` fill the `*` of the source, `to` those of the target."""
    to = kwargs.pop("to", numbers)
    source = source if source.startswith("classifier") else f"backbone.{source}"
    return KeyEntry(
        fill(source, numbers),
        shape,
        None if target is None else fill(target, to),
        (source, target or "dropped"),
        **kwargs,
    )


def fill(template: str, numbers: tuple[int, ...]) -> str:
    """Put numbers in place of the asterisks, in order."""
    return template.replace("*", "{}").format(*numbers)


def module(source: str, target: str | None, shape: Shape, numbers=(), **kwargs) -> list[KeyEntry]:
    """Weight and bias of a module whose weight has this shape."""
    bias = kwargs.pop("bias", True)
    suffixes = {"weight": shape, **({"bias": shape[:1]} if bias else {})}
    return [
        entry(f"{source}.{name}", target and f"{target}.{name}", size, numbers, **kwargs)
        for name, size in suffixes.items()
    ]


LOCAL, GLOBAL, FUSION = (f"backbone.{p}" for p in ("local_branch", "global_branch", "cross_fusion"))
LOCAL_BLOCK = {
    "norm1": "norm1",
    "attn.w_msa.qkv": "attn.qkv",
    "attn.w_msa.proj": "attn.proj",
    "norm2": "norm2",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}
CROSS_ATTENTION = {"wq": "query_proj", "wk": "key_proj", "wv": "value_proj"}


def block_shapes(width: int, hidden: int) -> dict[str, Shape]:
    """Weight of each module of a transformer block, by our names."""
    return {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (hidden, width),
        "mlp.fc2": (width, hidden),
    }


def merge_columns(tensor: torch.Tensor) -> torch.Tensor:
    """Four neighbours of a patch merging from the authors' column order to timm's.

    Theirs (nn.Unfold): channel slowest, then row, then column of the neighbour. Timm's: column,
    then row, then channel.
    Shape: (..., 4 * channels) -> the same.
    """
    neighbours = tensor.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]
    return neighbours.transpose(-1, -2).flatten(-2).contiguous()


def local_block_entries(sizes: CheckpointSizes, stage: int, block: int) -> Iterator[KeyEntry]:
    """Keys of one block of the local branch."""
    source, target = "stages.*.blocks.*", f"{LOCAL}.layers.*.blocks.*"
    numbers = (stage, block)
    shapes = block_shapes(sizes.local_widths[stage], sizes.local_hidden * 2**stage)
    for theirs, ours in LOCAL_BLOCK.items():
        yield from module(f"{source}.{theirs}", f"{target}.{ours}", shapes[ours], numbers)
    window, name = sizes.local_window_size, "relative_position_bias_table"
    table = ((2 * window - 1) ** 2 if window else 0, sizes.local_num_heads[stage])
    yield entry(f"{source}.attn.w_msa.{name}", f"{target}.attn.{name}", table, numbers)
    index = f"{source}.attn.w_msa.relative_position_index"
    yield entry(index, None, (window**2, window**2), numbers, reason=INDEX_REBUILT)


def local_entries(sizes: CheckpointSizes) -> Iterator[KeyEntry]:
    """Keys of the local branch and of its channel attention."""
    widths, patch = sizes.local_widths or [0], sizes.local_patch_size
    embed = f"{LOCAL}.patch_embed"
    yield from module("patch_embed.projection", f"{embed}.proj", (widths[0], 3, patch, patch))
    yield from module("patch_embed.norm", f"{embed}.norm", (widths[0],))
    for stage, depth in enumerate(sizes.local_depths):
        for block in range(depth):
            yield from local_block_entries(sizes, stage, block)
        tokens = (sizes.local_tokens[stage],) * 2
        for theirs, ours in {"c_q": "query", "c_k": "key", "c_v": "value"}.items():
            target = f"{LOCAL}.layers.*.channel_attention.{ours}"
            yield from module(f"tablocks.*.{theirs}", target, tokens, (stage,))
        if stage + 1 < len(widths):
            yield from merging_entries(widths[stage], stage)
            yield from module(f"norm{stage}", None, (widths[stage],), reason=NORM_UNUSED)
    yield from module(f"norm{len(widths) - 1}", f"{LOCAL}.norm", (widths[-1],))


def merging_entries(width: int, stage: int) -> Iterator[KeyEntry]:
    """Keys of a patch merging: the last step of their stage, the first of our next one."""
    source, target = "stages.*.downsample", f"{LOCAL}.layers.*.downsample"
    moved = {"numbers": (stage,), "to": (stage + 1,), "change": merge_columns}
    yield from module(f"{source}.norm", f"{target}.norm", (4 * width,), **moved)
    reduction = (2 * width, 4 * width)
    yield from module(f"{source}.reduction", f"{target}.reduction", reduction, bias=False, **moved)


def global_entries(sizes: CheckpointSizes) -> Iterator[KeyEntry]:
    """Keys of the global branch."""
    width, patch = sizes.global_width, sizes.global_patch_size
    yield entry("vit.cls_token", f"{GLOBAL}.cls_token", (1, 1, width))
    yield entry("vit.pos_embed", f"{GLOBAL}.pos_embed", (1, sizes.global_tokens, width))
    projection = (width, 3, patch, patch)
    yield from module("vit.patch_embed.proj", f"{GLOBAL}.patch_embed.proj", projection)
    for block in range(sizes.global_depth):
        for name, shape in block_shapes(width, sizes.global_hidden).items():
            yield from module(f"vit.blocks.*.{name}", f"{GLOBAL}.blocks.*.{name}", shape, (block,))
    yield from module("vit.fc_norm", None, (width,), reason=FC_NORM_UNUSED)


def fusion_entries(sizes: CheckpointSizes) -> Iterator[KeyEntry]:
    """Keys of the cross-fusion and of the classifier."""
    width = sizes.fusion_width
    for theirs, ours in {"eva_swin": "global", "swin_eva": "local"}.items():
        source, target = f"cross_att_{theirs}", f"{FUSION}.{ours}_attention"
        for name, our_name in CROSS_ATTENTION.items():
            square = (width, width)
            yield from module(f"{source}.{name}", f"{target}.{our_name}", square, bias=False)
        yield from module(f"{source}.proj", f"{target}.out_proj", (width, width))
    yield from module("norm_1", f"{FUSION}.local_norm", (width,))
    yield from module("norm_2", f"{FUSION}.global_norm", (width,))
    yield from module("classifier.logits.0", "classifier", (sizes.num_labels, 2 * width))


def key_table(sizes: CheckpointSizes) -> list[KeyEntry]:
    """Every key that a checkpoint of these sizes holds, each once."""
    return [*local_entries(sizes), *global_entries(sizes), *fusion_entries(sizes)]


# ---- checking and converting ----------------------------------------------------------------


def check_keys(table: list[KeyEntry], tensors: Tensors) -> None:
    """Compare a checkpoint with the table, key by key.

    Raises:
        ValueError: listing every key that is missing, unexpected, of a wrong shape or no tensor.
    """
    shapes, known = shapes_of(tensors), {row.source: row.shape for row in table}
    problems = [f"missing: {n} {list(s)}" for n, s in known.items() if n not in shapes]
    problems += [f"unexpected: {n} {list(s)}" for n, s in shapes.items() if n not in known]
    for name in known.keys() & shapes.keys():
        if not isinstance(tensors[name], torch.Tensor):
            problems.append(f"not a tensor: {name}")
        elif (
            shapes[name] != known[name] and 0 not in known[name]
        ):  # 0: the keys to tell are missing
            problems.append(
                f"wrong shape: {name} {list(shapes[name])}, the others say {list(known[name])}"
            )
    if problems:
        raise ValueError(
            "`--checkpoint` must hold the keys of the authors' C2T-Net, each once, got "
            f"{len(problems)} that differ:\n  " + "\n  ".join(sorted(problems))
        )


def check_indices(tensors: Tensors, window: int) -> None:
    """Refuse a relative position index other than the standard one, which a model rebuilds."""
    standard = get_relative_position_index(window, window)
    other = [
        name
        for name, tensor in tensors.items()
        if name.endswith("relative_position_index") and not torch.equal(tensor.long(), standard)
    ]
    if other:
        raise ValueError(
            "`--checkpoint` must index its position tables in the standard order, got another in "
            f"{', '.join(other)}."
        )


def convert_tensors(table: list[KeyEntry], tensors: Tensors) -> dict[str, torch.Tensor]:
    """The state dict of our model: every key of the table that has a target."""
    kept = [row for row in table if row.target is not None]
    return {
        row.target: tensors[row.source] if row.change is None else row.change(tensors[row.source])
        for row in kept
    }


def table_lines(table: list[KeyEntry]) -> list[str]:
    """What went where, one line for a rule: tensors, values, their key, our key or the reason."""
    rows: dict[tuple[str, str], list[KeyEntry]] = {}
    for row in table:
        rows.setdefault(row.rule, []).append(row)
    lines = [f"{'tensors':>7} {'values':>11}  authors' key -> key here"]
    for (source, target), members in rows.items():
        values = sum(torch.Size(member.shape).numel() for member in members)
        first = members[0]
        note = f": {first.reason}" if first.reason else ""
        note += "; one stage later, columns re-ordered" if first.change else ""
        lines.append(f"{len(members):7d} {values:11,d}  {source} -> {target}{note}")
    return lines


__all__ = [
    "CheckpointSizes",
    "KeyEntry",
    "check_indices",
    "check_keys",
    "convert_tensors",
    "key_table",
    "read_checkpoint",
    "shapes_of",
    "table_lines",
]

"""timm's pre-trained weights put into the branches of CLEAR.

A constructor never fetches weights (from_pretrained would drop them); these functions fill a model
that has been built. Sources: timm's own filters resample position embeddings and patch kernels and
interpolate bias tables; what starts anew does so in the authors' public code as well.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from safetensors.torch import load_file
from timm.models import swin_transformer, vision_transformer
from torch import nn

from .configuration_clear import ClearConfig


@dataclass(frozen=True)
class BranchSource:
    """How timm's weights fit a branch.

    name: of the branch and the prefix of its fields. adapt: timm's filter. left_out: keys of timm
    that the branch does not use. new: keys of the branch that timm does not have.
    """

    name: str
    adapt: Callable[[dict, nn.Module], dict]
    left_out: str
    new: str


LOCAL = BranchSource(
    "local",
    swin_transformer.checkpoint_filter_fn,
    left_out=r"head\..*|norm\..*",  # the last norm starts at (1, 0) in the authors' code too
    new=r"norm\..*|layers\.\d+\.channel_attention\..*",
)
GLOBAL = BranchSource(
    "global",
    vision_transformer.checkpoint_filter_fn,
    left_out=r"head\..*|norm\..*|fc_norm\..*",  # the tokens leave the branch un-normalised
    new=r"$",
)


def load_pretrained_backbones(
    backbone: nn.Module,
    config: ClearConfig,
    local_weights: str | os.PathLike | None = None,
    global_weights: str | os.PathLike | None = None,
) -> dict[str, dict[str, list[str]]]:
    """Fill each branch with the weights of the timm model that the configuration names.

    Args:
        backbone: a ClearBackbone.
        local_weights, global_weights: safetensors file of the timm model's state dict; None: it
            is fetched by `config.local_architecture` and `config.global_architecture`.
    Returns: {branch: {"loaded", "resized", "new", "left_out"}}, names of tensors; "resized" are
        those loaded that timm's filter had to fit to another grid, window or patch.
    Raises: ValueError, listing what does not fit; that branch is then unchanged.
    """
    weights = {"local": local_weights, "global": global_weights}
    report = {}
    for source in (LOCAL, GLOBAL):
        branch = getattr(backbone, f"{source.name}_branch")
        if branch is not None:
            architecture = getattr(config, f"{source.name}_architecture")
            tensors = read_weights(source.name, architecture, weights[source.name])
            if architecture is not None:
                check_heads(branch, architecture)
            report[f"{source.name}_branch"] = fill_branch(branch, source, tensors, architecture)
    return report


def read_weights(
    name: str, architecture: str | None, path: str | os.PathLike | None
) -> dict[str, torch.Tensor]:
    """The state dict of a file, or of the timm model with its pre-trained weights."""
    if path is not None:
        return load_file(path)
    if architecture is None:
        raise ValueError(
            f"`{name}_architecture` must name a timm model with pre-trained weights, got None. Set "
            f"it in the configuration, or give `{name}_weights`."
        )
    try:
        return timm.create_model(architecture, pretrained=True).state_dict()
    except Exception as error:  # timm and the Hub raise many kinds
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(
            f"`{name}_architecture` must name a timm model whose pre-trained weights can be "
            f"fetched, got {architecture!r}: {reason}. Without a network, give `{name}_weights`."
        ) from error


def check_heads(branch: nn.Module, architecture: str) -> None:
    """Refuse another number of heads: no tensor of a plain vision transformer tells it."""
    with torch.device("meta"):
        theirs = timm.create_model(architecture)
    got, expected = attention_heads(branch), attention_heads(theirs)
    if got != expected:
        raise ValueError(
            f"`config` must have the attention heads of {architecture!r}, block by block "
            f"{expected}, got {got}."
        )


def attention_heads(model: nn.Module) -> list[int]:
    """Heads of each block's attention, in order.

    >>> attention_heads(timm.create_model("vit_tiny_patch16_224", depth=2))
    [3, 3]
    """
    attentions = (swin_transformer.WindowAttention, vision_transformer.Attention)
    return [m.num_heads for m in model.modules() if isinstance(m, attentions)]


def fill_branch(
    branch: nn.Module, source: BranchSource, tensors: dict, architecture: str | None = None
) -> dict[str, list[str]]:
    """Copy timm's tensors into a branch, fitted by timm's filter; all of them or none.

    Returns: names of the tensors "loaded", among them "resized", "new" and "left_out".
    Raises: ValueError, listing every tensor that is missing, unexpected or of another shape.
    """
    own = branch.state_dict()
    given = {n: t for n, t in tensors.items() if not re.fullmatch(source.left_out, n)}
    fitted = adapt(branch, source, given, architecture)
    new = [n for n in own.keys() - fitted.keys() if re.fullmatch(source.new, n)]
    problems = [f"missing: {n}" for n in own.keys() - fitted.keys() - set(new)]
    problems += [f"unexpected: {n}" for n in fitted.keys() - own.keys()]
    problems += [
        f"wrong shape: {n} {list(fitted[n].shape)}, the branch has {list(own[n].shape)}"
        for n in fitted.keys() & own.keys()
        if fitted[n].shape != own[n].shape
    ]
    if problems:
        raise ValueError(
            f"`{source.name}_weights` must fit the {source.name} branch, got {len(problems)} "
            "tensors that do not:\n  " + "\n  ".join(sorted(problems))
        )
    branch.load_state_dict(fitted, strict=False)
    return {
        "loaded": sorted(fitted),
        "resized": sorted(n for n in fitted if n in given and given[n].shape != fitted[n].shape),
        "new": sorted(new),
        "left_out": sorted(tensors.keys() - given.keys()),
    }


def adapt(
    branch: nn.Module, source: BranchSource, tensors: dict, architecture: str | None
) -> dict[str, torch.Tensor]:
    """Tensors fitted to the branch's grid and windows by timm's filter, under today's names."""
    own = branch.state_dict()
    table = "relative_position_bias_table"  # of a block that the branch lacks: the filter fails
    unknown = {n: t for n, t in tensors.items() if n.endswith(table) and n not in own}
    known = {n: t for n, t in tensors.items() if n not in unknown}
    native = timm.get_pretrained_cfg(architecture) if architecture else None
    if native is not None:
        branch.pretrained_cfg = native.to_dict()  # the filter reads the original image size here
    try:
        return {**source.adapt(known, branch), **unknown}
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"`{source.name}_weights` must be those of a timm model of the {source.name} branch's "
            f"kind, got some that timm cannot resample: {error}"
        ) from error


__all__ = ["attention_heads", "load_pretrained_backbones"]

"""The losses of retrieval: margin learning over person categories, and over partial queries.

Sources: arXiv 2403.06119 (margin learning over categories); ASMR (ICCV 2021) for the angular form
and its usual values, scale 12 and margin 0.2 rad.
"""

import math

import torch
from torch.nn import functional

MARGIN_KINDS = ("additive", "angular")


def margin_softmax_loss(
    image_embeds: torch.Tensor,
    query_embeds: torch.Tensor,
    categories: torch.Tensor,
    scale: float = 12.0,
    margin: float = 0.2,
    margin_kind: str = "additive",
) -> torch.Tensor:
    """Cross-entropy over all queries, with the cosine of the own category made smaller first.

    Args:
        image_embeds: (batch, embed_dim), unit length.
        query_embeds: (categories, embed_dim), unit length, one for each category.
        categories: (batch,) the row of `query_embeds` that each image belongs to.
        scale: factor on the cosines, before the soft-max.
        margin: "additive": subtracted from the cosine; "angular": radians added to the angle.
        margin_kind: "additive" or "angular".
    Returns: scalar, the mean over the batch, in single precision at least.

    >>> same = torch.eye(2)
    >>> round(margin_softmax_loss(same, same, torch.tensor([0, 1]), 1.0, 0.0).item(), 4)
    0.3133
    """
    if margin_kind not in MARGIN_KINDS:
        raise ValueError(f"`margin_kind` must be one of {MARGIN_KINDS}, got {margin_kind!r}.")
    if categories.shape != image_embeds.shape[:1]:
        raise ValueError(
            f"`categories` must be (batch,) = {tuple(image_embeds.shape[:1])}, got "
            f"{tuple(categories.shape)}."
        )
    cosines = exact_cosines(image_embeds, query_embeds)
    own = categories[:, None]
    target = cosines.gather(1, own)
    target = add_angle(target, margin) if margin_kind == "angular" else target - margin
    return functional.cross_entropy(scale * cosines.scatter(1, own, target), categories)


def matching_loss(
    image_embeds: torch.Tensor,
    query_embeds: torch.Tensor,
    matches: torch.Tensor,
    scale: float = 12.0,
    margin: float = 0.0,
) -> torch.Tensor:
    """Each query finds its images among those of the batch; a query may have several, or none.

    For a query, the mean log-likelihood of its images under a soft-max over the whole batch. This
    is the form for partial queries, which belong to no single category.

    Args:
        image_embeds: (batch, embed_dim), unit length.
        query_embeds: (queries, embed_dim), unit length.
        matches: (batch, queries) bool: the image shows what the query asks for.
        scale: factor on the cosines, before the soft-max.
        margin: subtracted from the cosines of the matches.
    Returns: scalar, the mean over the queries that have a match; 0 when none has.
    """
    if matches.shape != (len(image_embeds), len(query_embeds)):
        raise ValueError(
            f"`matches` must be (batch, queries) = {(len(image_embeds), len(query_embeds))}, got "
            f"{tuple(matches.shape)}."
        )
    cosines = exact_cosines(image_embeds, query_embeds)
    matches = matches.to(cosines.dtype)
    likelihoods = functional.log_softmax(scale * (cosines - margin * matches), dim=0)
    counts = matches.sum(dim=0)
    losses = -(likelihoods * matches).sum(dim=0) / counts.clamp(min=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def exact_cosines(image_embeds: torch.Tensor, query_embeds: torch.Tensor) -> torch.Tensor:
    """Cosines in single precision at least: half precision, times the scale, is too coarse.

    Shape: (batch, embed_dim), (queries, embed_dim), unit length -> (batch, queries).
    """
    dtype = torch.promote_types(image_embeds.dtype, torch.float32)
    with torch.autocast(image_embeds.device.type, enabled=False):
        return image_embeds.to(dtype) @ query_embeds.to(dtype).T


def add_angle(cosines: torch.Tensor, angle: float) -> torch.Tensor:
    """cos(theta + angle), continued by a line where theta + angle would pass pi.

    The derivative of theta is infinite at cosines of 1 and -1; there it is left out, so that
    gradients are finite everywhere.

    Args:
        cosines: any shape, in [-1, 1].
        angle: radians in [0, pi).
    """
    squares = 1 - cosines.square()
    smallest = 4 * torch.finfo(cosines.dtype).eps  # below it, rounding is all there is
    sines = squares.clamp(min=smallest).sqrt() * (squares > smallest)
    turned = cosines * math.cos(angle) - sines * math.sin(angle)
    line = cosines - angle * math.sin(angle)
    return torch.where(cosines > math.cos(math.pi - angle), turned, line)


__all__ = ["MARGIN_KINDS", "margin_softmax_loss", "matching_loss"]

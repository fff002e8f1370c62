"""The losses of retrieval: margin learning over person categories, and over partial queries.

Sources: arXiv 2403.06119 (margin learning over categories); ASMR (ICCV 2021) for the angular form,
its usual values, scale 12 and margin 0.2 rad, and the regulariser of the queries.
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


def semantic_margin_loss(
    query_embeds: torch.Tensor, values: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """ASMR's adaptive semantic margin regulariser: queries that differ more stand further apart.

    For two categories p, q with d in {0, 1}^groups marking the groups in which they differ, the
    cosine shall be mu + a: mu = mean cosine of all pairs, a = sigmoid(1 - w . d / 10).

    Args:
        query_embeds: (categories, embed_dim), unit length.
        values: (categories, groups) integers from 0; equal where two categories agree in a group.
        weights: (groups,) the learned w.
    Returns: scalar, the mean square over the pairs; its gradient reaches mu and w as well.

    >>> same = torch.eye(3)  # equal cosines, and no group in which the categories differ
    >>> loss = semantic_margin_loss(same, torch.zeros(3, 1, dtype=torch.long), torch.ones(1))
    >>> round(loss.item(), 4)  # sigmoid(1) squared
    0.5344
    """
    count = len(query_embeds)
    if values.ndim != 2 or values.shape != (count, len(weights)):
        raise ValueError(
            f"`values` must be (categories, groups) = {(count, len(weights))}, got "
            f"{tuple(values.shape)}."
        )
    if count < 2:
        raise ValueError(f"`query_embeds` must be of at least two categories, got {count}.")
    cosines = exact_cosines(query_embeds, query_embeds)
    targets = torch.sigmoid(1 - weighted_differences(values, weights.to(cosines.dtype)) / 10)
    pairs = count * (count - 1)  # each counted twice, here and in the sums
    is_pair = ~torch.eye(count, dtype=torch.bool, device=cosines.device)
    mean = (cosines * is_pair).sum() / pairs
    return ((cosines - mean - targets).square() * is_pair).sum() / pairs


def weighted_differences(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """w . d of all pairs of rows, by one product instead of a (rows, rows, groups) array.

    Shape: values (rows, groups) of integers from 0, weights (groups,) -> (rows, rows).

    >>> values = torch.tensor([[0, 1], [0, 2], [1, 2]])
    >>> weighted_differences(values, torch.tensor([3.0, 5.0])).tolist()
    [[0.0, 5.0, 8.0], [5.0, 0.0, 3.0], [8.0, 3.0, 0.0]]
    """
    sizes = values.amax(dim=0) + 1
    starts = sizes.cumsum(0) - sizes
    one_hot = weights.new_zeros(len(values), int(sizes.sum()))
    one_hot.scatter_(1, values + starts, 1.0)
    agreeing = (one_hot * weights.repeat_interleave(sizes)) @ one_hot.T
    return weights.sum() - agreeing


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


__all__ = ["MARGIN_KINDS", "margin_softmax_loss", "matching_loss", "semantic_margin_loss"]

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from clear_par.retrieval_loss_clear import (
    margin_softmax_loss,
    matching_loss,
    semantic_margin_loss,
)

KINDS = ("additive", "angular")


def on_circle(*angles: float) -> torch.Tensor:
    """Unit vectors of the plane at these angles, in double precision."""
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def random_units(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    return functional.normalize(vectors, dim=-1)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Seven images, five queries, the category of each image."""
    return random_units(7, seed=0), random_units(5, seed=1), torch.tensor([0, 1, 2, 3, 4, 0, 2])


# ---- margin_softmax_loss ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_two_categories_by_hand(kind):
    scale, margin = 3.0, 0.4
    own, other = 0.5, 1.3  # angles from the image to the two queries
    loss = margin_softmax_loss(
        on_circle(0.0), on_circle(own, -other), torch.tensor([0]), scale, margin, kind
    )
    target = math.cos(own + margin) if kind == "angular" else math.cos(own) - margin
    expected = math.log(1 + math.exp(scale * (math.cos(other) - target)))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_embeddings_cost_the_margin_alone(kind):
    scale, margin, count = 12.0, 0.2, 4
    same = on_circle(*[0.7] * count)
    loss = margin_softmax_loss(same, same, torch.arange(count), scale, margin, kind)
    target = math.cos(margin) if kind == "angular" else 1 - margin
    expected = -scale * target + math.log(math.exp(scale * target) + (count - 1) * math.exp(scale))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_orthogonal_embeddings_without_margin():
    scale, count = 5.0, 6
    one_hot = torch.eye(count, dtype=torch.float64)
    loss = margin_softmax_loss(one_hot, one_hot, torch.arange(count), scale, margin=0.0)
    expected = math.log(1 + (count - 1) * math.exp(-scale))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_margin_zero_is_cross_entropy(batch, kind):
    images, queries, categories = batch
    loss = margin_softmax_loss(images, queries, categories, 7.0, 0.0, kind)
    expected = functional.cross_entropy(7.0 * images @ queries.T, categories)
    torch.testing.assert_close(loss, expected)


def test_angle_beyond_pi_follows_the_guard():
    margin, angle = 0.5, math.pi - 0.1  # angle + margin passes pi
    loss = margin_softmax_loss(
        on_circle(0.0), on_circle(angle, 0.0), torch.tensor([0]), 1.0, margin, "angular"
    )
    target = math.cos(angle) - margin * math.sin(math.pi - margin)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(1 - target)), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_finite_where_the_angle_has_none(kind, dtype):
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = margin_softmax_loss(images, queries, torch.tensor([0, 1]), 12.0, 0.2, kind)
    loss.backward()
    for gradient in (images.grad, queries.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_numerical_ones(batch, kind):
    images, queries, categories = batch
    for tensor in (images, queries):
        tensor.requires_grad_()
    torch.autograd.gradcheck(
        lambda i, q: margin_softmax_loss(i, q, categories, 12.0, 0.2, kind), (images, queries)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_images_and_queries_is_free(batch, kind):
    images, queries, categories = batch
    rows, columns = torch.randperm(len(images)), torch.randperm(len(queries))
    loss = margin_softmax_loss(images, queries, categories, 12.0, 0.2, kind)
    places = columns.argsort()  # where each query has gone
    moved = margin_softmax_loss(
        images[rows], queries[columns], places[categories[rows]], 12.0, 0.2, kind
    )
    torch.testing.assert_close(loss, moved)


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_margin_costs_more(batch, kind):
    losses = [margin_softmax_loss(*batch, 12.0, m, kind).item() for m in (0.0, 0.1, 0.3, 0.6)]
    assert losses == sorted(set(losses))


def test_half_precision_embeddings_are_compared_in_single(batch):
    images, queries, categories = batch
    halves = images.bfloat16(), queries.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = margin_softmax_loss(*halves, categories, 64.0)
    exact = margin_softmax_loss(halves[0].float(), halves[1].float(), categories, 64.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


def test_errors_name_the_argument(batch):
    images, queries, categories = batch
    with pytest.raises(ValueError, match="`margin_kind` must be one of"):
        margin_softmax_loss(images, queries, categories, margin_kind="cosine")
    with pytest.raises(ValueError, match=r"`categories` must be \(batch,\) = \(7,\), got \(3,\)"):
        margin_softmax_loss(images, queries, categories[:3])


# ---- matching_loss ------------------------------------------------------------------------------


def test_matching_by_hand():
    scale, margin = 2.0, 0.1
    images, queries = on_circle(0.0, 0.4, 2.0), on_circle(0.2, 1.0)
    matches = torch.tensor([[True, False], [True, True], [False, False]])
    expected = 0.0
    for column, (query, positives) in enumerate([(0.2, [0, 1]), (1.0, [1])]):
        logits = [
            scale * (math.cos(image - query) - margin * matches[row, column].item())
            for row, image in enumerate([0.0, 0.4, 2.0])
        ]
        total = math.log(sum(map(math.exp, logits)))
        expected -= sum(logits[row] - total for row in positives) / len(positives) / 2
    loss = matching_loss(images, queries, matches, scale, margin)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_matching_with_one_image_each_is_cross_entropy_over_images(batch):
    images, queries, _ = batch
    wanted = torch.tensor([3, 0, 6, 2, 2])
    matches = functional.one_hot(wanted, len(images)).T.bool()
    loss = matching_loss(images, queries, matches, scale=9.0)
    torch.testing.assert_close(loss, functional.cross_entropy(9.0 * queries @ images.T, wanted))


def test_matching_ignores_queries_without_images(batch):
    images, queries, categories = batch
    matches = functional.one_hot(categories, 5).bool()
    loss = matching_loss(images, queries, matches)
    more = torch.cat([queries, random_units(2, seed=3)])
    unmatched = torch.zeros(len(images), 2, dtype=torch.bool)
    torch.testing.assert_close(
        matching_loss(images, more, torch.cat([matches, unmatched], 1)), loss
    )


def test_matching_without_any_match_is_zero_and_trains_nothing(batch):
    images, queries, _ = batch
    queries.requires_grad_()
    loss = matching_loss(images, queries, torch.zeros(7, 5, dtype=torch.bool), margin=0.2)
    loss.backward()
    assert loss.item() == 0.0
    assert queries.grad.abs().max() == 0.0


def test_matching_order_is_free(batch):
    images, queries, categories = batch
    matches = functional.one_hot(categories, 5).bool()
    matches[0, 3] = True
    rows, columns = torch.randperm(7), torch.randperm(5)
    torch.testing.assert_close(
        matching_loss(images, queries, matches, 12.0, 0.2),
        matching_loss(images[rows], queries[columns], matches[rows][:, columns], 12.0, 0.2),
    )


def test_matching_equal_embeddings_cost_log_batch():
    same = on_circle(*[0.3] * 5)
    loss = matching_loss(same, same, torch.ones(5, 5, dtype=torch.bool), 12.0, 0.2)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-12)


def test_matching_refuses_other_shapes(batch):
    images, queries, _ = batch
    with pytest.raises(ValueError, match=r"`matches` must be \(batch, queries\) = \(7, 5\), got"):
        matching_loss(images, queries, torch.ones(5, 7, dtype=torch.bool))


# ---- semantic_margin_loss -----------------------------------------------------------------------


def differences_by_loops(queries, values, weights) -> float:
    """The formula of the paper, pair by pair."""
    count = len(queries)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    cosines = {(i, j): float(np.dot(queries[i], queries[j])) for i, j in pairs}
    mean, total = sum(cosines.values()) / len(pairs), 0.0
    for i, j in pairs:
        wd = sum(w for w, a, b in zip(weights, values[i], values[j], strict=True) if a != b)
        total += (cosines[i, j] - mean - 1 / (1 + math.exp(-(1 - wd / 10)))) ** 2
    return 2 / (count * (count - 1)) * total


@pytest.fixture
def choices() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five queries, their values in three groups, the weights of the groups."""
    values = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 2, 0], [1, 3, 1], [0, 0, 1]])
    return random_units(5, seed=1), values, torch.tensor([3.0, -0.5, 12.0], dtype=torch.float64)


def test_semantic_margin_equals_the_formula_pair_by_pair(choices):
    expected = differences_by_loops(*(tensor.tolist() for tensor in choices))
    assert semantic_margin_loss(*choices).item() == pytest.approx(expected, rel=1e-12)


def test_semantic_margin_of_two_queries_by_hand():
    queries, weights = on_circle(0.3, 1.0), torch.tensor([5.0, 7.0], dtype=torch.float64)
    loss = semantic_margin_loss(queries, torch.tensor([[0, 4], [0, 1]]), weights)
    # The cosine of the only pair is its own mean: what remains is the target.
    assert loss.item() == pytest.approx((1 / (1 + math.exp(-(1 - 0.7)))) ** 2, rel=1e-12)


def test_semantic_margin_gradients_equal_finite_differences(choices):
    queries, values, weights = choices
    for tensor in (queries, weights):
        tensor.requires_grad_()
    semantic_margin_loss(queries, values, weights).backward()
    step = 1e-6
    for tensor, gradient in ((queries, queries.grad), (weights, weights.grad)):
        assert gradient.abs().min() > 0
        for place in range(tensor.numel()):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor.view(-1)[place] += sign * step
                    losses.append(semantic_margin_loss(queries, values, weights).item())
                    tensor.view(-1)[place] -= sign * step
            slope = (losses[0] - losses[1]) / (2 * step)
            assert gradient.view(-1)[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_semantic_margin_learns_which_groups_count():
    """Cosines fall where the first group differs, and do not where the second does."""
    queries = on_circle(0.0, 0.0, 1.2, 1.2)
    values = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(semantic_margin_loss(queries, values, weights), weights)
        with torch.no_grad():
            weights -= 20 * gradient
    assert weights[0] > weights[1] + 5


def test_semantic_margin_refuses_other_shapes(choices):
    queries, values, weights = choices
    with pytest.raises(
        ValueError, match=r"`values` must be \(categories, groups\) = \(5, 3\), got"
    ):
        semantic_margin_loss(queries, values[:, :2], weights)
    with pytest.raises(
        ValueError, match="`query_embeds` must be of at least two categories, got 1"
    ):
        semantic_margin_loss(queries[:1], values[:1], weights)

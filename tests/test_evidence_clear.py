"""The classifier's evidence for a query, and queries as one-hot choices."""

import itertools
import math

import numpy as np
import pytest
import torch

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE
from clear_par.evidence_clear import (
    choice_columns,
    fused_scores,
    group_log_likelihood,
    query_evidence,
)
from clear_par.onehot_clear import OneHotQuery

PETA = AttributeSchema.from_json(SCHEMA_FILE)


def group(name: str, *values: str, **rest) -> dict:
    options = [{"value": value, "attribute": f"{name} {value}"} for value in values]
    return {"name": name, "section": "all", "options": options, **rest}


@pytest.fixture(scope="module")
def schema() -> AttributeSchema:
    """age: one of three; bag: one of two, or none; colour: any of two; hat: a flag."""
    bag = group("bag", "sack", "case", exclusive=True, otherwise="none")
    bag["options"].append({"value": "none", "text": "no bag"})
    sex = group("sex", "male", "female", exclusive=True, otherwise="female")
    groups = [group("age", "young", "old", "adult", exclusive=True), bag, sex, group("top", "red")]
    names = [o["attribute"] for g in groups for o in g["options"] if "attribute" in o] + ["hat"]
    flag = {"name": "hat", "attribute": "hat", "section": "all"}
    parts = [
        {"name": "person", "noun": "person"},
        {"name": "all", "sections": ["all"], "noun": "x"},
    ]
    whole = {"name": "small", "attributes": names, "evaluated": names, "groups": groups}
    return AttributeSchema.from_dict({**whole, "flags": [flag], "parts": parts})


@pytest.fixture(scope="module")
def logits(schema) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (6, schema.num_attributes))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_counting(logits, query, schema) -> float:
    """Sum the probabilities of every person that the schema allows and the query describes."""
    worlds, total, fitting = [], 0.0, 0.0
    for g in schema.groups:
        places = [schema.index(a) for a in g.options.values()]
        if g.exclusive:
            found = [{p: int(p == chosen) for p in places} for chosen in places]
            found += [] if g.otherwise in g.options else [dict.fromkeys(places, 0)]
            worlds.append(found)
        else:
            worlds += [[{p: 0}, {p: 1}] for p in places]
    worlds += [
        [{schema.index(f.attribute): 0}, {schema.index(f.attribute): 1}] for f in schema.flags
    ]
    for choice in itertools.product(*worlds):
        person = {place: value for part in choice for place, value in part.items()}
        chance = math.prod(
            sigmoid(logits[place]) if there else sigmoid(-logits[place])
            for place, there in person.items()
        )
        total += chance
        fitting += chance * all(q in (-100, person[place]) for place, q in enumerate(query))
    return math.log(fitting / total)


def test_likelihood_is_a_count_over_all_persons_that_the_schema_allows(schema, logits):
    queries = [
        [0, 1, 0, 0, 0, -100, -100, -100, 1],
        [0, -100, -100, 0, -100, -100, -100, 1, -100],
        [-100, -100, -100, 0, 0, 0, -100, 0, 0],
        [-100, -100, -100, 1, -100, 0, 1, -100, -100],
        [0, 0, 0, -100, -100, -100, -100, -100, -100],
    ]
    found = group_log_likelihood(logits, queries, schema)
    assert found.shape == (5, 6)
    for query, row in zip(queries, found, strict=True):
        expected = [by_counting(image, query, schema) for image in logits]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)


def test_probabilities_of_a_choice_sum_to_one(schema, logits):
    values = [{"age": "young"}, {"age": "old"}, {"age": "adult"}]
    queries = [schema.query_values(value) for value in values] + [[0, 0, 0] + [-100] * 6]
    total = np.exp(group_log_likelihood(logits, queries, schema)).sum(axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    both = [schema.query_values({"sex": value}) for value in ("male", "female")]
    total = np.exp(group_log_likelihood(logits, both, schema)).sum(axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_values_of_one_choice_count_each_by_itself(schema, logits):
    query = [1, 1, 0] + [-100] * 6
    expected = [math.log(sigmoid(a) * sigmoid(b) * sigmoid(-c)) for a, b, c in logits[:, :3]]
    assert group_log_likelihood(logits, [query], schema)[0].tolist() == pytest.approx(expected)


def test_what_cannot_be_is_worse_than_anything_that_can_and_finite(schema, logits):
    impossible = [-100] * 5 + [0, 0] + [-100] * 2  # neither male nor female
    found = group_log_likelihood(np.clip(logits, -9, 9), [impossible], schema)
    assert np.isfinite(found).all()
    assert (found < -20).all()


def test_evidence_is_the_mean_over_the_choices_said(schema, logits):
    queries = [
        schema.query_values({"age": "old"}),
        schema.query_values({"age": "old", "hat": True, "bag": "none"}),
        [-100] * 9,
    ]
    total = group_log_likelihood(logits, queries, schema)
    np.testing.assert_allclose(
        query_evidence(logits, queries, schema), total / np.array([[1], [3], [1]]), rtol=1e-6
    )
    assert not total[2].any()


def test_without_a_shared_attribute_there_is_no_evidence(schema):
    found = query_evidence(np.zeros((3, 0)), np.zeros((2, 0), dtype=int), schema.subset([]))
    assert found.tolist() == [[0.0] * 3] * 2


def test_extreme_logits_stay_finite():
    logits = np.tile([1e4, -1e4, 0.0], (2, PETA.num_attributes))[:, : PETA.num_attributes]
    rows = np.random.default_rng(1).choice([1, 0, -100], size=(20, PETA.num_attributes))
    assert np.isfinite(group_log_likelihood(logits, rows, PETA)).all()


def test_scores_are_a_weighted_sum():
    cosines, evidence = np.array([[0.5, -1.0]]), np.array([[-3.0, -0.25]])
    assert fused_scores(cosines, evidence, 12.0, 2.0).tolist() == [[0.0, -12.5]]


@pytest.mark.parametrize(
    ("logits", "queries", "message"),
    [
        (np.zeros((2, 4)), np.zeros((1, 9)), r"`logits` must be \(rows, 9\).*got \(2, 4\)"),
        (np.zeros((2, 9)), np.zeros((1, 5)), r"`queries` must be \(rows, 9\).*got \(1, 5\)"),
        (np.zeros((2, 9)), np.full((1, 9), 2), r"`queries` must be 1, 0 or -100, got \[2\]"),
    ],
)
def test_other_arrays_are_refused(schema, logits, queries, message):
    with pytest.raises(ValueError, match=message):
        group_log_likelihood(logits, queries, schema)


# ---- one-hot choices ------------------------------------------------------------------------


def test_every_attribute_belongs_to_one_choice():
    columns = choice_columns(PETA)
    assert sorted(place for choice in columns for place in choice) == list(range(105))
    assert len(columns) == len(PETA.groups) + len(PETA.flags)


def test_whole_queries_have_one_value_in_each_choice(schema):
    encode = OneHotQuery(schema)
    assert encode.width == 9 + 5
    signed = torch.tensor([[-1.0, 1, -1, -1, -1, 1, -1, 1, -1], [1, -1, -1, 1, -1, -1, 1, -1, 1]])
    vectors = encode(signed)
    assert set(vectors.unique().tolist()) == {0.0, 1.0}
    assert vectors.sum(dim=1).tolist() == [5.0, 5.0]
    assert vectors[:, :9].tolist() == [[0, 1, 0, 0, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 0, 1, 0, 1]]
    assert vectors[0, 9:].tolist() == [0, 1, 0, 0, 1]  # no bag, no hat
    assert vectors[1, 9:].tolist() == [0, 0, 0, 1, 0]  # nothing red


def test_what_is_not_said_has_no_value(schema):
    unsaid = torch.zeros(1, 9)
    assert not OneHotQuery(schema)(unsaid).any()
    unsaid[0, 0] = -1.0  # not young, nothing more
    assert OneHotQuery(schema)(unsaid)[0].nonzero().tolist() == [[9]]

"""The queries and the rows of features that the retrieval stage learns from."""

import numpy as np
import pytest
import torch

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE
from clear_par.processing_clear import ClearProcessor
from clear_par.training.queries import (
    TextCache,
    choice_values,
    embed_texts,
    full_rows,
    known_columns,
    matching_rows,
    partial_queries,
    partial_rows,
)
from clear_par.training.retrieval import FeatureRows

SCHEMA = AttributeSchema.from_json(SCHEMA_FILE)
SMALL = AttributeSchema.from_names(["hat", "glasses", "backpack", "skirt"])


def test_full_rows_state_their_columns_only():
    rows = full_rows(np.array([[1, 0], [0, 0]]), [3, 1], 4)
    assert rows.tolist() == [[-100, 0, -100, 1], [-100, 0, -100, 0]]


def test_known_columns_are_evaluated_and_known_in_every_split():
    train_labels = np.array([[1, 0, 0, -100], [0, 0, 0, 1]])
    validation_labels = np.array([[1, -100, 0, 0]])
    assert known_columns([train_labels, validation_labels], SMALL) == [0, 2]
    partly = AttributeSchema.from_dict({**SMALL.to_dict(), "evaluated": ["hat", "glasses"]})
    assert known_columns([train_labels], partly) == [0, 1]
    with pytest.raises(ValueError, match="`dataset` must have an attribute of"):
        known_columns([np.full((2, 4), -100)], SMALL)


def random_labels(images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (images, SCHEMA.num_attributes)
    return rng.choice([1, 0, -100], size=shape, p=[0.2, 0.6, 0.2])


def test_partial_rows_name_what_the_person_has_and_exclude_the_rest_of_a_choice():
    labels = np.zeros((300, SCHEMA.num_attributes), dtype=np.int64)
    rng = np.random.default_rng(0)
    for row in labels:  # one option of each choice, a fifth of the flags
        for group in SCHEMA.groups:
            row[SCHEMA.index(rng.choice(list(group.options.values())))] = 1
        for flag in SCHEMA.flags:
            row[SCHEMA.index(flag.attribute)] = rng.random() < 0.2
    queries = partial_rows(labels, SCHEMA, np.random.default_rng(1), max_said=4)
    said = (queries == 1).sum(axis=1)
    assert set(said.tolist()) == {1, 2, 3, 4}
    assert (labels[queries == 1] == 1).all()
    excluded = 0
    for query in queries:
        expected = np.full(len(query), -100)
        for group in SCHEMA.groups:
            options = [SCHEMA.index(a) for a in group.options.values()]
            if group.exclusive and (query[options] == 1).any():
                expected[options] = 0
        excluded += (expected == 0).sum()
        expected[query == 1] = 1
        assert query.tolist() == expected.tolist()
    assert excluded > 100
    assert matching_rows(torch.tensor(labels), torch.tensor(queries)).diagonal().all()


def test_partial_rows_are_as_often_long_as_short():
    labels = np.tile([1, 1, 1, 0], (300, 1))
    queries = partial_rows(labels, SMALL, np.random.default_rng(0), max_said=3)
    counts = np.bincount((queries == 1).sum(axis=1), minlength=4)
    assert counts[0] == 0
    assert (abs(counts[1:] - 100) < 33).all()  # 4 standard deviations


def test_partial_rows_follow_the_generator_and_leave_unknown_people_unsaid():
    labels = random_labels(20)
    labels[3], labels[4] = -100, 0
    draws = [partial_rows(labels, SCHEMA, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert (draws[0][[3, 4]] == -100).all()
    assert ((draws[0] == 1).any(axis=1) == (labels == 1).any(axis=1)).all()


def test_matching_rows_equal_plain_loops():
    rng = np.random.default_rng(2)
    labels = rng.choice([1, 0, -100], size=(40, 4))
    queries = rng.choice([1, 0, -100], size=(30, 4), p=[0.3, 0.2, 0.5])
    queries[0] = -100
    found = matching_rows(torch.tensor(labels), torch.tensor(queries))
    for image, person in enumerate(labels):
        for number, query in enumerate(queries):
            fits = any(wish == 1 for wish in query)
            for has, wish in zip(person, query, strict=True):
                if (wish == 1 and has != 1) or (wish == 0 and has == 1):
                    fits = False
            assert found[image, number].item() is fits
    assert 0 < found.sum() < found.numel() / 2
    assert not found[:, 0].any()


def test_embed_texts_keep_order_share_duplicates_and_leave_the_silent_zero(
    micro_model, make_tokenizer
):
    schema = AttributeSchema.from_names(list(micro_model.config.id2label.values()))
    tokenizer = make_tokenizer("a person with hat glasses backpack female skirt red , and .")
    processor = ClearProcessor.for_schema(schema, 32, 32, tokenizer, query_kind="soft")
    rng = np.random.default_rng(0)
    rows = rng.choice([1, 0, -100], size=(11, 6), p=[0.4, 0.3, 0.3])
    rows[4], rows[7], rows[10] = rows[1], 0, -100
    embeds = embed_texts(micro_model, processor, rows, batch_size=3)
    assert embeds.shape == (11, 16)
    for row, embed in zip(rows, embeds, strict=True):
        if not (row == 1).any():
            assert not embed.any()
            continue
        inputs = processor(labels=row[None], return_tensors="pt")
        expected = micro_model.encode_text(inputs["input_ids"], inputs["attention_mask"])[0]
        torch.testing.assert_close(embed, expected)
    assert torch.equal(embeds[4], embeds[1])
    assert not torch.allclose(embeds[0], embeds[1])


@pytest.fixture
def speaking(micro_model, make_tokenizer):
    """Model, processor and label rows of queries with words."""
    schema = AttributeSchema.from_names(list(micro_model.config.id2label.values()))
    tokenizer = make_tokenizer("a person with hat glasses backpack female skirt red , and .")
    processor = ClearProcessor.for_schema(schema, 32, 32, tokenizer, query_kind="soft")
    return micro_model, processor, np.eye(6, dtype=np.int64)


def count_texts(cache: TextCache, rows: np.ndarray) -> int:
    """How many texts the language model reads to embed these rows."""
    read, encode = [], cache.model.encode_text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cache.model, "encode_text", lambda ids, mask: read.append(len(ids)) or encode(ids, mask)
        )
        cache.embed(rows)
    return sum(read)


def test_each_text_is_read_once(speaking):
    model, processor, rows = speaking
    cache = TextCache(model, processor)
    assert count_texts(cache, rows[[0, 1, 0]]) == 2
    assert count_texts(cache, rows[:4]) == 2
    unsaid = np.where(rows == 0, -100, rows)  # other rows, the same texts
    assert count_texts(cache, unsaid[:4]) == 0
    processor.query_kind = "words"
    assert count_texts(cache, rows[:4]) == 4


def test_texts_are_kept_between_runs_until_what_reads_them_changes(speaking, tmp_path):
    model, processor, rows = speaking
    expected = TextCache(model, processor, tmp_path).embed(rows[:4])
    again = TextCache(model, processor, tmp_path)
    assert count_texts(again, rows) == 2
    assert torch.equal(again.embed(rows)[:4], expected)
    assert count_texts(TextCache(model, processor, tmp_path), rows) == 0
    next(model.backbone.parameters()).data += 1  # does not read texts
    assert count_texts(TextCache(model, processor, tmp_path), rows) == 0
    model.config.text_pooling = "last"
    assert count_texts(TextCache(model, processor, tmp_path), rows) == 6
    next(model.language_model.parameters()).data += 1e-3
    assert count_texts(TextCache(model, processor, tmp_path), rows) == 6
    processor.tokenizer.add_tokens(["hatless"])
    assert count_texts(TextCache(model, processor, tmp_path), rows) == 6
    assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_partial_queries_name_what_every_image_knows_and_repeat_themselves():
    labels = random_labels(60)
    labels[:, 40:] = np.abs(labels[:, 40:]) % 99  # known for all: 1 or 0
    labels = np.where((labels == 1) | (labels == 0), labels, -100)
    labels[:, 50:][labels[:, 50:] < 0] = 0
    rows, relevance = partial_queries(labels, SCHEMA, 2, count=40)
    known = (labels >= 0).all(axis=0)
    for query, relevant in zip(rows, relevance, strict=True):
        named = np.flatnonzero(query == 1)
        assert len(named) == 2
        assert known[named].all()
        assert np.array_equal(relevant, (labels[:, named] == 1).all(axis=1))
        assert relevant.any()
    assert len(np.unique(rows, axis=0)) == len(rows) == 40
    assert np.array_equal(partial_queries(labels, SCHEMA, 2, count=40)[0], rows)
    assert not np.array_equal(partial_queries(labels, SCHEMA, 2, count=40, seed=1)[0], rows)
    nothing, none = partial_queries(np.zeros_like(labels), SCHEMA, 1)
    assert nothing.shape == (0, SCHEMA.num_attributes)
    assert none.shape == (0, 60)


def test_choice_values_tell_categories_apart_by_group():
    rows = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1]])
    schema = AttributeSchema.from_dict(
        {
            **SMALL.to_dict(),
            "groups": [
                {
                    "name": "on the head",
                    "section": "attributes",
                    "options": [
                        {"value": "hat", "attribute": "hat"},
                        {"value": "glasses", "attribute": "glasses"},
                    ],
                }
            ],
            "flags": SMALL.to_dict()["flags"][2:],
        }
    )
    values = choice_values(rows, schema)
    assert values.shape == (3, 1)  # backpack and skirt are the same for all
    assert values[0] == values[2] != values[1]


def test_feature_rows_draw_a_view_from_seed_epoch_and_index():
    features = torch.arange(4)[:, None, None] * 100.0 + torch.arange(50)[None, :, None]  # view, row
    rows = FeatureRows(features, np.arange(50) % 7, seed=3)
    drawn = {}
    for rows.epoch in (1, 2):
        items = [rows[index] for index in range(len(rows))]
        assert [item["index"] for item in items] == list(range(50))
        assert [item["categories"].item() for item in items] == [i % 7 for i in range(50)]
        values = torch.cat([item["features"] for item in items])
        assert torch.equal(values % 100, torch.arange(50.0))
        views = drawn[rows.epoch] = (values // 100).int().tolist()
        assert set(views) == {0, 1, 2, 3}
        assert [int(rows[index]["features"] // 100) for index in reversed(range(50))] == views[::-1]
    assert drawn[1] != drawn[2]
    other = FeatureRows(features, np.zeros(50), seed=4)
    other.epoch = 1
    assert [int(other[index]["features"] // 100) for index in range(50)] != drawn[1]

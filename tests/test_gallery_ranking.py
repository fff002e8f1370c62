"""Ranking by cosine and evidence: a drawn table, compared with closed forms in numpy."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from clear_par import gallery_clear
from clear_par.attributes_clear import AttributeSchema
from clear_par.evidence_clear import fused_scores, query_evidence
from clear_par.gallery.embedding import Embedder
from clear_par.gallery.gallery import Gallery
from clear_par.gallery.index_settings import IVF, IndexSettings
from clear_par.gallery.output import as_csv
from clear_par.gallery.ranking import Evidence
from clear_par.gallery.searching import Found, Hit, Search
from clear_par.gallery.table import GalleryTable
from clear_par.peft_clear import active_adapter_config

ROWS, WEIGHT = 60, 4.0
QUERIES = [{"hat": True}, ["backpack", "red"], {"female": True, "skirt": False}]


@pytest.fixture(scope="module")
def embedder(gallery_model) -> Embedder:
    made = Embedder.load(str(gallery_model), device="cpu")
    active_adapter_config(made.model).fusion_weight = WEIGHT
    return made


def fill(table: GalleryTable) -> None:
    """Drawn unit vectors and probabilities of all sizes, certain ones included."""
    rng, width = np.random.default_rng(0), table.identity.embed_dim
    vectors = rng.standard_normal((ROWS, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chances = rng.beta(0.3, 0.3, (len(table.identity.attributes), ROWS)).astype(np.float32)
    chances[:, :2] = [0, 1]
    struct = table.schema.field("attributes").type
    data = {
        "id": [f"{number:032x}" for number in rng.permutation(ROWS)],
        "source": ["drawn"] * ROWS,
        "image": [str(number) for number in range(ROWS)],
        "camera": [f"c{number % 3}" for number in range(ROWS)],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        "attributes": pa.StructArray.from_arrays(
            list(map(pa.array, chances)), [field.name for field in struct]
        ),
    }
    nothing = pa.nulls(ROWS)
    arrays = [pa.array(data.get(f.name, nothing), f.type) for f in table.schema]
    table.append(pa.Table.from_arrays(arrays, schema=table.schema))


@pytest.fixture
def gallery(embedder, tmp_path) -> Gallery:
    table = GalleryTable.create(str(tmp_path / "people"), embedder.identity(), {})
    fill(table)
    return Gallery(table, embedder)


def scores_of(gallery: Gallery, query, camera: str | None = None) -> dict[str, tuple]:
    """id -> (fused score, cosine), by the formula: every attribute here is a choice of its own."""
    embedder, config = gallery.embedder, active_adapter_config(gallery.embedder.model)
    labels = np.array(embedder.processor.query_values(query))
    (vector,) = embedder.embed_labels(labels[None])
    found = {}
    for row in gallery.table.read(["id", "embedding", "attributes", "camera"]).to_pylist():
        chances = np.array(list(row["attributes"].values()))
        chances = np.clip(chances, 1e-30, 1 - 2**-24)
        said = np.where(labels == 1, np.log(chances), np.log1p(-chances))[labels >= 0]
        cosine = float(np.dot(row["embedding"], vector))
        if camera in (None, row["camera"]):
            found[row["id"]] = (config.scale * cosine + WEIGHT * said.mean(), cosine)
    return found


def best(scores: dict, by: int = 0) -> list[str]:
    return sorted(scores, key=lambda name: -scores[name][by])


@pytest.mark.parametrize("query", QUERIES, ids=str)
@pytest.mark.parametrize("held", [True, False])
def test_the_fused_ranking_is_that_of_numpy(gallery, query, held, monkeypatch):
    if not held:
        monkeypatch.setattr("clear_par.gallery.ranking.HELD_BYTES", 0)
    scores = scores_of(gallery, query)
    found = gallery.search(query, top_k=ROWS)
    assert found.fused
    assert [hit.id for hit in found.hits] == best(scores)
    for hit in found.hits:
        assert (hit.score, hit.cosine) == pytest.approx(scores[hit.id], abs=1e-4)
    assert gallery.search(query, top_k=7).hits == found.hits[:7]
    by_cosine = gallery.search(query, top_k=ROWS, evidence=False)
    assert [hit.id for hit in by_cosine.hits] == best(scores, by=1) != best(scores)
    assert [hit.score for hit in by_cosine.hits] == [hit.cosine for hit in by_cosine.hits]
    filtered = gallery.search(query, filter="camera = 'c1'").hits
    assert [hit.id for hit in filtered] == best(scores_of(gallery, query, "c1"))[:10]


def test_an_index_hands_on_candidates_that_are_ranked_again(gallery, monkeypatch):
    gallery.table.build_index(IndexSettings(IVF, num_partitions=4, num_probes=4, refine=40))
    scores = scores_of(gallery, QUERIES[1])
    found = gallery.search(QUERIES[1], top_k=5)
    assert [hit.id for hit in found.hits] == best(scores)[:5]
    monkeypatch.setattr("clear_par.gallery.ranking.CANDIDATES", 2)
    monkeypatch.setattr("clear_par.gallery.ranking.LEAST_CANDIDATES", 1)
    near = {name: scores[name] for name in best(scores, by=1)[:10]}
    found = gallery.search(QUERIES[1], top_k=5)
    assert [hit.id for hit in found.hits] == best(near)[:5] != best(scores)[:5]
    exact = gallery.search(QUERIES[1], top_k=5, exact=True)
    assert [hit.id for hit in exact.hits] == best(scores)[:5]


def test_what_is_held_in_memory_follows_the_writer(gallery):
    first = gallery.search(QUERIES[0]).hits[0]
    GalleryTable.open(gallery.table.uri).remove(f"`id` = '{first.id}'")
    scores = scores_of(gallery, QUERIES[0])
    assert first.id not in scores
    assert [hit.id for hit in gallery.search(QUERIES[0]).hits] == best(scores)[:10]
    gallery.remove(filter="camera IS NOT NULL")
    assert gallery.search(QUERIES[0]).hits == []


def test_a_search_that_another_one_overtakes_keeps_to_its_version(gallery, monkeypatch):
    before, scores, turns = gallery.search(QUERIES[0], top_k=ROWS).hits, Evidence.scores, [1]

    def overtaken(evidence, *arguments):
        if turns:
            turns.pop()
            GalleryTable.open(gallery.table.uri).remove(f"`id` = '{before[0].id}'")
            gallery.search(QUERIES[0])  # as a thread would: what is held is read again
        return scores(evidence, *arguments)

    monkeypatch.setattr(Evidence, "scores", overtaken)
    found = gallery.search(QUERIES[0], top_k=ROWS).hits
    assert [(h.id, h.score) for h in found] == [(h.id, h.score) for h in before[1:]]


def test_a_removal_in_the_middle_of_a_search_is_survived(gallery, monkeypatch):
    monkeypatch.setattr("clear_par.gallery.ranking.HELD_BYTES", 0)
    hits, batches, failures = gallery.search(QUERIES[0]).hits, GalleryTable.batches, [OSError]

    def interrupted(table, *asked):
        yield from batches(table, *asked)
        if failures:
            raise failures.pop()("the file is gone")

    monkeypatch.setattr(GalleryTable, "batches", interrupted)
    assert gallery.search(QUERIES[0]).hits == hits
    assert failures == []


def test_a_gallery_at_an_address_is_as_one_in_a_folder(gallery, tmp_path):
    address = (tmp_path / "storage").as_uri()
    table = GalleryTable.create(address, gallery.table.identity, {})
    fill(table)
    there = Gallery(GalleryTable.open(address), gallery.embedder)
    hits = gallery.search(QUERIES[0]).hits
    assert there.search(QUERIES[0]).hits == hits
    assert there.remove(ids=[hits[0].id]) == 1
    facts = there.info()
    assert (facts["crops"], facts["versions"], facts["disk_bytes"]) == (ROWS - 1, 1, None)
    assert there.search(QUERIES[0], top_k=9).hits[0].id == hits[1].id


def test_evidence_has_the_share_of_the_description(gallery, tmp_path):
    from PIL import Image

    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    config, image = active_adapter_config(gallery.embedder.model), str(tmp_path / "a.png")
    by_image = {hit.id: hit.score for hit in gallery.search(image=image, top_k=ROWS).hits}
    assert max(by_image.values()) <= 1  # an image alone is compared by cosine
    scores = scores_of(gallery, QUERIES[0])
    for hit in gallery.search(QUERIES[0], image, image_weight=0.3, top_k=ROWS).hits:
        wanted = 0.7 * scores[hit.id][0] + 0.3 * config.scale * by_image[hit.id]
        assert hit.score == pytest.approx(wanted, abs=1e-4)
    alone = gallery.search(QUERIES[0], image, image_weight=1, top_k=ROWS)
    assert [hit.id for hit in alone.hits] == list(by_image)


def test_only_the_probabilities_that_count_are_asked_for(shared_schema):
    """Against the evidence of all attributes, with groups of every kind."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (50, shared_schema.num_attributes))
    cosines, most = rng.uniform(-1, 1, 50), 0
    for _ in range(40):
        labels = np.full(shared_schema.num_attributes, -100)
        chosen = rng.permutation(len(labels))[: rng.integers(1, 6)]
        labels[chosen] = rng.integers(0, 2, len(chosen))
        evidence = Evidence.of(shared_schema, labels, 12.0, WEIGHT)
        places = [shared_schema.index(name) for name in evidence.attributes]
        chances = (1 / (1 + np.exp(-logits[:, places]))).astype(np.float32)
        full = query_evidence(logits, labels[None], shared_schema)[0]
        wanted = fused_scores(cosines, full, 12.0, WEIGHT)
        np.testing.assert_allclose(evidence.scores(cosines, chances), wanted, atol=5e-3)
        most = max(most, len(places))
    assert most < shared_schema.num_attributes / 2


@pytest.fixture(scope="module")
def shared_schema(repository) -> AttributeSchema:
    """The vocabulary of the checkpoint."""
    settings = json.loads((repository / "processor_config.json").read_text("utf-8"))
    return AttributeSchema.from_dict(settings["schema"])


# ---- what is printed ----------------------------------------------------------------------------


def test_the_command_shows_both_and_can_leave_evidence_out(gallery, monkeypatch, capsys):
    monkeypatch.setattr(gallery_clear, "load_embedder", lambda *arguments: gallery.embedder)
    for option, by in (((), "cosine and evidence"), (("--no-evidence",), "cosine")):
        command = ["search", gallery.table.uri, '["hat"]', *option]
        gallery_clear.main([*command, "--format", "json"])
        (answer,) = json.loads(capsys.readouterr().out)
        assert answer["ranked_by"] == by
        assert answer["hits"][0]["cosine"] <= 1
        gallery_clear.main(command)
        assert ("(cosine " in capsys.readouterr().out) == (by != "cosine")


CELLS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-1+1": "'-1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\n=1",
    "-5": "-5",
    "+4.50": "+4.50",
    "north": "north",
    "a=b": "a=b",
    -7: "-7",
    -0.5: "-0.500000",
}


def test_no_cell_of_a_csv_is_a_formula():
    hits = [
        Hit(n, -1.5, "0", "drawn", str(cell), metadata={"=note": cell}, matched={"-x": 0.9})
        for n, cell in enumerate(CELLS, start=1)
    ]
    text = as_csv([Found(Search("hat"), "hat", hits, 0.0)])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["'=note"] for row in rows] == list(CELLS.values())
    assert rows[0]["image"] == "'=1+1"
    assert {row["matched"] for row in rows} == {"'-x"}
    assert {row["score"] for row in rows} == {"-1.500000"}


# ---- workers ------------------------------------------------------------------------------------


class RayError(Exception):
    """As in `ray.exceptions`."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RayError(
                "\x1b[36mray::embed()\x1b[39m (pid=1)\n  File x, line 2\nOSError: it is gone\n"
            ),
            "OSError: it is gone",
        ),
        (RayError("The actor died unexpectedly.\n\tclass_name: X"), "The actor died unexpectedly."),
        (RuntimeError("Failed to search: no file"), "Failed to search: no file"),
        (RayError(), "RayError"),
    ],
)
def test_what_a_worker_raises_is_one_line(error, reason):
    from clear_par.gallery.cluster import naming_failures

    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=RayError))
    words = "`ray` must have workers that can embed"
    with pytest.raises(ValueError, match=words) as raised, naming_failures(ray, "embed"):
        raise error
    assert str(raised.value).endswith(f"got: {reason}")

"""What the Space keeps of a visitor and says to one; the parts that need gradio but no browser."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
gr = pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[space-test]'")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "space"))  # the Space imports its own files by their plain names

import find_tab  # noqa: E402
import recognise_tab  # noqa: E402
import visitors as visitors_file  # noqa: E402
from engine import Engine  # noqa: E402
from visitors import Visitors, refuse, unopened  # noqa: E402

ANNA, BERT = (SimpleNamespace(session_hash=name) for name in ("anna", "bert"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(ROOT)


@pytest.fixture
def upload(tmp_path):
    """A function that puts a file among the uploads, sent so many seconds ago."""

    def send(name: str, ago: float = 100) -> str:
        path = tmp_path / "uploads" / name / "crop.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / "assets/samples/00001.jpg").read_bytes())
        os.utime(path, (time.time() - ago,) * 2)
        return str(path)

    return send


@pytest.fixture
def visitors(tmp_path, monkeypatch) -> Visitors:
    monkeypatch.setattr(visitors_file.threading.Timer, "start", lambda timer: None)
    return Visitors(tmp_path / "uploads", grace=30)


# ---- files ------------------------------------------------------------------------------------


def test_a_file_goes_when_its_session_has_ended(visitors, upload):
    mine, other = upload("a"), upload("b")
    visitors.remember(ANNA, [mine])
    visitors.remember(BERT, [other])
    visitors.forget(ANNA)
    visitors.sweep()
    assert (Path(mine).exists(), Path(other).exists()) == (False, True)


def test_a_file_of_one_call_goes_although_the_call_has_failed(visitors, upload):
    path = upload("first")
    with pytest.raises(ValueError, match="no image"), visitors.holding(ANNA, [path]):
        raise ValueError("no image")
    assert visitors.held == {}
    assert visitors.left == {path}


def test_a_file_that_two_have_sent_stays_until_both_have_gone(visitors, upload):
    """Gradio stores equal files once."""
    shared = upload("a")
    for who in (ANNA, BERT):
        visitors.remember(who, [shared])
    visitors.forget(ANNA)
    visitors.sweep()
    assert Path(shared).exists()
    visitors.forget(BERT)
    visitors.sweep()
    assert not Path(shared).exists()


def test_a_file_that_was_just_sent_again_stays_for_the_one_who_sent_it(visitors, upload):
    visitors.remember(ANNA, [upload("a")])
    visitors.forget(ANNA)
    again = upload("a", ago=1)
    visitors.sweep()
    assert Path(again).exists()
    os.utime(again, (time.time() - 40,) * 2)
    visitors.sweep()
    assert not Path(again).exists()


def test_only_uploads_are_read(visitors, upload):
    outside = str(ROOT / "assets/samples/00001.jpg")
    sneaky = f"{visitors.folder}/../{Path(outside).name}"
    for path in (outside, sneaky, "/etc/hostname", None):
        with pytest.raises(gr.Error, match="Only uploaded files are read"):
            visitors.remember(ANNA, [upload("a"), path])
    assert visitors.held == {}


def test_paths_are_handed_on_without_opening_the_files():
    one = SimpleNamespace(path="/a/b.jpg")
    component = unopened(SimpleNamespace())
    assert component.preprocess(None) is None
    assert component.preprocess(one) == "/a/b.jpg"
    assert component.preprocess(SimpleNamespace(root=[one, one])) == ["/a/b.jpg"] * 2


# ---- crops ------------------------------------------------------------------------------------


def crops_of(size: int) -> SimpleNamespace:
    return SimpleNamespace(size=size)


def test_crops_are_each_sessions_own_and_go_with_it(visitors):
    red, blue, green = map(crops_of, range(3))
    visitors.keep(ANNA, "given", red)
    visitors.keep(ANNA, "gallery", blue)
    visitors.keep(BERT, "given", green)
    assert (visitors.kept(ANNA, "given"), visitors.kept(ANNA, "gallery")) == (red, blue)
    assert visitors.kept(BERT, "gallery") is None
    visitors.forget(ANNA)
    assert visitors.kept(ANNA, "given") is None
    assert visitors.kept(BERT, "given") == green


def test_the_quietest_session_gives_way(visitors, monkeypatch):
    monkeypatch.setattr(visitors_file, "MOST_SESSIONS", 2)
    for name in ("a", "b", "a", "c"):
        visitors.keep(SimpleNamespace(session_hash=name), "given", crops_of(1))
    assert list(visitors.crops) == ["a", "c"]


def test_the_memory_of_all_sessions_has_an_end(visitors, monkeypatch):
    monkeypatch.setattr(visitors_file, "MOST_BYTES", 100)
    for name, size in (("a", 60), ("b", 30), ("a", 50), ("c", 60)):
        visitors.keep(SimpleNamespace(session_hash=name), "given", crops_of(size))
    assert list(visitors.crops) == ["c"]  # a and c together are too much, b was the quietest
    visitors.keep(ANNA, "given", None)
    visitors.keep(BERT, "gallery", crops_of(900))
    assert list(visitors.crops) == [BERT.session_hash]  # who has just come is not sent away


def test_what_was_left_out_is_one_message(monkeypatch):
    said = []
    monkeypatch.setattr(visitors_file.gr, "Warning", said.append)
    visitors_file.warn([])
    visitors_file.warn(["a is bad.", "b is bad."])
    visitors_file.warn([f"{name} is bad." for name in "abcdef"])
    assert said == [
        "Not everything was read. a is bad. b is bad.",
        "Not everything was read. a is bad. b is bad. c is bad. And 3 more.",
    ]


@pytest.fixture
def later(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    import app  # reads the variable

    return app.Later


def test_what_is_made_later_is_made_once_and_by_whoever_asks(later):
    made = []
    gallery = later(lambda: made.append(1) or "crops")
    assert made == []
    assert (gallery(), gallery()) == ("crops", "crops")
    gallery.start()
    assert made == [1]


def test_what_fails_later_says_so_to_everyone_who_asks(later):
    def fail():
        raise ValueError("no crops")

    gallery = later(fail)
    gallery.start()
    for _ in range(2):
        with pytest.raises(ValueError, match="no crops"):
            gallery()


# ---- words ------------------------------------------------------------------------------------


def test_what_is_wrong_becomes_a_message_of_the_page():
    with pytest.raises(gr.Error, match="a bad thing"), refuse():
        raise ValueError("a bad thing")


def form_values(engine, **chosen) -> list:
    """The fields of the form, of which some are chosen."""
    names = [group.name for group in engine.schema.groups]
    values = dict.fromkeys(names, find_tab.ANY) | {"with": None, "without": []}
    return list((values | {key.replace("_", " "): v for key, v in chosen.items()}).values())


def test_the_form_and_the_text_ask_the_same(engine):
    values = form_values(engine, gender="female", upper_colour=["red"], **{"with": ["backpack"]})
    by_form, _ = find_tab.read_query(engine.schema, find_tab.FORM, "", values)
    text = "woman with a red top and a backpack"
    by_text, _ = find_tab.read_query(engine.schema, find_tab.WORDS, text, [])
    assert engine.schema.query_values(by_form) == engine.schema.query_values(by_text)


@pytest.mark.parametrize(
    ("way", "text", "message"),
    [
        (find_tab.FORM, "", "Choose at least one attribute"),
        (find_tab.WORDS, "  ", "Say whom you are looking for"),
        (find_tab.WORDS, None, "Say whom you are looking for"),
        (find_tab.WORDS, "xyzzy", "must name an attribute"),
    ],
)
def test_an_empty_query_says_so(engine, way, text, message):
    with pytest.raises(ValueError, match=message):
        find_tab.read_query(engine.schema, way, text, form_values(engine))
    assert message in find_tab.sent(engine, way, text, "soft", form_values(engine))


def test_the_box_shows_what_is_sent_and_what_was_passed_over(engine):
    text = "a tall woman with a red top"
    box = find_tab.sent(engine, find_tab.WORDS, text, "soft+hard", [])
    assert "A woman wearing a red top." in box
    assert "Not understood: tall." in box
    assert "gender female, upper colour red" in find_tab.sent(
        engine, find_tab.WORDS, text, "words", []
    )
    assert "No sentence" in find_tab.sent(engine, find_tab.WORDS, text, "hard", [])


def test_the_sentence_of_a_crop_says_what_is_said(engine):
    said = ["personalFemale", "upperBodyRed", "carryingBackpack"]
    words = recognise_tab.sentence(engine, said)
    assert words == "A woman wearing a red top, carrying a backpack."
    assert recognise_tab.sentence(engine, []) == "Nothing is above its threshold."


@pytest.mark.parametrize("place", [-1, 3, "0", None, 1.0])
def test_a_press_on_what_is_not_there_gets_a_message(place):
    with pytest.raises(gr.Error, match="no such crop"):
        recognise_tab.picked(SimpleNamespace(pick=place), 3)


def test_the_page_says_what_the_scores_are(engine):
    measure, meaning = find_tab.measure_of(engine, "peta", True)
    assert measure == "score"
    assert meaning.startswith(
        "Score: 12 × cosine + 4 × evidence, the classifier's mean log-probability"
    )
    measure, meaning = find_tab.measure_of(engine, "peta", False)
    assert measure == "cosine"
    assert "evidence" not in meaning


def test_a_search_is_by_the_score_that_the_page_names(engine):
    samples = [str(ROOT / f"assets/samples/{number:05d}.jpg") for number in range(12)]
    gallery, problems = engine.read_files(samples, 12)
    assert problems == []
    query = {"gender": "female", "upper colour": ["red"]}
    labels = engine.schema.query_values(query)
    embed = engine.embed_query(labels, "peta", "soft+hard")
    for weighed in (True, False):
        hits = find_tab.search(engine, gallery, query, "peta", "soft+hard", 5, weighed)
        scores = engine.scores(labels, embed, gallery, "peta", weighed)
        assert [hit.score for hit in hits] == sorted(scores.tolist(), reverse=True)[:5]
        assert all(scores[hit.index] == hit.score for hit in hits)

"""demo.py on a micro checkpoint: what it prints against labels counted by hand, every error."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image

from clear_par import demo
from clear_par.adapter_config_clear import ClearAdapterConfig
from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE, synthetic_crops
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import save_adapter
from clear_par.processing_clear import ClearProcessor

SCHEMA = AttributeSchema.from_json(SCHEMA_FILE)
ASKED = [  # what the three queries of the demo ask, in the data set's own names
    {"personalFemale", "hairLong", "upperBodyRed"},
    {"personalMale", "lowerBodyBlue", "carryingBackpack"},
    {"accessoryHat", "upperBodyBlack"},
]


@pytest.fixture(scope="module")
def save_repository(tmp_path_factory, make_micro_config, make_tokenizer):
    """A function that saves a micro model of a schema with adapters/peta inside its folder."""

    def save(schema: AttributeSchema) -> Path:
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp("model")
        names = dict(enumerate(schema.attributes))
        model = ClearModel(make_micro_config(id2label=names))
        torch.nn.init.normal_(model.classifier.weight, std=0.5)  # else all is close to one half
        model.save_pretrained(folder)
        tokenizer = make_tokenizer("a man woman person with long hair wearing black red top , .")
        ClearProcessor.for_schema(schema, 32, 32, tokenizer).save_pretrained(folder)
        adapted = get_peft_model(model, ClearAdapterConfig(embed_dim=16, schema=schema))
        save_adapter(adapted, folder / "adapters" / "peta", ".")
        return folder

    return save


@pytest.fixture(scope="module")
def model(save_repository) -> Path:
    return save_repository(SCHEMA)


@pytest.fixture(scope="module")
def run(model, repository, tmp_path_factory):
    """The finished process of `demo.py`, as a user starts it, and its folder of pictures."""
    output = tmp_path_factory.mktemp("demo") / "new" / "pictures"
    arguments = ["--model", model, "--gallery", 8, "--output", output]
    result = subprocess.run(
        [sys.executable, repository / "demo.py", *map(str, arguments)],
        cwd=output.parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return result, output


def tables_of(text: str) -> list[list[dict[str, str]]]:
    """Every table of the output: rows of header -> cell, by the columns under the dashes."""
    lines, tables = text.splitlines(), []
    for number, line in enumerate(lines):
        if re.fullmatch(r"-+(  -+)+", line):
            spans = [match.span() for match in re.finditer("-+", line)]
            header = [lines[number - 1][a:b].strip() for a, b in spans]
            table = []
            for row in lines[number + 1 :]:
                if not row:
                    break
                cells = (row[a:b].strip() for a, b in spans)
                table.append(dict(zip(header, cells, strict=True)))
            tables.append(table)
    return tables


def truth(name: str, repository: Path) -> set[str]:
    """The attributes that a crop of the demo shows."""
    if name.startswith("drawn"):
        labels = synthetic_crops(int(name.split()[1]) + 1, seed=1)[-1][1]
        return {a for a, label in zip(SCHEMA.attributes, labels, strict=True) if label == 1}
    with (repository / "assets/samples/labels.csv").open(newline="") as file:
        return {row["image_name"]: set(row["present"].split()) for row in csv.DictReader(file)}[
            name
        ]


# ---- the command --------------------------------------------------------------------------------


def test_demo_ends_well_and_prints_four_tables(run):
    result, _ = run
    assert result.returncode == 0, result.stderr[-2000:]
    tables = tables_of(result.stdout)
    assert [len(table) for table in tables] == [12, 5, 5, 5]
    assert list(tables[0][0]) == [
        "crop",
        "gender",
        "hair",
        "upper",
        "lower",
        "carried",
        "accessories",
    ]
    assert [row["crop"] for row in tables[0]] == [f"{n:05d}.jpg" for n in range(12)]


def test_marks_agree_with_the_labels_of_the_samples(run, repository):
    marks = []
    for row in tables_of(run[0].stdout)[0]:
        present = truth(row["crop"], repository)
        said, mark = row["gender"][:-1], row["gender"][-1]
        assert mark == ("+" if f"personal{said.capitalize()}" in present else "-")
        colour = row["hair"].split(", ")[1]
        is_right = f"hair{colour[:-1].capitalize()}" in present
        assert colour[-1] == ("+" if is_right else "-")
        marks += [mark, colour[-1]]
        items = f"{row['carried']}, {row['accessories']}".split(", ")
        for item, attribute in (("backpack", "carryingBackpack"), ("muffler", "accessoryMuffler")):
            told = [text for text in items if text.strip("(+-)") == item]
            if attribute in present:
                assert told in ([f"{item}+"], [f"({item})"])
            else:
                assert told in ([], [f"{item}-"])
    assert set(marks) == {"+", "-"}


def test_found_crops_are_listed_best_first_with_what_is_true_of_them(run, repository):
    known = {f"{n:05d}.jpg" for n in range(12)} | {f"drawn {n:03d}" for n in range(8)}
    for table, asked in zip(tables_of(run[0].stdout)[1:], ASKED, strict=True):
        assert [row["rank"] for row in table] == list("12345")
        scores = [float(row["score"]) for row in table]
        assert scores == sorted(scores, reverse=True)
        assert all(-1 <= score <= 1 for score in scores)
        assert len({row["crop"] for row in table} & known) == 5
        for row in table:
            true = truth(row["crop"], repository) & asked
            counted, _, names = row["asked and true"].partition(": ")
            assert counted == f"{len(true)} of {len(asked)}"
            assert set(filter(None, names.split(", "))) == true


def test_pictures_are_whole(run):
    assert sorted(path.name for path in run[1].iterdir()) == ["recognition.png", "retrieval.png"]
    for path in run[1].iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) >= 800


def test_help_names_every_option(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        demo.main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--model", "--adapter", "--images", "--output", "--gallery"):
        assert option in text


# ---- in this process ----------------------------------------------------------------------------


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """A function that runs the command in this process and returns what it prints."""

    def run_here(*arguments) -> str:
        words = ["demo.py", *map(str, arguments), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", words)
        demo.main()
        return capsys.readouterr().out

    return run_here


def test_crops_of_ones_own_are_shown_without_marks(run_here, model, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 40, 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").save(folder / "a.png")
    Image.new("CMYK", (64, 64)).save(folder / "b.JPG")
    Image.new("L", (1, 1)).save(folder / "c.bmp")
    (folder / "notes.txt").write_text("no image")
    recognised, *found = tables_of(run_here("--model", model, "--images", folder))
    assert [row["crop"] for row in recognised] == ["a.png", "b.JPG", "c.bmp"]
    assert not any(re.search(r"[+(]|-$", cell) for row in recognised for cell in row.values())
    for table in found:
        assert len(table) == 3
        assert {row["asked and true"] for row in table} == {"unknown"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/where"], "`model` must be a folder or a Hub id .* 'no/where'"),
        (["--model", "MODEL", "--adapter", "no/where"], "`adapter` must be .* 'no/where'"),
        (["--model", "MODEL", "--images", "no/where"], "`--images` must be a folder"),
        (["--model", "MODEL", "--images", "EMPTY"], "`--images` must hold images"),
        (["--model", "MODEL", "--images", "BROKEN"], "half.png"),
        (["--model", "HATS"], "`--model` must know what the demo asks for"),
    ],
)
def test_errors_are_one_message_and_nothing_is_written(
    run_here, save_repository, model, tmp_path, arguments, message
):
    places = {"MODEL": model, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken"}
    places["EMPTY"].mkdir()
    places["BROKEN"].mkdir()
    (places["BROKEN"] / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    if "HATS" in arguments:
        places["HATS"] = save_repository(AttributeSchema.from_names(["cap", "cape"]))
    with pytest.raises(SystemExit, match=message) as stop:
        run_here(*(places.get(argument, argument) for argument in arguments))
    assert str(stop.value.code).startswith("demo.py: error: ")
    assert not (tmp_path / "out").exists()


# ---- parts --------------------------------------------------------------------------------------


def row_of(*present: str, unknown: tuple = ()) -> list[int]:
    return [1 if a in present else -100 if a in unknown else 0 for a in SCHEMA.attributes]


def cells(labels: list[int] | None, **probabilities: float) -> dict[str, list[str]]:
    decoded = SCHEMA.decode([probabilities.get(a, 0.1) for a in SCHEMA.attributes])
    found = demo.findings(decoded, labels, SCHEMA)
    return {column: list(map(str, cell)) for column, cell in found.items()}


def test_choices_are_right_wrong_or_unknown():
    said = {"personalMale": 0.9, "hairShort": 0.8, "hairBrown": 0.7, "upperBodyRed": 0.6}
    labels = row_of("personalMale", "hairLong", "hairBrown", unknown=("upperBodyRed",))
    found = cells(labels, **said)
    assert found["gender"] == ["male+"]
    assert found["hair"] == ["short-", "brown+"]
    assert found["upper"][0] == "red"  # its label is unknown
    assert cells(None, **said)["hair"] == ["short", "brown"]


def test_items_are_found_missed_or_not_there():
    labels = row_of("carryingBackpack", "carryingFolder", unknown=("carryingUmbrella",))
    found = cells(labels, carryingBackpack=0.9, carryingSuitcase=0.8, carryingUmbrella=0.7)
    assert found["carried"] == ["backpack+", "suitcase-", "(folder)", "umbrella"]
    assert found["accessories"] == []


def test_agreement_counts_what_is_asked_and_sees_what_is_excluded():
    wanted = np.array(SCHEMA.query_values({"gender": "male", "backpack": True, "hat": False}))
    both = ("carryingBackpack", "personalMale")
    assert demo.agreement(wanted, row_of(*both), SCHEMA) == (f"2 of 2: {', '.join(both)}", True)
    assert demo.agreement(wanted, row_of(*both, "accessoryHat"), SCHEMA)[1] is False
    assert demo.agreement(wanted, row_of("personalMale"), SCHEMA) == ("1 of 2: personalMale", False)
    assert demo.agreement(wanted, row_of(), SCHEMA) == ("0 of 2", False)
    assert demo.agreement(wanted, None, SCHEMA) == ("unknown", None)

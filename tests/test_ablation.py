"""The table of ablations: complete, repeatable, taken up where it was stopped."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clear_par import train
from clear_par.scripts import ablation
from clear_par.scripts.ablation import AblationSettings

ROWS = ["HA (hard)", "ASMR on our features", "local branch alone"]


@pytest.fixture
def settings(make_settings) -> AblationSettings:
    """Three rows and two seeds of seconds, over drawn crops."""
    base = make_settings(epochs=1, output_dir="base")
    train.main(base)
    return AblationSettings(
        dataset="synthetic",
        dataset_options=base.dataset_options,
        checkpoint="base",
        rows=ROWS,
        seeds=[0, 1],
        output_dir="ablation",
        adapter_settings='{"epochs": 1, "batch_size": 16, "feature_views": 1}',
        backbone_epochs=1,
        backbone_settings='{"preset": "micro", "batch_size": 16, '
        '"model_options": "{\\"local_mlp_ratio\\": 3.0}"}',
    )


def test_a_cell_is_computed_once(settings, monkeypatch):
    settings = replace(settings, rows=["HA (hard)"], seeds=[0], backbone_epochs=0)
    scores = ablation.main(settings)
    found = scores["HA (hard)"][0]
    assert {key for key in ablation.COLUMNS.values() if key not in found} <= {
        "unseen/mean_average_precision",
        "partial/5",
    }
    assert all(0 <= value <= 1 for value in found.values())
    monkeypatch.setattr(train, "main", None)
    assert ablation.main(replace(settings, backbone_settings="{}")) == scores
    with pytest.raises(ValueError, match=r"changed: test_split \(was 'test', is 'validation'\)"):
        ablation.main(replace(settings, test_split="validation"))


@pytest.mark.slow
def test_the_table_is_complete_and_goes_on_where_it_was_stopped(settings, monkeypatch):
    compute, done = ablation.compute, []

    def stopped(cell, *arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(cell)
        return compute(cell, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ablation, "compute", stopped)
        with pytest.raises(KeyboardInterrupt):
            ablation.main(settings)
    assert [(cell.row, cell.seed) for cell in done] == [*((row, 0) for row in ROWS), (ROWS[0], 1)]

    main, trained = train.main, []
    monkeypatch.setattr(train, "main", lambda run: trained.append(run) or main(run))
    scores = ablation.main(settings)
    assert [(run.stage, run.seed) for run in trained] == [
        ("retrieval", 1),  # ASMR
        ("recognition", 1),
        ("retrieval", 1),  # on that backbone
    ]
    assert trained[0].optimizer == "sgd"
    options = json.loads(trained[1].model_options)  # those of all variants, then its own
    assert options == {"local_mlp_ratio": 3.0, "use_global_branch": False}
    assert list(scores) == ROWS
    assert all(len(found) == 2 for found in scores.values())
    record = json.loads(Path("ablation/ablation.json").read_text())
    assert record["scores"] == scores
    text = Path("ablation/ablation.md").read_text()
    values = [100 * one["all/mean_average_precision"] for one in scores["HA (hard)"]]
    assert f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" in text
    assert "/" not in json.dumps(record["settings"]["checkpoint"])
    with Image.open("ablation/ablation.png") as picture:
        picture.verify()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ["HA"]}, "`rows` must be among"),
        ({}, "`checkpoint` must name a trained model"),
        ({"checkpoint": "x", "adapter_settings": "[]"}, "`adapter_settings` must be a JSON object"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        AblationSettings(**changes)

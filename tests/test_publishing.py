"""A finished run: its card, and its push to the Hub, against a Hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file

from clear_par import train
from clear_par.training import model_card, publishing
from clear_par.training.publishing import PushError, push_run
from clear_par.training.run_folder import write_json, write_records
from clear_par.training.states import RunStates

pytest_plugins = ["clear_par.tests.hub_endpoint"]

RECORDS = {"training_args.json", "metrics.json", "training_curve.png"}
SERVED = {"handler.py", "requirements.txt"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Filled by `run`: a finished run of each stage, made once."""
    return {"": tmp_path_factory.mktemp("runs")}


@pytest.fixture
def run(runs, make_settings, gallery_model, tmp_path):
    """A function that gives a copy of a finished run: trained, or of a ready adapter."""

    def adapter(folder: Path) -> None:
        shutil.copytree(gallery_model / "adapters" / "peta", folder)
        said = facts(stage="retrieval", base_name="me/base", query_kind="hard", finished=True)
        write_records(folder, said.record, said.history, said.score)
        (folder / "README.md").write_text(model_card.card_text(said))

    def finished(stage: str) -> Path:
        if stage not in runs:
            runs[stage] = runs[""] / stage
            if stage == "retrieval":
                adapter(runs[stage])
            else:
                train.main(make_settings(output_dir=str(runs[stage])))
        return Path(shutil.copytree(runs[stage], tmp_path / stage, dirs_exist_ok=True))

    return finished


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def code(repository) -> set[str]:
    """The files of remote code, which travel with a model."""
    scripts = {"evaluate_clear.py", "gallery_clear.py"}
    return {path.name for path in repository.glob("*_clear.py")} - scripts


# ---- the card ---------------------------------------------------------------------------------


def test_the_card_of_a_model_says_what_the_records_say(run):
    folder = run("recognition")
    card = ModelCard.load(folder / "README.md")
    metrics = json.loads((folder / "metrics.json").read_text())
    best = max(metrics["epochs"], key=lambda epoch: epoch["mean_accuracy"])
    results = {r.metric_type: r for r in card.data.eval_results}
    assert results["mean_accuracy"].metric_value == pytest.approx(
        100 * best["mean_accuracy"], abs=5e-3
    )
    assert results["instance_f1"].metric_value == pytest.approx(100 * best["instance_f1"], abs=5e-3)
    assert "validation_loss" not in results
    for result in results.values():
        assert (result.dataset_name, result.dataset_split) == ("synthetic", "validation")
        assert result.task_type == "image-classification"
    assert (card.data.library_name, card.data.license) == ("transformers", "other")
    assert f"Kept: epoch {best['epoch']} of 2, the best by mA on `validation`" in card.text
    assert "`train`, 48 crops." in card.text
    assert "apache-2.0" in card.text
    assert "| `batch_size` | 16 |" in card.text
    record = json.loads((folder / "training_args.json").read_text())
    assert f"commit `{record['commit']}`" in card.text
    assert record["finished"] is True


def test_the_card_of_an_adapter_names_its_base(run):
    card = ModelCard.load(run("retrieval") / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", "me/base")
    assert [r.metric_type for r in card.data.eval_results] == ["mean_average_precision"]
    assert 'base = "me/base"' in card.text
    assert "{" + "query" not in card.text


def facts(**changes) -> model_card.RunFacts:
    """Of a run of four epochs, of which the second and third are the best."""
    record = {
        **{name: 1 for names in model_card.SHOWN.values() for name in names},
        **{"stage": "recognition", "dataset": "me/peta", "config_name": None, "torch": "2"},
        **{"train_split": "train", "validation_split": "validation", "commit": None},
        **changes,
    }
    is_model = record["stage"] == "recognition"
    score = "mean_accuracy" if is_model else "mean_average_precision"
    scores = enumerate((0.5, 0.75, 0.75, 0.25), 1)
    return model_card.RunFacts(
        name="run",
        record=record,
        history=[{"epoch": epoch, "loss": 1.0, score: value} for epoch, value in scores],
        score=score,
        terms=model_card.Terms(license="research only"),
        hub_dataset="me/peta",
        num_crops=9,
        num_validation=3,
        num_evaluated=35,
        example="hat",
        date="2026-01-01",
        hardware="a processor",
    )


@pytest.mark.parametrize(
    ("train_split", "validation_split", "is_held_out"),
    [
        ("train", "validation", True),
        ("trainval", "validation", False),
        ("train+validation", "validation[:50]", False),
        ("train", "train[:10%]", False),
        ("peta:train", "validation", True),
        ("peta:trainval", "peta:validation", False),
        ("peta:trainval", "validation", False),
        ("trainval", "peta:validation", False),
        ("trainval", "test", True),
    ],
)
def test_scores_on_crops_that_were_trained_on_are_no_results(
    train_split, validation_split, is_held_out
):
    card = facts(train_split=train_split, validation_split=validation_split)
    assert ("model-index" in model_card.card_text(card)) is is_held_out
    assert ("these are no results" in model_card.card_text(card)) is not is_held_out


def test_a_card_says_what_the_split_was_used_for():
    assert "chose the epoch" in model_card.card_text(facts())
    papers = model_card.card_text(facts(train_split="trainval", validation_split="test"))
    assert "whatever it scored" in papers
    assert "chose the epoch" not in papers
    assert "split was read" not in papers


def test_the_kept_epoch_is_the_first_of_the_best_or_with_trainval_the_last():
    assert facts().kept["epoch"] == 2
    assert facts(train_split="trainval").kept["epoch"] == 4
    assert "the last of 4 epochs" in model_card.card_text(facts(train_split="trainval"))


def test_an_eval_results_file_is_read_by_the_librarys_own_reader():
    revision = "0123456789" * 4
    text = model_card.eval_results(facts().record, f"me/peta@{revision}", 0.75)
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.dataset_revision, entry.value) == ("me/peta", revision, 75.0)
    assert entry.task_id == "person-attribute-recognition"
    assert entry.notes == "validation split, which chose the epoch"
    (entry,) = parse_eval_result_entries(
        yaml.safe_load(model_card.eval_results(facts().record, "me/peta@main", 0.75))
    )
    assert entry.dataset_revision is None  # a branch is no commit


def test_a_data_set_of_the_hub_gets_its_eval_results(make_settings, monkeypatch, tmp_path):
    monkeypatch.setattr(model_card, "gather_facts", lambda *_: facts())
    model_card.write_card(tmp_path, None, facts().record, facts().history, "mean_accuracy")
    assert set(contents(tmp_path)) == {
        "README.md",
        ".eval_results/person-attribute-recognition.yaml",
    }
    assert ModelCard.load(tmp_path / "README.md").data.datasets == ["me/peta"]


# ---- the push ---------------------------------------------------------------------------------


def test_a_push_sends_what_makes_a_loadable_repository_and_nothing_else(
    run, hub_endpoint, repository, code
):
    folder = run("recognition")
    for name in ("notes.txt", "log/events.out", "weights.bin", ".env", "sub/modeling_clear.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")
    before = contents(folder)
    url = push_run(folder, "me/clear", api=hub_endpoint.api())
    pushed = hub_endpoint.repositories["me/clear"]
    expected = {"model.safetensors", "config.json", "processor_config.json", "README.md"}
    assert set(pushed.files) == expected | code | RECORDS | SERVED
    assert (pushed.kind, pushed.private, len(pushed.commits)) == ("model", True, 1)
    assert url == f"{hub_endpoint.url}/me/clear/commit/{pushed.sha}"
    for name, content in pushed.files.items():
        assert content == ((repository if name in SERVED else folder) / name).read_bytes(), name
    assert pushed.lfs == {"model.safetensors", "training_curve.png"}
    assert contents(folder) == before
    assert not [name for name, content in pushed.files.items() if str(folder).encode() in content]


def test_a_push_can_be_repeated_and_sends_only_what_changed(run, hub_endpoint):
    folder = run("recognition")
    push_run(folder, "me/clear", private=False, api=hub_endpoint.api())
    pushed = hub_endpoint.repositories["me/clear"]
    first, uploads = dict(pushed.files), list(hub_endpoint.uploads)
    push_run(folder, "me/clear", api=hub_endpoint.api())
    assert (pushed.files, hub_endpoint.uploads) == (first, uploads)
    assert (len(pushed.commits), pushed.private) == (1, False)
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    push_run(folder, "me/clear", api=hub_endpoint.api())
    assert pushed.commits[1:] == [["README.md"]]


def test_an_adapter_goes_to_its_own_repository_or_into_that_of_its_base(run, hub_endpoint):
    folder, adapter = run("retrieval"), {"adapter_config.json", "adapter_model.safetensors"}
    push_run(folder, "me/adapter", api=hub_endpoint.api())
    files = hub_endpoint.repositories["me/adapter"].files
    assert set(files) == adapter | {"README.md"} | RECORDS | SERVED
    push_run(folder, "me/base", path_in_repo="adapters/drawn", api=hub_endpoint.api())
    inside = {f"adapters/drawn/{name}" for name in adapter | {"README.md"} | RECORDS}
    assert set(hub_endpoint.repositories["me/base"].files) == inside
    with pytest.raises(ValueError, match="`path_in_repo` must be left out for a model"):
        push_run(run("recognition"), "me/base", path_in_repo="adapters/drawn")


def rename_base(folder: Path, base_name: str | None, checkpoint: str) -> None:
    """Let a finished run of an adapter say that its base was given so."""
    record = json.loads((folder / "training_args.json").read_text())
    record |= {"base_name": base_name, "checkpoint": checkpoint}
    write_json(folder / "training_args.json", record)
    card = (folder / "README.md").read_text().replace("base_model: me/base\n", "")
    base = f'base = "{base_name or checkpoint}"'
    (folder / "README.md").write_text(card.replace('base = "me/base"', base))


@pytest.mark.parametrize("base_name", [None, "base", "./me/base"])
def test_an_adapter_whose_base_others_cannot_find_is_not_pushed(run, hub_endpoint, base_name):
    folder = run("retrieval")
    rename_base(folder, base_name, "runs/base")
    message = "`base_name` must be the Hub id of the base .*'runs/base'.* `--base_name OWNER/NAME`"
    with pytest.raises(ValueError, match=message):
        push_run(folder, "me/adapter", api=hub_endpoint.api())
    with pytest.raises(SystemExit, match=f"publishing: error: {message}"):
        publishing.main([str(folder), "--repo", "me/adapter"])
    assert hub_endpoint.repositories == {}


@pytest.mark.parametrize("place", ["", "adapters/drawn"])
def test_the_base_of_an_adapter_may_be_named_at_the_push(run, hub_endpoint, place):
    """In words, or by pushing the adapter into the repository of its base."""
    folder = run("retrieval")
    rename_base(folder, None, "runs/base")
    before = contents(folder)
    if place:
        push_run(folder, "me/its-base", path_in_repo=place, api=hub_endpoint.api())
        files = hub_endpoint.repositories["me/its-base"].files
    else:
        push_run(folder, "me/adapter", base_name="me/its-base", api=hub_endpoint.api())
        files = hub_endpoint.repositories["me/adapter"].files
    files = {Path(name).name: content.decode("utf-8", "ignore") for name, content in files.items()}
    assert json.loads(files["training_args.json"])["base_name"] == "me/its-base"
    config = json.loads(files["adapter_config.json"])
    assert config.pop("base_model_name_or_path") == "me/its-base"
    kept = json.loads(before["adapter_config.json"])
    assert config == {n: v for n, v in kept.items() if n != "base_model_name_or_path"}
    assert 'base = "me/its-base"' in files["README.md"]
    card = ModelCard(files["README.md"])
    assert card.data.base_model == "me/its-base"
    assert len(card.data.eval_results) == 1
    assert contents(folder) == before


def test_a_push_that_names_the_base_is_repeated_with_that_name(run, hub_endpoint):
    folder = run("retrieval")
    hub_endpoint.refuse = {"/commit/"}
    with pytest.raises(PushError, match=f"{folder} --repo me/adapter --base_name me/other"):
        push_run(folder, "me/adapter", base_name="me/other", api=hub_endpoint.api())


def test_a_benchmark_may_be_named_for_a_data_set_of_this_machine(run, hub_endpoint):
    arguments = {"benchmark": "owner/drawn", "api": hub_endpoint.api()}
    push_run(run("recognition"), "me/clear", **arguments)
    files = hub_endpoint.repositories["me/clear"].files
    (entry,) = parse_eval_result_entries(
        yaml.safe_load(files[".eval_results/person-attribute-recognition.yaml"])
    )
    assert entry.dataset_id == "owner/drawn"
    card = files["README.md"].decode()
    assert f"value: {entry.value}" in card


@pytest.mark.parametrize("status", [401, 500])
@pytest.mark.parametrize("place", ["/repos/create", "/preupload", "/lfs/", "/commit/"])
def test_a_push_that_fails_anywhere_leaves_both_sides_and_can_be_repeated(
    run, hub_endpoint, monkeypatch, status, place
):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    folder = run("recognition")
    before = contents(folder)
    hub_endpoint.refuse, hub_endpoint.refusal = {place}, status
    command = f"repeat only the push with: .*publishing {folder} --repo me/clear --public"
    with pytest.raises(PushError, match=f"(?s)push to me/clear failed: .*{command}"):
        push_run(folder, "me/clear", private=False, api=hub_endpoint.api())
    assert contents(folder) == before
    kept = hub_endpoint.repositories.get("me/clear")
    assert kept is None or kept.files == {}
    hub_endpoint.refuse = set()
    push_run(folder, "me/clear", private=False, api=hub_endpoint.api())
    assert "model.safetensors" in hub_endpoint.repositories["me/clear"].files


def test_without_a_hub_the_run_is_whole_and_the_error_says_how_to_go_on(
    run, hub_endpoint, monkeypatch, capsys
):
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    folder = run("recognition")
    before = contents(folder)
    with pytest.raises(PushError, match="repeat only the push with"):
        push_run(folder, "me/clear", api=HfApi(endpoint="http://127.0.0.1:9", token="hf_none"))
    assert contents(folder) == before


def test_a_run_that_is_done_pushes_itself_and_is_finished_even_if_that_fails(
    run, make_settings, hub_endpoint, monkeypatch, capsys
):
    monkeypatch.setattr(publishing, "HfApi", hub_endpoint.api)
    folder = run("recognition")
    record = json.loads((folder / "training_args.json").read_text())
    history = json.loads((folder / "metrics.json").read_text())["epochs"]
    write_json(folder / "training_args.json", {**record, "finished": False})
    settings = make_settings(push_to_hub="me/new", hub_private=False)
    states = RunStates(folder, 1, 1)
    done = (folder, states, settings, record, history, "mean_accuracy")
    hub_endpoint.refuse = {"/commit/"}
    with pytest.raises(PushError, match=rf"publishing {folder} --repo me/new --public"):
        publishing.complete_run(*done)
    assert json.loads((folder / "training_args.json").read_text())["finished"] is True
    hub_endpoint.refuse = set()
    publishing.main([str(folder), "--repo", "me/new", "--public"])
    pushed = hub_endpoint.repositories["me/new"]
    assert pushed.private is False
    assert capsys.readouterr().out == f"Pushed to {hub_endpoint.url}/me/new/commit/{pushed.sha}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finished": False}, "finished run, got .* which is not finished"),
        (None, "which has no training_args.json"),
        ({"data_dir": f"{Path.home()}/peta"}, "must not name places of this machine"),
    ],
)
def test_what_must_not_be_pushed_is_refused_before_anything_is_sent(
    run, hub_endpoint, capsys, change, message
):
    folder = run("recognition")
    path = folder / "training_args.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        push_run(folder, "me/clear", api=hub_endpoint.api())
    assert hub_endpoint.repositories == {}
    with pytest.raises(SystemExit, match="publishing: error: `folder` must"):
        publishing.main([str(folder), "--repo", "me/clear"])


@pytest.mark.parametrize("name", ["a/b/c", "me/--x", "me/run.git", "über/x"])
def test_what_is_no_hub_id_is_refused_before_the_training(make_settings, name):
    with pytest.raises(ValueError, match="`push_to_hub` must be a Hub id"):
        make_settings(push_to_hub=name)


@pytest.mark.parametrize(
    ("checkpoint", "base_name", "found"),
    [
        ("me/base", None, "me/base"),
        ("runs/base", None, None),
        ("runs/base", "runs/base", None),
        ("runs/base", "base", None),
        ("runs/base", "../base", None),
        ("./runs/base", "me/base", "me/base"),
        ("nowhere", "runs/base", "runs/base"),  # a folder here may have the name of its repository
    ],
)
def test_the_base_of_an_adapter_to_push_is_known_before_the_training(
    make_settings, checkpoint, base_name, found
):
    Path("runs/base").mkdir(parents=True)
    stage = {"stage": "retrieval", "checkpoint": checkpoint, "base_name": base_name}
    assert make_settings(**stage).base_name == (base_name or found)
    if found is None:
        with pytest.raises(ValueError, match="`base_name` must be the Hub id of the base"):
            make_settings(**stage, push_to_hub="me/adapter")
    else:
        assert make_settings(**stage, push_to_hub="me/adapter").base_name == found


# ---- what was pushed, in a fresh process ------------------------------------------------------

LOAD = """
import json, sys
import torch
from huggingface_hub import hf_hub_download
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
model = AutoModel.from_pretrained("me/clear", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("me/clear", trust_remote_code=True, query_kind="hard")
crop = Image.new("RGB", (40, 90), (10, 120, 200))
with torch.no_grad():
    logits = model(**processor(images=crop, return_tensors="pt")).logits
model.load_adapter("me/adapter")
recognise = pipeline("person-attribute-recognition", model="me/clear", trust_remote_code=True)
find = pipeline("person-attribute-retrieval", model="me/clear", trust_remote_code=True,
                adapter="adapters/drawn")
found = find([crop, crop.transpose(0)], query={"backpack": True})
sys.path.insert(0, sys.argv[1])
from handler import EndpointHandler
served = EndpointHandler(sys.argv[1])({"inputs": crop})
crop.save("crop.jpg")
for repo in ("me/clear", "me/adapter"):  # what the cards say
    text = open(hf_hub_download(repo, "README.md")).read()
    code = text.split("```python")[1].split("```")[0].replace("THIS_REPOSITORY", repo)
    exec(code)
assert "clear_par" not in sys.modules
print(json.dumps([logits[0].tolist(), sorted(recognise(crop)), len(found), sorted(served)]))
"""


@pytest.mark.slow
def test_what_was_pushed_loads_from_a_snapshot_in_a_fresh_process(
    make_settings, hub_endpoint, tmp_path
):
    api = hub_endpoint.api()
    train.main(make_settings(output_dir="base"))
    stage = {"stage": "retrieval", "checkpoint": "base", "query_kind": "hard", "embed_dim": 8}
    train.main(make_settings(**stage, base_name="me/clear", output_dir="adapter"))
    push_run(Path("base"), "me/clear", api=api)
    push_run(Path("adapter"), "me/adapter", api=api)
    push_run(Path("adapter"), "me/clear", path_in_repo="adapters/drawn", api=api)
    for name, pushed in hub_endpoint.repositories.items():
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        for path, content in pushed.files.items():
            file = repository / "snapshots" / pushed.sha / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(pushed.sha)
    sha = hub_endpoint.repositories["me/clear"].sha
    snapshot = tmp_path / "hub" / "models--me--clear" / "snapshots" / sha
    changes = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    changes |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", LOAD, str(snapshot)],
        cwd=tmp_path,
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    logits, said, num_found, served = json.loads(finished.stdout.splitlines()[-1])
    weights = load_file("base/model.safetensors")
    assert len(logits) == len(weights["classifier.bias"])
    assert (num_found, served) == (2, said)

"""Push a finished run to the Hub: what makes it a loadable repository, and nothing else.

python -m clear_par.training.publishing RUN_FOLDER --repo OWNER/NAME

One commit holds everything, so a push that fails leaves the repository as it was; the run's folder
is only read.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard

from ..datasets_scripts.publish import HUB_FAILURES
from .adapter_base import published_base, require_published_base
from .held_out import is_held_out, kept_epoch
from .model_card import CARD, EVAL_RESULTS, TASKS, eval_results, write_card
from .run_folder import RECORDS, finish_run, read_record
from .settings import TrainingSettings, require_repo_id
from .states import RunStates

ROOT = Path(__file__).parents[1]
RECORD_FILES = (RECORDS, "metrics.json", "training_curve.png")
CONFIG = "adapter_config.json"
ADAPTER_FILES = (CONFIG, "adapter_model.safetensors")
PUBLISHED = (
    *(
        "config.json",
        "model.safetensors",
        "model-*-of-*.safetensors",
        "model.safetensors.index.json",
    ),
    *(
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*_clear.py"),
    *(*ADAPTER_FILES, CARD, f"{EVAL_RESULTS}/*.yaml", *RECORD_FILES),
)
SERVED = ("handler.py", "requirements.txt")  # of the checkout: for Inference Endpoints
MESSAGES = {"recognition": "CLEAR model", "retrieval": "CLEAR retrieval adapter"}


class PushError(RuntimeError):
    """A push that did not end well; the local run is whole and the push can be repeated."""


def complete_run(
    output: Path,
    states: RunStates,
    settings: TrainingSettings,
    record: dict,
    history: list[dict],
    score: str,
) -> None:
    """Give a run that is done its card, mark it as finished, and push it when that is asked for.

    Raises: PushError when the Hub did not take it; the run is then whole and finished.
    """
    write_card(output, settings, record, history, score)
    finish_run(output, states, record)
    if settings.push_to_hub:
        print(f"Pushed to {push_run(output, settings.push_to_hub, settings.hub_private)}")


def push_run(
    folder: Path,
    repo_id: str,
    private: bool = True,
    path_in_repo: str = "",
    benchmark: str | None = None,
    api: HfApi | None = None,
    base_name: str | None = None,
) -> str:
    """Push a finished run; what the Hub has already is not sent again.

    Args:
        repo_id: made if it does not exist; its other files stay.
        private: of a new repository; one that exists stays as it is.
        path_in_repo: for an adapter: its folder inside its base's repository, "adapters/peta".
        benchmark: Hub id of a benchmark data set, under which the score is listed.
        api: None: the Hub with your own login.
        base_name: Hub id of the base of an adapter; None: what the run was told or, with
            `path_in_repo`, the repository itself.
    Returns: address of the commit.
    Raises:
        ValueError: the folder is no finished run or names a place of this machine, or the base of
            an adapter has no Hub id.
        PushError: the Hub did not take it.
    """
    folder, api = Path(folder), api or HfApi()
    require_repo_id("repo_id", repo_id)
    contents = run_contents(folder, path_in_repo, benchmark)
    record = read_record(folder)
    if record["stage"] == "retrieval":
        contents |= naming_base(folder, record, base_name, repo_id if path_in_repo else None)
    operations = [
        CommitOperationAdd(f"{path_in_repo}/{name}" if path_in_repo else name, content)
        for name, content in contents.items()
    ]
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.create_commit(repo_id, operations, commit_message=MESSAGES[record["stage"]])
    except HUB_FAILURES as error:
        command = repeat_command(folder, repo_id, private, path_in_repo, benchmark, base_name)
        raise PushError(
            f"the push to {repo_id} failed: {reason_of(error)}\n{folder} is whole and finished; "
            f"repeat only the push with: {command}"
        ) from error
    return commit.commit_url


def reason_of(error: BaseException) -> str:
    """What went wrong, with the cause where the message keeps it back."""
    cause = f" ({error.__cause__})" if isinstance(error.__cause__, Exception) else ""
    return f"{error}{cause}" or type(error).__name__


def repeat_command(
    folder: Path,
    repo_id: str,
    private: bool,
    path_in_repo: str,
    benchmark: str | None,
    base_name: str | None,
) -> str:
    """The command that repeats a push."""
    words = ["python -m clear_par.training.publishing", str(folder), "--repo", repo_id]
    words += [] if private else ["--public"]
    words += ["--path_in_repo", path_in_repo] if path_in_repo else []
    words += ["--benchmark", benchmark] if benchmark else []
    words += ["--base_name", base_name] if base_name else []
    return " ".join(words)


def run_contents(
    folder: Path, path_in_repo: str = "", benchmark: str | None = None
) -> dict[str, str | bytes]:
    """What a push sends: name in the repository -> path of the file, or content.

    Raises: ValueError when the folder is no finished run, or a file names a place of this machine.
    """
    record = read_finished(folder)
    if path_in_repo:
        if record["stage"] != "retrieval":
            raise ValueError("`path_in_repo` must be left out for a model; it is for an adapter.")
        chosen = (*ADAPTER_FILES, CARD, *RECORD_FILES)
    else:
        chosen = PUBLISHED
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    contents = {name: str(files[name]) for name in sorted(files) if is_wanted(name, chosen)}
    require_no_local_place(folder, map(Path, contents.values()))
    if not path_in_repo:
        contents |= {name: str(ROOT / name) for name in SERVED}
        if benchmark:
            entry = benchmark_entry(folder, record, benchmark)
            contents[f"{EVAL_RESULTS}/{TASKS[record['stage']]}.yaml"] = entry.encode()
    return contents


def naming_base(
    folder: Path, record: dict, base_name: str | None, own_repository: str | None
) -> dict[str, bytes]:
    """The files of an adapter's run that must name its base otherwise than they do.

    Args:
        base_name: wins over that of the run. own_repository: of the base, where the adapter goes.
    Returns: name of the file -> content.
    Raises: ValueError when the base has no Hub id.
    """
    if base_name is not None:
        require_repo_id("base_name", base_name)
    told, checkpoint = record.get("base_name"), record.get("checkpoint")
    known = base_name or published_base(told, checkpoint) or own_repository
    base = require_published_base(known, checkpoint)
    if base == told:
        return {}
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    card = ModelCard.load(folder / CARD)
    card.data.base_model = base
    snippet = re.sub(r'^base = "[^"]*"', f'base = "{base}"', str(card), flags=re.MULTILINE)
    changed = {
        CONFIG: {**config, "base_model_name_or_path": base},
        RECORDS: {**record, "base_name": base},
    }
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in changed.items()}
    return {name: text.encode() for name, text in {**texts, CARD: snippet}.items()}


def is_wanted(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file fits a pattern and lies as deep; `*` alone would cross folders."""
    return any(fnmatch(name, p) and name.count("/") == p.count("/") for p in patterns)


def read_finished(folder: Path) -> dict:
    """The record of a finished run.

    Raises: ValueError when the folder is none.
    """
    record = read_record(folder)
    if not record.get("finished"):
        what = "is not finished" if record else f"has no {RECORDS}"
        raise ValueError(
            f"`folder` must be a finished run, got {str(folder)!r}, which {what}. Give the command "
            "of the run again to finish it."
        )
    return record


def require_no_local_place(folder: Path, paths: Iterable[Path]) -> None:
    """Raise ValueError when a text file names the run's place or the home of its owner."""
    places = {str(folder.resolve()), f"{Path.home()}/"} - {"/"}
    for path in paths:
        if path.suffix in (".json", ".md", ".yaml"):
            text = path.read_text(encoding="utf-8")
            if found := [place for place in places if place in text]:
                raise ValueError(
                    f"`folder` must not name places of this machine, got {found[0]!r} in "
                    f"{path.name}. Replace it there, then push again."
                )


def benchmark_entry(folder: Path, record: dict, benchmark: str) -> str:
    """The score of a run as an `.eval_results` file for a benchmark on the Hub.

    Raises: ValueError when `benchmark` is no Hub id, or the split was trained on.
    """
    require_repo_id("benchmark", benchmark.partition("@")[0])
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if not is_held_out(record):
        raise ValueError(
            f"`benchmark` must be left out: `{record['validation_split']}` of this run was trained "
            "on, so it has no score to list."
        )
    kept = kept_epoch(record, metrics["epochs"], metrics["selected_by"])
    return eval_results(record, benchmark, kept[metrics["selected_by"]])


def build_parser() -> argparse.ArgumentParser:
    """The options, with what each means."""
    parser = argparse.ArgumentParser(
        prog="python -m clear_par.training.publishing",
        description=__doc__.splitlines()[0],
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folder", type=Path, help="a finished run")
    add("--repo", required=True, help="owner/name on the Hub; made if it does not exist")
    add("--public", action="store_true", help="a new repository may be seen by anyone")
    add("--path_in_repo", default="", help="of an adapter inside its base: adapters/peta")
    add("--benchmark", help="Hub id of a benchmark data set, to list the score there")
    add("--base_name", help="of an adapter: Hub id of its base, where the run was told none")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: push a run that was finished before."""
    given = build_parser().parse_args(arguments)
    try:
        url = push_run(
            given.folder,
            given.repo,
            private=not given.public,
            path_in_repo=given.path_in_repo,
            benchmark=given.benchmark,
            base_name=given.base_name,
        )
    except (ValueError, PushError) as error:
        raise SystemExit(f"publishing: error: {error}") from None
    print(f"Pushed to {url}")


if __name__ == "__main__":
    main()

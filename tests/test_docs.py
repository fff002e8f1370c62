"""The model card: its metadata is what the Hub reads, and its first snippet runs."""

import json
import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard


@pytest.fixture(scope="module")
def card(repository) -> ModelCard:
    return ModelCard.load(repository / "README.md")


def test_metadata_is_what_the_hub_reads(card):
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "image-classification"
    assert {"license", "tags", "datasets", "metrics"} <= set(data)


def test_model_index_repeats_the_report(card, repository):
    report = json.loads((repository / "docs/clear-tiny/test/report.json").read_text())
    reported = {round(100 * value, 2) for value in floats_in(report)}
    results = card.data.eval_results
    assert {result.task_type for result in results} == {"image-classification", "image-retrieval"}
    for result in results:
        assert result.metric_value in reported, result.metric_name


def floats_in(value) -> list[float]:
    """Every number of a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in floats_in(item)]
    return [value] if isinstance(value, float) else []


def test_first_snippet_runs_and_prints_what_it_says(card, repository):
    snippet = re.search(r"```python\n(.*?)```", card.content, re.DOTALL).group(1)
    promised = re.findall(r"^# (.*)$", snippet, re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", snippet],
        cwd=repository,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines() == promised


def test_links_to_files_work(card, repository):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", card.content):
        assert (repository / target).exists(), target

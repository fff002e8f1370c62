"""Both metrics as modules of `evaluate`: loaded by folder, offline, from anywhere."""

import ast
import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clear_par.metrics.person_attribute_recognition import person_attribute_recognition
from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    label_metrics,
    recognition_metrics,
)
from clear_par.metrics.person_retrieval import person_retrieval
from clear_par.metrics.person_retrieval.person_retrieval import retrieval_metrics

MODULES = (person_attribute_recognition, person_retrieval)
LABELS = [[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]]
PROBABILITIES = [[0.9, 0.1, 0.2, 0.6], [0.5, 0.4, 0.8, 0.7], [0.3, 0.2, 0.1, 0.4]]
RELEVANCE = [[0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
SCORES = [[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.9]]

# What a user does who works in another folder, with every way out to a network refused.
LOAD_AND_COMPUTE = """
import json
import socket
import sys

import numpy as np


def refuse(*args, **kwargs):
    raise OSError("the network was asked for")


socket.socket.connect = socket.getaddrinfo = refuse
import evaluate


def report(folder, predictions, references, options):
    metric = evaluate.load(folder)
    found = {}
    try:
        metric.compute(predictions=[[0.5, 0.5]], references=[[7, 1]])
    except ValueError as error:
        found["refused"] = str(error)
    found["lists"] = metric.compute(predictions=predictions, references=references, **options)
    predictions, references = np.array(predictions, dtype="float32"), np.array(references) == 1
    for rows in (slice(1), slice(1, None)):
        metric.add_batch(predictions=predictions[rows], references=references[rows])
    found["batches"] = metric.compute(**options)
    return found


print(json.dumps([report(**case) for case in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def evaluate_reports(repository, tmp_path_factory):
    """Both modules loaded by `evaluate` in one fresh process that is not in the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    metrics = repository / "metrics"
    cases = [
        {
            "folder": str(metrics / "person_attribute_recognition"),
            "predictions": PROBABILITIES,
            "references": LABELS,
            "options": {"threshold": [0.35, 0.35, 0.15, 0.65], "per_label": True},
        },
        {
            "folder": str(metrics / "person_retrieval"),
            "predictions": SCORES,
            "references": RELEVANCE,
            "options": {},
        },
    ]
    caches = {"HF_HOME": str(folder), "HF_MODULES_CACHE": str(folder / "modules")}
    finished = subprocess.run(
        [sys.executable, "-c", LOAD_AND_COMPUTE],
        input=json.dumps(cases),
        cwd=folder,
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_evaluate_loads_recognition(evaluate_reports):
    report = evaluate_reports[0]
    assert report["refused"].startswith("`references` must be 0, 1 or -100")
    expected = recognition_metrics(PROBABILITIES, LABELS, [0.35, 0.35, 0.15, 0.65])
    assert expected != recognition_metrics(PROBABILITIES, LABELS)
    columns = label_metrics(PROBABILITIES, LABELS, [0.35, 0.35, 0.15, 0.65])
    expected |= {name: values.tolist() for name, values in columns.items()}
    for found in (report["lists"], report["batches"]):
        assert json.dumps(found) == json.dumps(expected)  # as text, where nan equals nan


def test_evaluate_loads_retrieval(evaluate_reports):
    report = evaluate_reports[1]
    assert report["refused"].startswith("`references` must be 0 or 1")
    expected = retrieval_metrics([(SCORES, RELEVANCE)])
    del expected["num_queries"], expected["num_queries_without_relevant"]
    assert report["lists"] == report["batches"] == expected


@pytest.mark.parametrize("module", MODULES, ids=["recognition", "retrieval"])
def test_imports_are_what_evaluate_can_read(module):
    tree = ast.parse(Path(module.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Import) and len(node.names) == 1 for node in imports)
    assert {node.names[0].name for node in imports} == {"datasets", "evaluate", "numpy"}


@pytest.mark.parametrize("module", MODULES, ids=["recognition", "retrieval"])
def test_docstring_examples(module, repository, monkeypatch):
    monkeypatch.chdir(repository)
    result = doctest.testmod(module)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("module", MODULES, ids=["recognition", "retrieval"])
def test_first_example_of_the_card(module, repository, monkeypatch):
    monkeypatch.chdir(repository)
    card = Path(module.__file__).with_name("README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    names = {}
    exec(code, names)
    lines = [line.removeprefix("#") for line in code.splitlines() if line.startswith("#")]
    printed = ast.literal_eval("".join(lines).strip())
    assert printed.keys() == names["result"].keys()
    for name, value in printed.items():
        assert names["result"][name] == pytest.approx(value, rel=0, abs=5e-5), name

"""A report as Markdown, the form that people read."""

from ..metrics.bootstrap import Bootstrap
from ..metrics.calibration import NUM_BINS

LEAKED = (
    "Of the 4,110 test identities of PETA's partition 0, 1,106 also occur in training or "
    "validation: every number here is flattered by that."
)
LEAKAGE = {("peta", name, "test"): LEAKED for name in (None, "partition0")}
BASELINES = (
    "Classifier likelihood ranks by the sum, over the query's attributes, of the logarithm of the "
    "recognised probability of what is asked; by choices, each exclusive group is one distribution "
    "over its values. With evidence, the mean of that over what the query speaks of is added to "
    "the cosine. Random is one draw of scores with a fixed seed."
)
CLASSIFIER = (
    "The classifier knows {known} of the adapter's {all} attributes: likelihoods and evidence are "
    "of these alone, and left out where there is none."
)
FIGURES = {
    "retrieval.png": "top five crops of five queries",
    "embedding_map.png": "joint space with ten queries and the images that answer them",
    "attribute_precision.png": "average precision of each attribute asked for alone",
}
PARTIAL = (
    "Partial queries name 1, 2, 3 or 5 attributes that a random image of the gallery has; all "
    "images with the named attributes are relevant, whatever else they have. Cells: mAP / Rank-1."
)
RETRIEVAL_COLUMNS = {
    "mean_average_precision": "mAP",
    "mean_average_precision_trapezoid": "mAP (trapezoid)",
    "rank_1": "Rank-1",
    "rank_5": "Rank-5",
    "rank_10": "Rank-10",
    "mean_inverse_negative_penalty": "mINP",
}
RECOGNITION_COLUMNS = {
    "mean_accuracy": "mA",
    "instance_accuracy": "accuracy",
    "instance_precision": "precision",
    "instance_recall": "recall",
    "instance_f1": "F1",
}
ATTRIBUTE_COLUMNS = {
    "positive_recall": "positive recall",
    "negative_recall": "negative recall",
    "mean_accuracy": "mA",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "AP",
    "expected_calibration_error": "ECE",
}
WITH_INTERVAL = ("mean_accuracy", "instance_f1")

LEVEL = f"{100 * Bootstrap().level:.0f} %"
INTERVALS = (
    f"Intervals are the middle {LEVEL} of {Bootstrap().num_draws:,} bootstrap resamples of the "
    "{interval_by}. ECE is the expected calibration error, the mean over attributes of the mean "
    "distance between predicted probability and share of positives, "
    f"in {NUM_BINS} bins of equal width."
)
CRITERION_NAMES = {"balanced_accuracy": "balanced accuracy", "f1": "F1"}


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def percent(value: float | None) -> str:
    """A share as percent with two decimals; unknown: a dash."""
    return "-" if value is None else f"{100 * value:.2f}"


def interval(bounds: list[float]) -> str:
    """Both ends in percent, with one decimal."""
    return "{:.1f} to {:.1f}".format(*(100 * bound for bound in bounds))


def recognition_table(report: dict) -> str:
    """One row for each attribute set and kind of threshold; mA and F1 with their intervals."""
    header = ["attributes", "thresholds"]
    for key, title in RECOGNITION_COLUMNS.items():
        header += [title, f"{title}, {LEVEL}"] if key in WITH_INTERVAL else [title]
    rows = []
    for name, usual in report["recognition"]["sets"].items():
        for kind, scores in (("0.5", usual), ("calibrated", usual.get("calibrated"))):
            if scores is not None:
                row = [f"{name} ({usual['num_attributes']})", kind]
                for key in RECOGNITION_COLUMNS:
                    row.append(percent(scores[key]))
                    row += [interval(scores["intervals"][key])] if key in WITH_INTERVAL else []
                rows.append([*row, percent(usual["expected_calibration_error"])])
    return table([*header, "ECE"], rows)


def recognition_notes(recognition: dict) -> list[str]:
    """What the numbers of the recognition table are."""
    notes = [INTERVALS.format(interval_by=recognition["interval_by"])]
    if "calibration" in recognition:
        criterion = CRITERION_NAMES[recognition["calibration"]["criterion"]]
        notes.append(
            f"Calibrated: for each attribute the threshold with the largest {criterion} on "
            f"{recognition['calibration']['data']}."
        )
    if "upar_track1" in recognition:
        score = percent(recognition["upar_track1"]["upar_track1_score"])
        notes.append(
            f"Harmonic mean of mA and F1, by which UPAR-2024 ranks recognition (from memory of its "
            f"rules): {score}."
        )
    return notes


def retrieval_table(report: dict) -> str:
    """One row for each method and set of queries."""
    counts = {"all": "num_queries", "unseen": "num_unseen"}
    rows = [
        [
            row["method"],
            f"{row['queries']} ({report['retrieval'][counts[row['queries']]]:,})",
            *(percent(row[k]) for k in RETRIEVAL_COLUMNS),
        ]
        for row in report["retrieval"]["rows"]
    ]
    return table(["ranking by", "queries", *RETRIEVAL_COLUMNS.values()], rows)


def partial_table(report: dict) -> str:
    """One row for each method, one column for each number of named attributes."""
    cells, header = {}, ["ranking by"]
    for row in report["retrieval"]["partial"]:
        cells.setdefault(row["method"], []).append(
            f"{percent(row['mean_average_precision'])} / {percent(row['rank_1'])}"
        )
        title = f"{row['size']} ({row['num_queries']:,} queries)"
        header += [] if title in header else [title]
    return table(header, [[method, *values] for method, values in cells.items()])


def attribute_table(report: dict) -> str:
    """One row for each attribute; where there are calibrated thresholds, what they give too."""
    rows = []
    for row in report["recognition"]["attributes"]:
        cells = [row["attribute"], row["positives"]]
        cells += [percent(row[key]) for key in ATTRIBUTE_COLUMNS]
        if "threshold" in row:
            cells += [f"{row['threshold']:.3f}"]
            cells += [percent(row["calibrated"][key]) for key in ("mean_accuracy", "f1")]
        rows.append(cells)
    header = ["attribute", "positives", *ATTRIBUTE_COLUMNS.values()]
    if "calibration" in report["recognition"]:
        header += ["threshold", "mA, calibrated", "F1, calibrated"]
    return table(header, rows)


def report_markdown(report: dict) -> str:
    """The whole report."""
    where = " ".join(filter(None, (report["dataset"], report["config_name"], report["split"])))
    parts = [
        f"# {report['checkpoint']} on {where}",
        f"{report['num_images']:,} images, {report['date']}, commit {report['commit']}, "
        f"{report['hardware']}. All values in percent.",
        f"```bash\n{report['command']}\n```",
        LEAKAGE.get((report["dataset"], report["config_name"], report["split"]), ""),
        "## Recognition",
        *recognition_parts(report),
    ]
    if "retrieval" in report:
        parts += retrieval_parts(report)
    if "recognition" in report:
        parts += ["## Each attribute", attribute_table(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def recognition_parts(report: dict) -> list[str]:
    """The table with its notes and pictures, or why there is none."""
    if "recognition" not in report:
        return [report["recognition_left_out"]]
    return [
        recognition_table(report),
        *recognition_notes(report["recognition"]),
        "![mean accuracy of each attribute](attributes.png)",
        "![share of positives over predicted probability](reliability.png)",
    ]


def retrieval_parts(report: dict) -> list[str]:
    """Both tables with what they are, and the pictures."""
    retrieval = report["retrieval"]
    return [
        "## Retrieval",
        f"Queries ({retrieval['query_kind']}) are the {retrieval['num_queries']:,} distinct "
        f"vectors of {len(retrieval['query_attributes'])} attributes that are known for "
        f"every image, {retrieval['num_unseen']:,} of them unseen in "
        f"`{retrieval['seen_split']}`; the gallery is all "
        f"{retrieval['gallery_size']:,} images, and those with exactly the query's vector are "
        "relevant.",
        BASELINES,
        *([CLASSIFIER.format(**shared)] if (shared := retrieval.get("shared")) else []),
        retrieval_table(report),
        *([PARTIAL, partial_table(report)] if retrieval.get("partial") else []),
        *(f"![{FIGURES[name]}]({name})" for name in retrieval.get("figures", ["retrieval.png"])),
    ]

"""A report as Markdown, the form that people read."""

LEAKAGE = {
    "peta": "Of the 4,110 test identities of PETA's partition 0, 1,106 also occur in training or "
    "validation: every number here is flattered by that.",
}
BASELINES = (
    "Classifier likelihood ranks by the sum, over the query's attributes, of the logarithm of the "
    "recognised probability of what is asked; random is one draw of scores with a fixed seed."
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


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def percent(value: float | None) -> str:
    """A share as percent with two decimals; unknown: a dash."""
    return "-" if value is None else f"{100 * value:.2f}"


def recognition_table(report: dict) -> str:
    """One row for each attribute set."""
    rows = [
        [f"{name} ({scores['num_attributes']})", *(percent(scores[k]) for k in RECOGNITION_COLUMNS)]
        for name, scores in report["recognition"]["sets"].items()
    ]
    return table(["attributes", *RECOGNITION_COLUMNS.values()], rows)


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


def attribute_table(report: dict) -> str:
    """One row for each attribute."""
    rows = [
        [
            row["attribute"],
            row["positives"],
            *(percent(row[k]) for k in ("positive_recall", "negative_recall", "mean_accuracy")),
        ]
        for row in report["recognition"]["attributes"]
    ]
    return table(["attribute", "positives", "positive recall", "negative recall", "mA"], rows)


def report_markdown(report: dict) -> str:
    """The whole report."""
    where = " ".join(filter(None, (report["dataset"], report["config_name"], report["split"])))
    parts = [
        f"# {report['checkpoint']} on {where}",
        f"{report['num_images']:,} images, {report['date']}, commit {report['commit']}, "
        f"{report['hardware']}. All values in percent.",
        f"```bash\n{report['command']}\n```",
        LEAKAGE.get(report["dataset"], ""),
        "## Recognition",
        recognition_table(report),
        "![mean accuracy of each attribute](attributes.png)",
    ]
    if "retrieval" in report:
        retrieval = report["retrieval"]
        parts += [
            "## Retrieval",
            f"Queries ({retrieval['query_kind']}) are the {retrieval['num_queries']:,} distinct "
            f"vectors of the {len(retrieval['query_attributes'])} evaluated attributes that are "
            f"known for every image, {retrieval['num_unseen']:,} of them unseen in training and "
            f"validation; the gallery is all {retrieval['gallery_size']:,} images, and those with "
            "exactly the query's vector are relevant.",
            BASELINES,
            retrieval_table(report),
            "![top five crops of five queries](retrieval.png)",
        ]
    parts += ["## Each attribute", attribute_table(report)]
    return "\n\n".join(part for part in parts if part) + "\n"

"""Metrics of both tasks, written from their definitions in plain loops."""


def recognition_by_loops(probabilities, labels, columns) -> dict[str, float]:
    """Label-based mean accuracy, and the instance metrics, from their definitions."""
    accuracies = []
    for column in columns:
        hits = [[], []]
        for row, truth in zip(probabilities, labels, strict=True):
            if truth[column] >= 0:
                hits[truth[column]].append((row[column] > 0.5) == truth[column])
        if hits[0] or hits[1]:
            accuracies.append(sum(sum(h) / len(h) if h else 0 for h in hits) / 2)
    shares = {"accuracy": [], "precision": [], "recall": []}
    for row, truth in zip(probabilities, labels, strict=True):
        known = [c for c in columns if truth[c] >= 0]
        true = {c for c in known if truth[c] == 1}
        said = {c for c in known if row[c] > 0.5}
        for name, whole in (("accuracy", true | said), ("precision", said), ("recall", true)):
            shares[name].append(len(true & said) / len(whole) if whole else 0)
    means = {f"instance_{name}": sum(v) / len(v) for name, v in shares.items()}
    precision, recall = means["instance_precision"], means["instance_recall"]
    f1 = 2 * precision * recall / (precision + recall)
    return {"mean_accuracy": sum(accuracies) / len(accuracies), **means, "instance_f1": f1}


def retrieval_by_loops(scores: list[list[float]], queries, gallery) -> dict[str, float]:
    """Means over the queries of metrics written from their definitions."""
    names = ("mean_average_precision", "mean_average_precision_trapezoid", "rank_1", "rank_5")
    names += ("rank_10", "mean_inverse_negative_penalty")
    sums = dict.fromkeys(names, 0.0)
    for row, query in zip(scores, queries, strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        ranks = [r for r, i in enumerate(order, 1) if gallery[i] == query]
        steps = [(n / r, (n - 1) / (r - 1) if r > 1 else 1.0) for n, r in enumerate(ranks, 1)]
        values = [
            sum(now for now, _ in steps) / len(ranks),
            sum((now + before) / 2 for now, before in steps) / len(ranks),
            *(float(ranks[0] <= k) for k in (1, 5, 10)),
            len(ranks) / ranks[-1],
        ]
        for name, value in zip(names, values, strict=True):
            sums[name] += value / len(queries)
    return sums

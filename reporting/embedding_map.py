"""The joint space in the plane: some queries and the images that answer them, by t-SNE.

Source: arXiv 2403.06119 shows ten queries with twenty images each. scikit-learn is needed for this
picture alone, so it is imported only here, when the picture is asked for.
"""

from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib import pyplot

from .figures import save_figure

PERPLEXITY = 15.0  # neighbours that count: about the images of one query


def require_scikit_learn() -> None:
    """Raise with the remedy where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise ValueError(
            "`figures` must be false without scikit-learn, got true: install it with "
            "`pip install scikit-learn` or `pip install -e '.[evaluation]'`."
        )


def plane(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE by cosine distance.

    Shape: (points, embed_dim) -> (points, 2); all points in one place when there are fewer than 3.
    """
    require_scikit_learn()
    from sklearn.manifold import TSNE

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2))
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    # The default, PCA, would meet distances that are not Euclidean; the draw is repeatable.
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed)
    return tsne.fit_transform(np.asarray(vectors, dtype=np.float32))


def draw_map(
    query_embeds: np.ndarray, image_embeds: list[np.ndarray], texts: list[str], path: Path
) -> None:
    """Queries as stars, their images as dots of the same colour.

    Args:
        query_embeds: (queries, embed_dim). image_embeds: of each query (its images, embed_dim).
        texts: of each query.
    """
    points = plane(np.concatenate([query_embeds, *image_embeds]))
    stars, dots = points[: len(texts)], points[len(texts) :]
    ends = np.cumsum([len(images) for images in image_embeds])[:-1]
    figure, axis = pyplot.subplots(figsize=(9, 8), layout="constrained")
    for number, images in enumerate(np.split(dots, ends)):
        colour = f"C{number % 10}"
        axis.scatter(*images.T, s=18, color=colour, alpha=0.6, linewidths=0)
        label = shorten(texts[number], 90, placeholder=" ...")
        axis.scatter(*stars[number], s=260, marker="*", color=colour, edgecolor="k", label=label)
    axis.set(xticks=[], yticks=[])
    figure.legend(loc="outside lower center", fontsize=7, markerscale=0.5)
    save_figure(figure, path)

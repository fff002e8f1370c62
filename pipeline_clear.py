"""The two tasks of CLEAR as pipelines of transformers: recognise attributes, find persons.

    pipeline("person-attribute-recognition", model=repo, trust_remote_code=True)
    pipeline("person-attribute-retrieval", model=repo, trust_remote_code=True)

Source: arXiv 2403.06119 for the tasks. `ClearConfig.custom_pipelines` names these classes, and
`modeling_clear.py` imports this file, so that it travels with every saved model.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Pipeline
from transformers.utils import is_peft_available

if is_peft_available():
    from .peft_clear import active_adapter_config, search_scores

DEFAULT_ADAPTER = "adapters/peta"
OF_REPOSITORY = "adapters/"  # adapters that start so lie inside the model's repository


class ClearPipeline(Pipeline):
    """What both pipelines share: the processor reads the images, and is saved with the model."""

    _load_processor = True
    _load_tokenizer = _load_image_processor = False
    _load_feature_extractor = _load_video_processor = False

    def preprocess(self, image) -> dict:
        """One image as `pixel_values` (1, 3, height, width)."""
        return self.processor(images=image, return_tensors="pt")

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save the model and the processor with all their code, this file included."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class PersonAttributePipeline(ClearPipeline):
    """Says what each crop shows.

    Args of a call:
        inputs: an image or a list; whatever ClearProcessor reads.
        threshold: a flag is said to be present above this probability; None: as
            `ClearProcessor.decode` decides.
        batch_size: crops that go through the network together.
    Returns: for an image {group: (value, probability), flag: (bool, probability)}, see
        `ClearProcessor.decode`; for a list of images a list of them.
    """

    def _sanitize_parameters(self, threshold: float | None = None, **unknown):
        refuse_unknown(unknown, "threshold")
        return {}, {}, {} if threshold is None else {"threshold": threshold}

    def _forward(self, inputs):
        return {"logits": self.model(**inputs).logits}

    def postprocess(self, outputs, **threshold) -> dict:
        """One row of logits as names with probabilities."""
        return self.processor.decode(outputs["logits"], **threshold)[0]


class PersonRetrievalPipeline(ClearPipeline):
    """Ranks crops by how well they fit a query.

    Args:
        adapter: retrieval adapter: a folder of the model's repository ("adapters/peta"), another
            folder, or a Hub id. None: the model's active one, else "adapters/peta".
    Args of a call:
        inputs: a list of images, the gallery.
        query: dict, free text or, inside a list, a list of names, see ClearProcessor; a list of
            queries gives a list of rankings.
        top_k: crops of each ranking; None: all.
        evidence: whether the classifier's evidence counts as the adapter says; False: not at all.
        batch_size: crops that go through the network together.
    Returns: for a query [{"index": place in `inputs`, "score": ..., "image": as given}, ...], best
        first. The score is the cosine where the adapter has no `fusion_weight`, and without
        evidence; else both joined, see `search_scores`.

    Raises:
        ValueError: when no adapter can be loaded, for an empty gallery, or for a query that is
            empty or names what the schema does not know.
    """

    def __init__(self, *args, adapter: str | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        if adapter is not None or not self.model.is_retrieval_ready:
            load_adapter(self.model, adapter or DEFAULT_ADAPTER)
        self.processor = copy.copy(self.processor)  # the caller's keeps its kind of queries
        config = active_adapter_config(self.model)
        self.processor.query_kind = config.query_kind
        if config.schema is not None:  # the adapter's vocabulary, which may be another
            self.processor.schema = type(self.processor.schema).from_dict(config.schema)

    def _sanitize_parameters(self, **unknown):
        refuse_unknown(unknown, "query, top_k, evidence, adapter")
        return {}, {}, {}

    def __call__(
        self, inputs, query=None, top_k: int | None = None, evidence: bool = True, **kwargs
    ):
        """Rank the images; see the class."""
        is_one = isinstance(query, (str, Mapping))
        if not is_one and (not isinstance(query, Sequence) or not query):
            raise ValueError(
                f"`query` must be a dict, free text or a list of queries, got {query!r}."
            )
        if not isinstance(inputs, (list, tuple)) or not inputs:
            raise ValueError("`inputs` must be a list of images with at least one.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be positive, got {top_k}.")
        if not isinstance(evidence, bool):
            raise ValueError(f"`evidence` must be True or False, got {evidence!r}.")
        queries = np.array(list(map(self.processor.query_values, [query] if is_one else query)))
        query_embeds = self._embed_queries(queries)
        outputs = super().__call__(list(inputs), **kwargs)
        image_embeds, logits = (
            torch.cat([output[name] for output in outputs]) for name in ("image_embeds", "logits")
        )
        scores = search_scores(self.model, query_embeds, image_embeds, queries, logits, evidence)
        rankings = [rank(row, inputs, top_k) for row in torch.from_numpy(scores)]
        return rankings[0] if is_one else rankings

    def _embed_queries(self, queries: np.ndarray) -> torch.Tensor:
        """Shape: label rows (queries, attributes) -> (queries, embed_dim) of unit length."""
        inputs = self.processor(labels=queries, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            return self.model.get_query_features(**inputs).float().cpu()

    def _forward(self, inputs):
        output = self.model(**inputs)
        return {"image_embeds": output.image_embeds, "logits": output.logits}

    def postprocess(self, outputs) -> dict[str, torch.Tensor]:
        """What the network says of one image: (1, embed_dim) and (1, attributes)."""
        return {name: outputs[name].float() for name in ("image_embeds", "logits")}


def rank(scores: torch.Tensor, images: Sequence, top_k: int | None) -> list[dict]:
    """The images with their scores, (gallery,), best first; equal scores in the given order.

    >>> [(hit["image"], hit["index"]) for hit in rank(torch.tensor([0.1, 0.7, 0.3]), "abc", 2)]
    [('b', 1), ('c', 2)]
    """
    order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
    return [{"index": i, "score": scores[i].item(), "image": images[i]} for i in order]


def refuse_unknown(given: Mapping, known: str) -> None:
    """Raise for arguments that would otherwise be ignored in silence."""
    if given:
        raise TypeError(f"Arguments must be {known} or those of Pipeline, got {', '.join(given)}.")


def load_adapter(model, adapter: str) -> None:
    """Load and activate a retrieval adapter.

    Raises:
        ValueError: when there is none at that place, or it belongs to another base.
    """
    repository = str(model.name_or_path)
    inside = Path(repository, adapter)
    try:
        if inside.is_dir() or Path(adapter).is_dir():
            model.load_adapter(str(inside if inside.is_dir() else adapter))
        elif adapter.startswith(OF_REPOSITORY) and not Path(repository).is_dir():
            model.load_adapter(repository, adapter_kwargs={"subfolder": adapter})
        else:
            model.load_adapter(adapter)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`adapter` must be a retrieval adapter of {repository!r}, got {adapter!r}: {reason}"
        ) from error


__all__ = ["PersonAttributePipeline", "PersonRetrievalPipeline"]

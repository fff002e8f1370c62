"""Load a retrieval adapter beside a model, with one error that names what is wrong."""

import warnings
from collections.abc import Iterable, Sequence

from ..attributes_clear import AttributeSchema
from ..modeling_clear import ClearModel
from ..peft_clear import active_adapter_config, weights_fingerprint
from ..processing_clear import ClearProcessor


def load_adapter(model: ClearModel, processor: ClearProcessor, adapter: str) -> None:
    """Load and activate an adapter of the base's vocabulary; see `load_any_adapter`.

    Raises:
        ValueError: as there, and when the adapter's vocabulary is not the processor's.
    """
    names = processor.schema.attributes
    load_any_adapter(model, processor, adapter)
    require_same_attributes("adapter", adapter, processor.schema.attributes, names)


def load_adapter_of_data(
    model: ClearModel,
    processor: ClearProcessor,
    adapter: str,
    dataset: str,
    names: Sequence[str],
) -> str | None:
    """Load and activate an adapter of a data set's vocabulary, which may not be the base's.

    Args: dataset, names: of the data set, and of its attributes in label order.
    Returns: why the base cannot be scored on the data set; None: it knows the same attributes.
    Raises: ValueError: as `load_any_adapter`, and when the adapter's attributes are others.
    """
    base = processor.schema.attributes
    load_any_adapter(model, processor, adapter)
    given = processor.schema.attributes
    if base == names:
        require_same_attributes("adapter", adapter, given, names)
        return None
    if given != names:
        raise ValueError(
            "`dataset` must have the attributes of the adapter or of the checkpoint, in their "
            f"order, got {dataset!r} with {len(names)}. Beside the adapter {adapter!r}: "
            f"{difference(names, given)}. Beside the checkpoint: {difference(names, base)}."
        )
    return (
        f"the data set has the {len(names)} attributes of the adapter in their order, not the "
        f"{len(base)} of the checkpoint."
    )


def load_any_adapter(model: ClearModel, processor: ClearProcessor, adapter: str) -> None:
    """Load and activate an adapter, and let the processor make its kind of queries in its words.

    Warns when the adapter was trained on other weights of the base: it fits, and finds nothing.

    Raises:
        ValueError: when there is no such adapter, or when it belongs to another base.
    """
    try:
        model.load_adapter(adapter)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            "`adapter` must be the folder or Hub id of a retrieval adapter of this checkpoint, got "
            f"{adapter!r}: {reason}"
        ) from None
    config = active_adapter_config(model)
    if config.schema is None:  # it speaks of what the base recognises
        config.schema = processor.schema.to_dict()
    if config.base_fingerprint not in (None, weights_fingerprint(model)):
        warnings.warn(
            f"`adapter` {adapter!r} was trained on other weights than those of this checkpoint: "
            "its rankings mean nothing here. Train it again, or load its own base.",
            stacklevel=2,
        )
    processor.query_kind = config.query_kind
    if config.schema["attributes"] != list(processor.schema.attributes):
        processor.schema = AttributeSchema.from_dict(config.schema)


def require_same_attributes(
    argument: str, value: str, given: Iterable[str], expected: Iterable[str]
) -> None:
    """Raise when two vocabularies differ, in words that name the attributes that do.

    Args:
        argument, value: what has the attribute names `given`. expected: names, in label order.
    """
    given, expected = list(given), list(expected)
    if given != expected:
        raise ValueError(
            f"`{argument}` must have the {len(expected)} attributes expected, in their order, got "
            f"{value!r} with {len(given)}: {difference(given, expected)}."
        )


def difference(given: Iterable[str], expected: Iterable[str]) -> str:
    """What one vocabulary lacks and alone has, beside another one, in a few names.

    >>> difference(["hat", "bag"], ["hat", "red"])
    'it lacks red (1); it alone has bag (1)'
    """
    given, expected = list(given), list(expected)
    surplus = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    what = [
        f"{sign} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
        for sign, names in (("it lacks", missing), ("it alone has", surplus))
        if names
    ]
    return "; ".join(what) or "another order"


__all__ = [
    "difference",
    "load_adapter",
    "load_adapter_of_data",
    "load_any_adapter",
    "require_same_attributes",
]

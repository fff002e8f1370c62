"""Load a retrieval adapter beside a model, with one error that names what is wrong."""

import warnings

from ..modeling_clear import ClearModel
from ..peft_clear import active_adapter_config, weights_fingerprint
from ..processing_clear import ClearProcessor


def load_adapter(model: ClearModel, processor: ClearProcessor, adapter: str) -> None:
    """Load and activate an adapter, and let the processor make its kind of queries.

    Warns when the adapter was trained on other weights of the base: it fits, and finds nothing.

    Raises:
        ValueError: when there is no such adapter, when it belongs to another base, or when its
            vocabulary is not the processor's.
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
    if config.schema is not None:
        names = config.schema["attributes"]
        require_same_attributes("adapter", adapter, names, processor.schema.attributes)
    if config.base_fingerprint not in (None, weights_fingerprint(model)):
        warnings.warn(
            f"`adapter` {adapter!r} was trained on other weights than those of this checkpoint: "
            "its rankings mean nothing here. Train it again, or load its own base.",
            stacklevel=2,
        )
    processor.query_kind = config.query_kind


def require_same_attributes(argument: str, value: str, given, expected) -> None:
    """Raise when two vocabularies differ, in words that name the attributes that do.

    Args:
        argument, value: what has the attribute names `given`. expected: names, in label order.
    """
    given, expected = list(given), list(expected)
    if given == expected:
        return
    surplus = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    what = [
        f"{sign} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
        for sign, names in (("it lacks", missing), ("it alone has", surplus))
        if names
    ]
    raise ValueError(
        f"`{argument}` must have the {len(expected)} attributes expected, in their order, got "
        f"{value!r} with {len(given)}: {'; '.join(what) or 'another order'}."
    )

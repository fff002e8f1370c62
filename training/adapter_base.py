"""The name of an adapter's base: others need one that they find as well."""

import re
from pathlib import Path

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def hub_id(name: str | None) -> str | None:
    """The name itself when it can only be a Hub id, not a folder here; else None."""
    return name if _HUB_ID.fullmatch(name or "") and not Path(name).exists() else None


def published_base(base_name: str | None, checkpoint: str | None) -> str | None:
    """The Hub id under which the users of an adapter find its base; None: they cannot.

    `base_name` is taken at its word, for a folder here may have the name of its repository; not
    when it is the very folder that was trained on.
    """
    if base_name == checkpoint:
        return hub_id(base_name)
    return base_name if _HUB_ID.fullmatch(base_name or "") else None


def require_published_base(base_name: str | None, checkpoint: str | None) -> str:
    """The Hub id of the base of an adapter that is to be pushed.

    Raises: ValueError when it is not known.
    """
    if (base := published_base(base_name, checkpoint)) is None:
        raise ValueError(
            "`base_name` must be the Hub id of the base of an adapter that is pushed, got "
            f"{base_name!r}: others cannot load {checkpoint!r} of this machine. Push the base, "
            "then add `--base_name OWNER/NAME`."
        )
    return base

"""What a gallery remembers of the model that made it, without loading any model."""

import json
from dataclasses import asdict, dataclass

FORMAT = 1


@dataclass(frozen=True)
class Identity:
    """The model of a gallery.

    Args:
        model, adapter: names from which both can be loaded again.
        model_fingerprint, adapter_fingerprint: of the weights and of how images are prepared.
        embed_dim: width of the embeddings.
        schema: `AttributeSchema.to_dict()`; its attributes are the columns of probabilities.
    """

    model: str
    adapter: str
    model_fingerprint: str
    adapter_fingerprint: str
    embed_dim: int
    schema: dict

    @property
    def attributes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return self.schema["attributes"]

    def to_json(self) -> str:
        """As it is stored with the table."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "Identity":
        """Read what `to_json` wrote.

        Raises:
            ValueError: when a newer or another program wrote it.
        """
        content = json.loads(text)
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"`gallery` must have format {FORMAT}; another version made this one.")
        return cls(**content)

    def require_same(self, other: "Identity") -> None:
        """Raise when embeddings of `other` do not belong into this gallery.

        Raises:
            ValueError: naming the part that differs: model, adapter or attributes.
        """
        for part, ours, theirs in (
            ("model", self.model_fingerprint, other.model_fingerprint),
            ("adapter", self.adapter_fingerprint, other.adapter_fingerprint),
            ("schema", self.attributes, other.attributes),
        ):
            if ours != theirs:
                said = f"{self.model!r} with {self.adapter!r}"
                raise ValueError(
                    f"`gallery` must be used with the {part} that made it ({said}), got "
                    f"{other.model!r} with {other.adapter!r}: other weights or attributes. "
                    "Embeddings of two models cannot be compared; build another gallery."
                )


__all__ = ["Identity"]

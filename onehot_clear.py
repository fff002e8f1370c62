"""Queries as one-hot choices: the form in which ASMR reads attributes.

Source: ASMR (ICCV 2021) writes each group of attributes as a one-hot vector with a value "no". Here
a group's "no" means that some of its attributes are said, and all of those are absent, so that a
query over a part of the attributes keeps all that it says.
"""

import torch
from torch import nn

from .attributes_clear import AttributeSchema
from .evidence_clear import choice_columns


class OneHotQuery(nn.Module):
    """Signed attribute vectors as choices: one value for each attribute, one "no" for each choice.

    Shape: (queries, attributes) of 1 present, -1 absent, 0 unsaid -> (queries, width) of 1 and 0;
        the "no" values stand last.

    >>> encode = OneHotQuery(AttributeSchema.from_names(["hat", "bag"]))
    >>> encode(torch.tensor([[1.0, -1.0], [0.0, 1.0]])).tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, schema: AttributeSchema):
        super().__init__()
        columns = choice_columns(schema)
        self.num_choices = len(columns)
        choice_of = {place: number for number, places in enumerate(columns) for place in places}
        self.choice_of = [choice_of[place] for place in range(schema.num_attributes)]

    @property
    def width(self) -> int:
        """Length of the encoded vector."""
        return len(self.choice_of) + self.num_choices

    def forward(self, signed: torch.Tensor) -> torch.Tensor:
        choice_of = torch.tensor(self.choice_of, device=signed.device)
        present, absent = (signed > 0).to(signed.dtype), (signed < 0).to(signed.dtype)
        none = signed.new_zeros(len(signed), self.num_choices)
        chosen, denied = (none.index_add(1, choice_of, part) for part in (present, absent))
        is_no = (denied > 0) & (chosen == 0)
        return torch.cat([present, is_no.to(signed.dtype)], dim=-1)


__all__ = ["OneHotQuery"]

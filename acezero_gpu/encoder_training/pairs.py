"""Pairs of views with known matches: what the encoder learns from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TrainingPairs:
    """``b`` pairs of square views with ``n`` cells each, row by row."""

    a: Float[Tensor, "b c s s"]
    """First views in [0, 1]; colour until they are made grey."""
    b: Float[Tensor, "b c s s"]
    """Second views."""
    b_of_a: Float[Tensor, "b n 2"]
    """Where the centre of each of a's cells lies in b, in pixels."""
    seen_a: Bool[Tensor, "b n"]
    """Whether b shows it."""
    a_of_b: Float[Tensor, "b n 2"]
    """The same the other way round."""
    seen_b: Bool[Tensor, "b n"]

    def __len__(self) -> int:
        return len(self.a)

    @staticmethod
    def concatenate(parts: list["TrainingPairs"]) -> "TrainingPairs":
        """All pairs of all parts."""
        names = TrainingPairs.__slots__
        return TrainingPairs(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def with_views(self, a: Float[Tensor, "b c s s"], b: Float[Tensor, "b c s s"]) -> "TrainingPairs":
        """The same matches between other pictures."""
        return replace(self, a=a, b=b)

    def to(self, device: torch.device) -> "TrainingPairs":
        """On another device."""
        return TrainingPairs(*(getattr(self, name).to(device) for name in TrainingPairs.__slots__))

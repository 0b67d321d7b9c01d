"""What an encoder is, and the ways to get one."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.network.dense_sift import DenseSiftEncoder
from acezero_gpu.network.learned_encoder import load_learned_encoder
from acezero_gpu.runtime import in_chunks


@runtime_checkable
class Encoder(Protocol):
    """Frozen, scene-agnostic features: one grey image in [0, 1] in, one column of ``channels`` per cell out."""

    stride: int
    """Side of a cell in pixels."""
    channels: int
    """Length of a feature."""
    identifier: str
    """Written into a map file: a map works with the encoder that it was trained on only."""

    def __call__(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]: ...


PACKAGED = ("acezero", "dense-sift")
"""Encoders that need no file from the user."""


def packaged_encoder(identifier: str) -> str | None:
    """Which of the package's encoders has this identifier; None if it is of a file of the user's."""
    device = torch.device("cpu")
    return next((name for name in PACKAGED if make_encoder(name, device).identifier == identifier), None)


def make_encoder(choice: str, device: torch.device) -> Encoder:
    """``acezero``, the learned encoder of this package; ``dense-sift``; or the path of a file of weights.

    A file holds an encoder that was trained with this package (``.safetensors``), or ACE's. Raises ``ValueError`` or
    ``OSError`` with a sentence when the file is missing or holds neither network.
    """
    if choice == "dense-sift":
        return DenseSiftEncoder().to(device)
    if choice == "acezero":
        with as_file(files("acezero_gpu.network") / "weights" / "encoder.safetensors") as packaged:
            return load_learned_encoder(packaged).to(device)
    path = Path(choice)
    if not path.is_file():
        raise ValueError(
            f"--encoder {choice}: no such file; give acezero, dense-sift or the path of an encoder's weights."
        )
    if path.suffix == ".safetensors":
        return load_learned_encoder(path).to(device)
    from acezero_gpu.network.ace_encoder import load_ace_encoder

    return load_ace_encoder(path).to(device)


FEATURE_DTYPE = torch.float16
"""How features are kept: half the bytes of float32, with more digits than bfloat16."""


@torch.no_grad()
def encode(
    encoder: Encoder, images: Float[Tensor, "b 1 h w"], chunk: int = 8
) -> Float[Tensor, "b c rows cols"]:
    """Features of a batch, in chunks, as they are kept."""
    parts = in_chunks("encoding", len(images), chunk, lambda part: encoder(images[part]).to(FEATURE_DTYPE))
    return torch.cat(parts)

"""A finished map: the head, what it was trained with, and the cameras it saw. Saved as safetensors."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from acezero_gpu.network.head import Head, head_from_state
from acezero_gpu.network.tensor_file import read_tensors
from acezero_gpu.runtime import autocast, chunk_ranges
from acezero_gpu.runtime.atomic import write_atomically

FORMAT = "acezero-map-1"
SAME_SHAPE = 0.01
"""Ratios of the sides that differ by a smaller share are rounded ones."""


@dataclass(frozen=True, slots=True)
class SceneMap:
    """Everything that registering a new image needs, beside the encoder itself."""

    head: Head
    """One head, or an ensemble, each head of which knows a part of the scene."""
    encoder_identifier: str
    """Which encoder's features the head understands."""
    shortest_side_px: int
    """Images are resized to this shortest side before encoding."""
    focal_to_shortest: float
    """Focal length divided by the image's shortest side: the camera of the mapping images, at any resolution."""
    radial: tuple[float, float] = (0.0, 0.0)
    """``k1, k2`` of the mapping images' lens."""
    longest_to_shortest: float | None = None
    """Shape of the mapping images; None in files of earlier versions."""

    def has_shape_of(self, width_px: int, height_px: int) -> bool:
        """Whether the mapping images had this shape, upright or lying."""
        shape = max(width_px, height_px) / min(width_px, height_px)
        return self.longest_to_shortest is None or abs(shape / self.longest_to_shortest - 1) < SAME_SHAPE

    def focal_px(self, width_px: int, height_px: int) -> float:
        """The mapping images' focal length for images of this size.

        Images of another shape are taken for pictures of the same camera that were cropped on two opposite sides.
        """
        shortest, longest = sorted((width_px, height_px))
        mapped = self.longest_to_shortest
        if mapped is None or self.has_shape_of(width_px, height_px) or longest / shortest < mapped:
            return self.focal_to_shortest * shortest
        return self.focal_to_shortest * longest / mapped

    @torch.no_grad()
    def scene_coordinates(
        self, features: Float[Tensor, "b c rows cols"], chunk_cells: int = 65536
    ) -> Float[Tensor, "heads b cells 3"]:
        """World point of every cell, row by row, by each of the map's heads."""
        batch = features.shape[0]
        flat = features.flatten(2).transpose(1, 2).flatten(0, 1)
        with autocast(features.device):
            chunks = chunk_ranges(len(flat), max(1, chunk_cells // self.head.count))
            parts = [self.head.of_all(flat[part].float()) for part in chunks]
        return torch.cat(parts, dim=1).unflatten(1, (batch, -1))

    def parts(self) -> "tuple[SceneMap, ...]":
        """A map of each of the heads, to ask one alone; the map itself if it has only one."""
        if self.head.count == 1:
            return (self,)
        return tuple(replace(self, head=self.head.one(index)) for index in range(self.head.count))

    def save(self, path: Path) -> None:
        """Half-precision weights (4.2 MB for each 512-wide head), written to a temporary name, then renamed."""
        meta = {
            "format": FORMAT,
            "encoder": self.encoder_identifier,
            "shortest_side_px": self.shortest_side_px,
            "focal_to_shortest": self.focal_to_shortest,
            "radial": list(self.radial),
            "longest_to_shortest": self.longest_to_shortest,
        }
        state = {key: value.detach().cpu().contiguous() for key, value in self.head.state_dict().items()}
        # In units of the world: half precision would move a centre by centimetres.
        state = {key: value if key in ("centre", "unit") else value.half() for key, value in state.items()}
        write_atomically(path, save(state, metadata={"map": json.dumps(meta)}))

    @staticmethod
    def load(path: Path, device: torch.device | str = "cpu") -> "SceneMap":
        """Raises ``ValueError`` with one sentence if ``path`` is no map of this format."""
        try:
            meta, state = read_tensors(path, "map")
        except Exception as error:
            raise ValueError(f"{path}: not a readable map file ({str(error).splitlines()[0]}).") from error
        if meta.get("format") != FORMAT:
            raise ValueError(f"{path}: not a map of this program (its format is {meta.get('format')!r}).")
        try:
            head = head_from_state(state).to(device).eval().requires_grad_(False)
            k1, k2 = (float(value) for value in meta["radial"])
            shape = meta.get("longest_to_shortest")
            return SceneMap(
                head,
                meta["encoder"],
                int(meta["shortest_side_px"]),
                float(meta["focal_to_shortest"]),
                (k1, k2),
                None if shape is None else float(shape),
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not a complete map file ({str(error).splitlines()[0]}).") from error

"""Features of the plain images, kept where there is room for them."""

import os
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.network import FEATURE_DTYPE
from acezero_gpu.runtime.distributed import process_count
from acezero_gpu.runtime.memory import is_out_of_memory

HOST_SHARE = 0.5
"""Of the main memory that is free, so much may take what the GPUs of all processes have no room for."""
AT_ONCE = 16
"""Images that are encoded together."""

Encode = Callable[[Int[Tensor, " b"]], Float[Tensor, "b c rows cols"]]


class FeatureCache:
    """The first images' features stay on the device, up to a budget; the next ones' in pinned main memory, if
    ``spills``; those of the rest are computed again each time."""

    def __init__(
        self,
        images: int,
        shape: tuple[int, int, int],
        budget_bytes: int,
        device: torch.device,
        *,
        spills: bool = False,
    ) -> None:
        each = shape[0] * shape[1] * shape[2] * FEATURE_DTYPE.itemsize
        self._shape = shape
        self._known = torch.zeros(images, dtype=torch.bool)
        self._near = torch.empty(
            min(images, budget_bytes // each), *shape, dtype=FEATURE_DTYPE, device=device
        )
        beyond = images - len(self._near)
        room = int(HOST_SHARE * _free_bytes()) // process_count() if spills else 0
        self._far = _host_memory(min(beyond, room // each), shape)

    @property
    def kept(self) -> int:
        """Images whose features are computed once; those on the device come first."""
        return len(self._near) + len(self._far)

    @property
    def device_bytes(self) -> int:
        """Taken on the device."""
        return self._near.nbytes

    def features(self, indices: Int[Tensor, " b"], encode: Encode) -> Float[Tensor, "b c rows cols"]:
        """Those of the images with these indices, which are on the CPU; on the device."""
        missing = indices[~self._known[indices] & (indices < self.kept)]
        for part in missing.split(AT_ONCE) if len(missing) else ():
            self._keep(part, encode(part))
        device, limit = self._near.device, len(self._near)
        if bool((indices < limit).all()):
            return self._near[indices.to(device)]
        result = self._near.new_empty(len(indices), *self._shape)
        near, far, rest = self._places(indices)
        result[near.to(device)] = self._near[indices[near].to(device)]
        for row in far.tolist():
            result[row].copy_(self._far[int(indices[row]) - limit], non_blocking=True)
        if len(rest):
            result[rest.to(device)] = encode(indices[rest])
        return result

    def _keep(self, indices: Int[Tensor, " b"], features: Float[Tensor, "b c rows cols"]) -> None:
        near, far, _ = self._places(indices)
        self._near[indices[near].to(features.device)] = features[near.to(features.device)]
        for row in far.tolist():
            self._far[int(indices[row]) - len(self._near)] = features[row]
        self._known[indices] = True

    def _places(self, indices: Int[Tensor, " b"]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of ``indices`` whose images are kept on the device, in main memory, and nowhere."""
        near, kept = indices < len(self._near), indices < self.kept
        near_rows, far_rows, rest = (mask.nonzero()[:, 0] for mask in (near, kept & ~near, ~kept))
        return near_rows, far_rows, rest


def _host_memory(images: int, shape: tuple[int, int, int]) -> Tensor:
    """Pinned where a GPU may read it; none at all where the machine cannot give it."""
    try:
        return torch.empty(
            images, *shape, dtype=FEATURE_DTYPE, pin_memory=images > 0 and torch.cuda.is_available()
        )
    except RuntimeError as error:
        if not is_out_of_memory(error) and "CUDA" not in str(error):
            raise
        return torch.empty(0, *shape, dtype=FEATURE_DTYPE)


def _free_bytes() -> int:
    """Of main memory; nothing where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0

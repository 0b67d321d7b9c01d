"""What the estimator asks of the machine: it never waits for the device, and its memory is bounded."""

import weakref
from dataclasses import replace

import pypose as pp
import pytest
import torch
from reference.pose_results import PRESETS, pose_rows
from reference.posed_scene import make_scene
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import estimate_absolute_pose


def everything(preset: str, device: torch.device | str) -> dict:
    """Arguments that take every branch of the estimator."""
    scene = make_scene(3, outliers=0.5, noise_px=1.0, rows=12, columns=16)
    g = torch.Generator().manual_seed(0)
    return {
        "points": scene.points.to(device),
        "pixels": scene.pixels.to(device),
        "camera": scene.camera.to(device),
        "config": replace(PRESETS[preset], hypotheses=32 if preset == "fast" else 512),
        "mask": (torch.rand(3, 192, generator=g) < 0.9).to(device),
        "weights": torch.rand(3, 192, generator=g).to(device),
        "initial": pp.randn_SE3(3).to(device),
    }


@pytest.mark.parametrize("left_out", [(), ("weights", "initial", "mask")], ids=["everything", "plain"])
@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_waits_for_the_device(preset, left_out):
    """Tensors without data refuse ``item``, ``nonzero`` and boolean indexing, all that would synchronise."""
    arguments = everything(preset, "meta")
    result = estimate_absolute_pose(**{k: v for k, v in arguments.items() if k not in left_out})
    assert result.inliers.shape == (3, 192)
    assert result.status.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("left_out", [(), ("weights", "initial", "mask")], ids=["everything", "plain"])
@pytest.mark.parametrize("preset", PRESETS)
def test_cuda_never_synchronises(preset, left_out):
    arguments = {k: v for k, v in everything(preset, "cuda").items() if k not in left_out}
    estimate_absolute_pose(**arguments)  # libraries set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = estimate_absolute_pose(**arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (result.status == PoseStatus.OK).all()


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside this context held at any time, without views of ``inputs``."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in inputs)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_temporary_memory_does_not_grow_with_the_batch(preset):
    """Beyond the results themselves, which are held twice while chunks are put together."""
    scene = make_scene(8, outliers=0.3, noise_px=1.0, rows=6, columns=8)
    few = {"fast": {"hypotheses": 4, "attempts": 4}, "balanced": {"hypotheses": 32}}[preset]
    config = replace(PRESETS[preset], max_chunk_bytes=1 << 19, **few)
    peaks = {}
    for batch in (64, 1024):
        points = scene.points.repeat(batch // 8, 1, 1)
        with LiveBytes(points, scene.pixels) as memory:
            result = estimate_absolute_pose(points, scene.pixels, scene.camera, config)
        results = sum(
            t.nbytes
            for t in (pose_rows(result), result.inliers, result.inlier_count, result.score, result.status)
        )
        peaks[batch] = memory.peak - 2 * results
        assert peaks[batch] < 4 * config.max_chunk_bytes
    assert peaks[1024] < 1.2 * peaks[64]

"""The benchmark's own backend: Gaussian splats on gsplat, in this process."""

import math
from pathlib import Path

from torch.nn import ParameterDict

from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.io.view_synthesis import read_view_synthesis
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.atomic import write_atomically
from acezero_gpu.runtime.memory import is_out_of_memory
from acezero_gpu.splatting import SplatBackend, SplatConfig, train_splats, view_figures

SPLATS = "splats.ply"
"""The trained Gaussians, in the layout that viewers of splats read."""


def train_and_evaluate_splats(
    folder: Path, config: SplatConfig, backend: SplatBackend, seed: int, log: RunLog
) -> tuple[dict[str, float], dict[str, int]]:
    """Train on the data in ``folder``, leave the Gaussians there, and measure on its test images.

    The figures, PSNR and SSIM (LPIPS would need a network to be downloaded), and what they were made with.
    ``RunFailedError`` where training is not possible.
    """
    train, test, cloud = read_view_synthesis(folder)
    log.stage("training gsplat")
    try:
        splats = train_splats(
            train, cloud.points, cloud.colours, config, backend, random_stream(seed, "splatting")
        )
        write_atomically(folder / SPLATS, _as_ply(splats))
        log.stage("evaluating gsplat")
        figures = view_figures(splats, test, backend)
    except ValueError as error:
        raise RunFailedError(f"{folder}: {error}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailedError(
            "the GPU's memory is full; fewer --steps make fewer Gaussians, and other programs may use it as well."
        ) from error
    if not all(math.isfinite(value) for value in figures.values()):
        raise RunFailedError(f"{folder}: the trained splats give no finite figures.")
    return figures, {"steps": config.steps, "seed": seed, "gaussians": len(splats["means"])}


def _as_ply(splats: ParameterDict) -> bytes:
    from gsplat import export_splats

    return export_splats(**{name: value.detach().cpu() for name, value in splats.items()}, format="ply")

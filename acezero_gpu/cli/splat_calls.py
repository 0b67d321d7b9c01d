"""The benchmark's own backend: Gaussian splats on gsplat, in this process."""

from pathlib import Path

from torch.nn import ParameterDict

from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.io.view_synthesis import read_view_synthesis
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.atomic import write_atomically
from acezero_gpu.splatting import SplatBackend, SplatConfig, train_splats, view_figures

SPLATS = "splats.ply"
"""The trained Gaussians, in the layout that viewers of splats read."""


def train_and_evaluate_splats(
    folder: Path, config: SplatConfig, backend: SplatBackend, seed: int, log: RunLog
) -> dict[str, float]:
    """Train on the data in ``folder``, leave the Gaussians there, and measure on its test images.

    PSNR and SSIM; LPIPS would need a network to be downloaded. ``RunFailedError`` where training is not possible.
    """
    train, test, cloud = read_view_synthesis(folder)
    log.stage("training gsplat")
    try:
        splats = train_splats(
            train, cloud.points, cloud.colours, config, backend, random_stream(seed, "splatting")
        )
    except ValueError as error:
        raise RunFailedError(f"{folder}: {error}") from error
    write_atomically(folder / SPLATS, _as_ply(splats))
    log.stage("evaluating gsplat")
    return view_figures(splats, test, backend)


def _as_ply(splats: ParameterDict) -> bytes:
    from gsplat import export_splats

    return export_splats(**{name: value.detach().cpu() for name, value in splats.items()}, format="ply")

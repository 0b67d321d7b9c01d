"""Gaussians trained on posed images, and what they make of others.

The recipe is that of Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, SIGGRAPH 2023: its
losses, its learning rates, its order of spherical harmonics, and gsplat's account of where Gaussians are added.
Opacities are reset from time to time only if gsplat's strategy does it, which that of version 1.5.3 does not.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from kornia.losses import ssim_loss
from kornia.metrics import psnr, ssim
from torch import Tensor
from torch.nn import ParameterDict
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from acezero_gpu.geometry import camera_centres
from acezero_gpu.runtime.progress import report
from acezero_gpu.splatting.backend import SplatBackend
from acezero_gpu.splatting.gaussians import initial_gaussians
from acezero_gpu.splatting.views import ColourViews

SSIM_WINDOW = 11
HIGHEST_PSNR = 120.0
"""Of pictures that do not differ at all, in dB."""
LEARNING_RATES = {
    "scales": 5e-3,
    "quats": 1e-3,
    "opacities": 5e-2,
    "sh0": 2.5e-3,
    "shN": 2.5e-3 / 20,
}
REFINE_FROM = 500
"""Gaussians are added from this step on, or from a tenth of the steps; until half of them are done."""
LEAST_EXTENT = 0.1
"""Of the scene, as a share of the median distance from the middle of the cameras to a point, since they may all stand
in one place."""
MEANS_RATE, MEANS_DECAY = 1.6e-4, 0.01
"""Of positions, relative to the scene's extent, and to which share of it the rate falls."""


@dataclass(frozen=True, slots=True)
class SplatConfig:
    """How a scene is trained."""

    steps: int = 30_000
    """One image each."""
    most_points: int = 200_000
    """Gaussians at the start."""
    sh_degree: int = 3
    """Of the colours; reached by one more degree every ``sh_every`` steps."""
    sh_every: int = 1000
    """See ``sh_degree``."""
    opacity: float = 0.1
    """Of a Gaussian at the start."""
    ssim_share: float = 0.2
    """Of the loss; the rest is the absolute difference."""


def train_splats(
    views: ColourViews,
    points: Float[Tensor, "p 3"],
    colours: UInt8[Tensor, "p 3"],
    config: SplatConfig,
    backend: SplatBackend,
    generator: torch.Generator,
) -> ParameterDict:
    """Gaussians that show the views, started from the points; on the backend's device.

    Names and shapes are those of ``initial_gaussians``. The same generator gives the same Gaussians, on a GPU up to the
    order of its sums. Raises ``ValueError`` for too few points, for a loss that is not finite, and where no Gaussian
    is left.
    """
    splats = initial_gaussians(
        points.to(backend.device),
        colours,
        most=config.most_points,
        sh_degree=config.sh_degree,
        opacity=config.opacity,
        generator=generator,
    )
    # The strategy draws where a Gaussian is split, from PyTorch's own stream.
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        _train(splats, views, _extent(views, points), config, backend, generator)
    return splats


def _train(
    splats: ParameterDict,
    views: ColourViews,
    extent: float,
    config: SplatConfig,
    backend: SplatBackend,
    generator: torch.Generator,
) -> None:
    """All steps, which change the Gaussians and their number in place."""
    optimisers = _optimisers(splats, extent)
    decay = ExponentialLR(optimisers["means"], MEANS_DECAY ** (1 / max(1, config.steps)))
    strategy = backend.make_strategy(
        refine_start_iter=min(REFINE_FROM, config.steps // 10), refine_stop_iter=config.steps // 2
    )
    strategy.check_sanity(splats, optimisers)
    state = strategy.initialize_state(scene_scale=extent)
    order: list[int] = []
    for step in range(config.steps):
        order = order or torch.randperm(len(views), generator=generator).tolist()
        row = order.pop()
        degree = min(step // config.sh_every, config.sh_degree)
        drawn, info = _drawn(splats, views, torch.tensor([row]), degree, backend)
        strategy.step_pre_backward(splats, optimisers, state, step, info)
        loss = _loss(*_compared(drawn, views, row), config.ssim_share)
        loss.backward()
        for optimiser in optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay.step()
        strategy.step_post_backward(splats, optimisers, state, step, info, packed=False)
        if not len(splats["means"]):
            raise ValueError(f"No Gaussian is left after step {step}.")
        if step % 100 == 0 or step + 1 == config.steps:
            if not math.isfinite(loss.item()):
                raise ValueError(f"The loss of the splats is not finite at step {step}.")
            report(step + 1, config.steps, "splatting steps")


@torch.no_grad()
def view_figures(splats: ParameterDict, views: ColourViews, backend: SplatBackend) -> dict[str, float]:
    """Means over the views of PSNR in dB and SSIM (window of 11, sigma 1.5), of what the lens saw."""
    seen = views.seen.to(backend.device)
    share = seen.float().mean()
    degree = math.isqrt(splats["shN"].shape[1] + 1) - 1
    noise, likeness = [], []
    for row in range(len(views)):
        drawn, _ = _drawn(splats, views, torch.tensor([row]), degree, backend)
        drawn, target = _compared(drawn.clamp(0, 1), views, row)
        # Where nothing was seen they do not differ, which must not count as right.
        noise.append(psnr(drawn, target, 1.0).clamp_max(HIGHEST_PSNR) + 10 * share.log10())
        alike = ssim(drawn.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), SSIM_WINDOW)
        likeness.append(alike[..., seen].mean())
        report(row + 1, len(views), "test images")
    return {"psnr": float(torch.stack(noise).mean()), "ssim": float(torch.stack(likeness).mean())}


def _compared(
    drawn: Float[Tensor, "1 h w 3"], views: ColourViews, row: int
) -> tuple[Float[Tensor, "1 h w 3"], Float[Tensor, "1 h w 3"]]:
    """A drawn picture and the photograph; where that has seen nothing they are the same."""
    target = views.images[row : row + 1].to(drawn.device).float() / 255
    return torch.where(views.seen.to(drawn.device)[..., None], drawn, target), target


def _loss(
    drawn: Float[Tensor, "1 h w 3"], target: Float[Tensor, "1 h w 3"], ssim_share: float
) -> Float[Tensor, ""]:
    difference = (drawn - target).abs().mean()
    # kornia's loss is half of one minus the likeness.
    unlike = 2 * ssim_loss(drawn.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), SSIM_WINDOW)
    return (1 - ssim_share) * difference + ssim_share * unlike


def _drawn(
    splats: ParameterDict, views: ColourViews, rows: Int[Tensor, " c"], degree: int, backend: SplatBackend
) -> tuple[Float[Tensor, "c h w 3"], dict[str, object]]:
    """The Gaussians as these views see them, and what the strategy wants to know."""
    device, camera = backend.device, views.camera
    viewmats = torch.eye(4).repeat(len(rows), 1, 1)
    viewmats[:, :3] = views.cam_from_world[rows].float()
    intrinsics = torch.eye(3).repeat(len(rows), 1, 1)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = camera.focal_px.float().tolist()
    intrinsics[:, :2, 2] = camera.principal_point_px.float()
    height, width = views.images.shape[1:3]
    drawn, _, info = backend.rasterise(
        means=splats["means"],
        quats=splats["quats"],
        scales=splats["scales"].exp(),
        opacities=splats["opacities"].sigmoid(),
        colors=torch.cat([splats["sh0"], splats["shN"]], dim=1),
        viewmats=viewmats.to(device),
        Ks=intrinsics.to(device),
        width=width,
        height=height,
        sh_degree=degree,
        packed=False,
    )
    return drawn, info


def _extent(views: ColourViews, points: Float[Tensor, "p 3"]) -> float:
    """Distance of the farthest camera from their middle, and a tenth more."""
    centres = camera_centres(views.cam_from_world.double())
    middle = centres.mean(0)
    away = (points.double().cpu() - middle).norm(dim=1).median()
    return max(1.1 * float((centres - middle).norm(dim=1).max()), LEAST_EXTENT * float(away))


def _optimisers(splats: ParameterDict, extent: float) -> dict[str, Optimizer]:
    """One for each kind of parameter, as gsplat's strategies need them."""
    rates = {"means": MEANS_RATE * extent, **LEARNING_RATES}
    return {name: Adam([splats[name]], lr=rate, eps=1e-15) for name, rate in rates.items()}

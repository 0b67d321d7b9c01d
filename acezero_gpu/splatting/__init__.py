"""3D Gaussian splatting on gsplat: a scene learned from some posed images and judged by others."""

from acezero_gpu.splatting.backend import SplatBackend, gsplat_backend, missing_requirement
from acezero_gpu.splatting.gaussians import initial_gaussians
from acezero_gpu.splatting.training import SplatConfig, train_splats, view_figures
from acezero_gpu.splatting.views import ColourViews, undistorted

__all__ = [
    "ColourViews",
    "SplatBackend",
    "SplatConfig",
    "gsplat_backend",
    "initial_gaussians",
    "missing_requirement",
    "train_splats",
    "undistorted",
    "view_figures",
]

"""Scene coordinate reconstruction in plain PyTorch.

The public names are imported from their packages when they are first used, so that ``import acezero_gpu`` is cheap.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AbsolutePoseResult": "ransac",
    "BundleProblem": "adjustment",
    "FocalRansacConfig": "ransac",
    "ImageBank": "reconstruction",
    "PinholeCamera": "geometry",
    "PoseDistributionConfig": "ransac",
    "PoseRefinement": "pnp",
    "PosedViews": "data",
    "RansacConfig": "ransac",
    "ReconstructionConfig": "config",
    "RigidRansacConfig": "ransac",
    "SceneMap": "network",
    "bundle_adjust": "adjustment",
    "estimate_absolute_pose": "ransac",
    "estimate_pose_and_focal": "ransac",
    "estimate_rigid_pose": "ransac",
    "evaluate_poses": "evaluation",
    "load_grey": "data",
    "make_encoder": "network",
    "pose_loss": "ransac",
    "preset": "config",
    "reconstruct": "reconstruction",
    "register_images": "registration",
    "resolve_images": "data",
    "sample_pose_distribution": "ransac",
    "train_map": "mapping",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

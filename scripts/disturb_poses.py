"""Writes a pose file in which every pose is off by the same distance and angle, each in a direction of its own.

For measuring how well poses are refined:
``python scripts/disturb_poses.py IMAGES POSES rough.txt --metres 0.05 --degrees 3 --focal-px 525``.
"""

import argparse
import math
from pathlib import Path

import torch

from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.geometry import retract, se3_from_matrix
from acezero_gpu.io import read_poses, write_pose_file
from acezero_gpu.runtime import random_stream


def disturbed(views: PosedViews, metres: float, degrees: float, seed: int) -> PosedViews:
    """``cam_from_world`` moved in the camera frame."""
    generator = random_stream(seed, "disturbed poses")
    step = torch.randn(len(views.names), 2, 3, generator=generator, dtype=torch.float64)
    step = torch.nn.functional.normalize(step, dim=-1) * torch.tensor([[metres], [math.radians(degrees)]])
    pose = se3_from_matrix(retract(views.matrices, step.flatten(1)))
    return PosedViews(views.names, pose, views.focal_px, views.confidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="as for acezero map")
    parser.add_argument("poses", help="as for acezero map --poses")
    parser.add_argument("out", type=Path)
    parser.add_argument("--metres", type=float, default=0.05)
    parser.add_argument("--degrees", type=float, default=3.0)
    parser.add_argument("--focal-px", type=float, help="where the poses bring none")
    parser.add_argument("--seed", type=int, default=1305)
    given = parser.parse_args()
    names = resolve_images(given.images).names
    views = read_poses(given.poses, names, given.focal_px, dtype=torch.float64)
    write_pose_file(given.out, disturbed(views, given.metres, given.degrees, given.seed))


if __name__ == "__main__":
    main()

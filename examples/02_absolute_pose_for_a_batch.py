"""Camera poses of a whole batch of images from points of which most are wrong, in one call.

Twelve images see known points of the world; of each image 70 % of the points are outliers, and the images have
different numbers of points, which a mask tells. Two images cannot be solved and disturb no other: one has three
points, which its status says, one sees nothing but outliers, which its number of inliers tells: some pose passes
near four points of any image. The presets are compared, and a prior pose takes the place of the search.

Run: ``python examples/02_absolute_pose_for_a_batch.py`` (seconds on a CPU, no data needed).
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acezero_gpu import AbsolutePoseResult, PinholeCamera, RansacConfig, estimate_absolute_pose
from acezero_gpu.geometry import (
    camera_centres,
    invert,
    matrix_from_se3,
    retract,
    rotation_angle_deg,
    se3_from_matrix,
    transform_points,
)
from acezero_gpu.pnp import PoseStatus

CAMERA = PinholeCamera.centred(525.0, 640, 480)
IMAGES, MOST_POINTS, OUTLIERS = 12, 1000, 0.7
HOPELESS, ALMOST_EMPTY = 3, 7
RIGHT_CM = 2.0


@dataclass(frozen=True)
class Batch:
    """World points (images, n, 3), their pixels (images, n, 2), which of them are there, and the true poses."""

    points: Tensor
    pixels: Tensor
    mask: Tensor
    cam_from_world: Tensor


def make_batch(generator: torch.Generator) -> Batch:
    """Points two to six metres in front of cameras anywhere, seen to 1.5 pixels; outliers lie in a box."""
    size = torch.tensor([640.0, 480.0])
    pixels = size * torch.rand(IMAGES, MOST_POINTS, 2, generator=generator)
    noisy = pixels + 1.5 * torch.randn(pixels.shape, generator=generator)
    depth = 2 + 4 * torch.rand(IMAGES, MOST_POINTS, 1, generator=generator)
    rays = torch.cat([CAMERA.normalised(noisy), torch.ones_like(depth)], dim=-1)
    wrong = torch.rand(IMAGES, MOST_POINTS, 1, generator=generator) < OUTLIERS
    wrong[HOPELESS] = True
    box = 8 * torch.rand(IMAGES, MOST_POINTS, 3, generator=generator) - 4
    truth = retract(torch.eye(3, 4).expand(IMAGES, 3, 4), torch.randn(IMAGES, 6, generator=generator))
    points = transform_points(invert(truth), torch.where(wrong, box, rays * depth))
    count = torch.randint(500, MOST_POINTS + 1, (IMAGES,), generator=generator)
    count[ALMOST_EMPTY] = 3
    return Batch(points, pixels, torch.arange(MOST_POINTS) < count[:, None], truth)


def errors(result: AbsolutePoseResult, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees and centimetres of every image."""
    pose = matrix_from_se3(result.cam_from_world)
    distance = (camera_centres(pose) - camera_centres(truth)).norm(dim=-1)
    return rotation_angle_deg(pose[..., :3], truth[..., :3]), 100 * distance


def estimate(
    batch: Batch, name: str, config: RansacConfig, initial: Tensor | None = None
) -> tuple[AbsolutePoseResult, dict[str, float]]:
    """One call for all images; what it achieved on those that can be solved."""
    start = time.perf_counter()
    result = estimate_absolute_pose(
        batch.points, batch.pixels, CAMERA, config, mask=batch.mask, initial=initial
    )
    seconds = time.perf_counter() - start
    solvable = torch.tensor([i not in (HOPELESS, ALMOST_EMPTY) for i in range(IMAGES)])
    rotation, distance = (e[solvable] for e in errors(result, batch.cam_from_world))
    figures = {
        "right": (distance < RIGHT_CM).sum().item(),
        "rotation_deg": rotation.median().item(),
        "distance_cm": distance.median().item(),
        "worst_cm": distance.max().item(),
    }
    print(
        f"{name:10} {figures['right']:2.0f} of {solvable.sum()} right in {seconds:4.2f} s, median "
        f"{figures['rotation_deg']:.3f} degrees, {figures['distance_cm']:.2f} cm, worst {figures['worst_cm']:.2f} cm"
    )
    return result, figures


def main() -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    batch = make_batch(generator)
    figures = {}
    for name in ("fast", "balanced", "robust"):
        result, figures[name] = estimate(batch, name, getattr(RansacConfig, name)())
    # A guess that is a few degrees and some ten centimetres off, and no hypothesis beside it.
    guess = retract(batch.cam_from_world, 0.05 * torch.randn(IMAGES, 6, generator=generator))
    only_prior = replace(RansacConfig.robust(), hypotheses=0)
    _, figures["prior"] = estimate(batch, "prior only", only_prior, se3_from_matrix(guess))

    print("\nimage  points  inliers  score  status (robust)")
    for i in range(5):
        status = PoseStatus(int(result.status[i]))
        print(
            f"{i:5} {batch.mask[i].sum():7} {result.inlier_count[i]:8} {result.score[i]:6.1f}  {status.name}"
        )
    for i in (HOPELESS, ALMOST_EMPTY):
        status = PoseStatus(int(result.status[i]))
        print(f"image {i}, {result.inlier_count[i]} inliers: {status.sentence}")
    figures["failed"] = {
        "hopeless_inliers": result.inlier_count[HOPELESS].item(),
        "almost_empty_status": result.status[ALMOST_EMPTY].item(),
    }
    return figures


if __name__ == "__main__":
    main()

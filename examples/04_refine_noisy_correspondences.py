"""Learn which correspondences to trust, through the refinement of the pose.

Pixels of known points are measured with errors of half a pixel to thirty pixels, and some hints come with each
measurement from which its quality can be guessed, as a matcher's confidences do. A small network turns the hints
into weights. It never sees an error of a pixel: its loss is the error of the refined pose, whose gradient passes
back through ``PoseRefinement`` to the weights. On views that it has not seen, poses get several times more accurate.

Run: ``python examples/04_refine_noisy_correspondences.py`` (seconds on a CPU, no data needed).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acezero_gpu import PinholeCamera, PoseRefinement, pose_loss
from acezero_gpu.geometry import reproject, retract
from acezero_gpu.pnp import PoseStatus, RefinementConfig

CAMERA = PinholeCamera.centred(500.0, 640, 480)
POINTS_PER_VIEW, HINTS, STEPS = 60, 6, 120


@dataclass(frozen=True)
class Views:
    points: Tensor
    pixels: Tensor
    hints: Tensor
    error_px: Tensor
    """Standard deviation of each measurement, which the network does not know."""
    initial: Tensor
    truth: Tensor


def make_views(count: int, generator: torch.Generator) -> Views:
    """Points in a box of four metres, five metres in front of the cameras."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    points = 4 * torch.rand(count, POINTS_PER_VIEW, 3, generator=generator) - 2
    front = torch.eye(3, 4)
    front[2, 3] = 5.0
    truth = retract(front.expand(count, 3, 4), 0.2 * normal(6))
    hints = normal(POINTS_PER_VIEW, HINTS)
    # Good if two of the hints are low, whatever the others say: from 0.5 to 30 pixels.
    badness = torch.sigmoid(2 * torch.maximum(hints[..., 0], hints[..., 1]))
    error_px = 0.5 * 60.0**badness
    pixels = reproject(points, truth, CAMERA).pixels + error_px[..., None] * normal(POINTS_PER_VIEW, 2)
    return Views(points, pixels, hints, error_px, retract(truth, 0.02 * normal(6)), truth)


def pose_errors(layer: PoseRefinement, views: Views, weights: Tensor) -> Tensor:
    """Degrees plus centimetres of every view after refinement; zero for those that have no refined pose."""
    refined = layer(views.points, views.pixels, CAMERA, views.initial, weights=weights)
    errors = pose_loss(refined.cam_from_world, views.truth)
    return torch.where(refined.status == int(PoseStatus.OK), errors, 0.0)


def main() -> dict[str, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    test = make_views(200, generator)
    network = nn.Sequential(nn.Linear(HINTS, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    layer = PoseRefinement(RefinementConfig(iterations=10))

    def weights_of(views: Views) -> Tensor:
        return network(views.hints)[..., 0].softmax(-1) * POINTS_PER_VIEW

    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(STEPS):
        views = make_views(32, generator)
        optimizer.zero_grad()
        pose_errors(layer, views, weights_of(views)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        figures = {
            "equal": pose_errors(layer, test, torch.ones_like(test.error_px)).median().item(),
            "learned": pose_errors(layer, test, weights_of(test)).median().item(),
            "ideal": pose_errors(layer, test, test.error_px**-2).median().item(),
        }
    print("median error of refined poses on unseen views, degrees + centimetres")
    for name, value in figures.items():
        print(f"  {name + ' weights':16} {value:6.2f}")
    return figures


if __name__ == "__main__":
    main()

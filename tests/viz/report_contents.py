"""What a run of 125 images would have its report say, and a run that went wrong."""

import math
from dataclasses import replace

import torch

from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.viz import plot_reprojection_error
from acezero_gpu.viz.report import CloseLook, ReportContent, ReportImage, ReportRound

HOSTILE = '</script><img src=x onerror="document.title=1">&"\'{{7*7}}.jpg'
"""A file name that would be HTML, script and template, if anything let it."""


def noise_picture(seed: int, size: tuple[int, int] = (156, 208)) -> torch.Tensor:
    """Blocks of colour: about as hard to compress as a photograph."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, 3, 39, 52), generator=generator).float()
    picture = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255)
    return picture[0].permute(1, 2, 0).byte()


def circle_poses(count: int) -> torch.Tensor:
    """Upright cameras on a circle, looking at its middle, as 3x4 world to camera."""
    angle = torch.arange(count) * (2 * math.pi / max(count, 1))
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(count), torch.ones(count)
    right = torch.stack([cos, zero, -sin], -1)
    down = torch.stack([zero, one, zero], -1)
    forward = torch.stack([sin, zero, cos], -1)
    rotation = torch.stack([right, down, forward], 1)
    centres = -3 * forward
    return torch.cat([rotation, -(rotation @ centres[..., None])], -1)


def report_image(index: int) -> ReportImage:
    name = HOSTILE if index == 7 else f"frame-{index:06d}.jpg"
    if index % 40 == 7:
        return ReportImage(
            name, False, "none", 4.0, "4.0 % of its cells agree <b>with</b> the map", noise_picture(index)
        )
    if index % 10 == 3:
        return ReportImage(name, True, "keypoints", 10.0, None, noise_picture(index))
    return ReportImage(name, True, "map", 20.0 + (index * 37) % 70, None, noise_picture(index))


def large_run(images: int = 125, points: int = 150_000) -> ReportContent:
    generator = torch.Generator().manual_seed(0)
    shown = tuple(report_image(index) for index in range(images))
    counts = [(60, 40), (100, 90), (120, 99), (121, 108)]
    rounds = tuple(
        ReportRound(label, registered, by_map, focal, training(steps))
        for label, (registered, by_map), focal, steps in zip(
            ("seed", "1", "2", "final"),
            counts,
            (536.8, 530.1, 528.0, 527.3),
            (600, 1000, 1000, 2500),
            strict=True,
        )
    )
    error = torch.rand(30, 40, generator=generator) * 12
    figure = plot_reprojection_error(noise_picture(0, (240, 320)), error)
    stages = ("loading", "seeds", "buffer", "mapping", "registration", "adjustment", "point cloud")
    return ReportContent(
        title="A kitchen",
        finished=True,
        images=shown,
        cam_from_world=circle_poses(images),
        points=torch.randn(points, 3, generator=generator) * torch.tensor([1.5, 0.5, 1.5]),
        colours=torch.randint(0, 256, (points, 3), generator=generator).byte(),
        aspect=4 / 3,
        rounds=rounds,
        stage_seconds={stage: 3.7 * (number + 1) for number, stage in enumerate(stages)},
        confidence_unit="% of cells",
        min_confidence=10.0,
        facts=(("images", str(images)), ("focal length", "527.3 px"), ("time", "3 min 51 s")),
        settings=(("command", "acezero reconstruct 'a folder' out"),),
        skipped=(("broken.jpg", "OSError: truncated"),),
        notes=(),
        close_looks=(CloseLook("The surest", "frame-000000.jpg", (("Errors.", figure),)),),
    )


def training(steps: int) -> tuple[TrainingProgress, ...]:
    return tuple(
        TrainingProgress(
            step,
            steps,
            3 + 14 * math.exp(-4 * step / steps),
            0.9 * (1 - math.exp(-3 * step / steps)),
            0.004,
            527.0,
        )
        for step in range(100, steps + 1, 100)
    )


def failed_run() -> ReportContent:
    """Interrupted after its seed, nothing registered, no file beside the poses."""
    content = large_run(images=3, points=0)
    images = tuple(
        replace(image, registered=False, placed_by="none", picture=None, reason=None, confidence=12.0)
        for image in content.images
    )
    return replace(
        content,
        finished=False,
        images=images,
        rounds=(),
        stage_seconds={},
        confidence_unit="cells",
        min_confidence=1.0,
        notes=("summary.json is missing.",),
        close_looks=(),
        skipped=(),
    )

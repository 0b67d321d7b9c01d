"""A run as a Nerfstudio data set: ``transforms.json`` beside a folder of images and a point cloud."""

import json
from pathlib import Path

import torch

from acezero_gpu.geometry import invert
from acezero_gpu.io.export_scene import ColouredPoints, ExportScene
from acezero_gpu.io.ply import write_points
from acezero_gpu.runtime.atomic import write_atomically

IMAGE_FOLDER = "images"
POINTS = "sparse_pc.ply"
TRANSFORMS = "transforms.json"


def write_nerfstudio(folder: Path, scene: ExportScene, cloud: ColouredPoints) -> None:
    """``transforms.json`` and ``sparse_pc.ply``; the images are to lie in ``folder / IMAGE_FOLDER``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_points(folder / POINTS, cloud.points, cloud.colours)
    write_transforms(folder, transforms(scene, (scene.width, scene.height)) | {"ply_file_path": POINTS})


def transforms(scene: ExportScene, size_px: tuple[int, int]) -> dict[str, object]:
    """The camera and the frames of a ``transforms.json`` for the scene's images at this width and height.

    As Nerfstudio's documentation states it: ``transform_matrix`` maps camera to world, camera axes are OpenGL's (x
    right, y up, z backward), one OPENCV camera for all images, whose ``k1, k2`` mean what they mean here. The world
    is that of the run, for cameras and points alike; Nerfstudio turns and scales it as its own settings say.
    """
    width, height = size_px
    frames = []
    matrices = _camera_to_world(scene)
    for row, name in enumerate(scene.file_names):
        frames.append(
            {
                "file_path": f"{IMAGE_FOLDER}/{name}",
                "transform_matrix": matrices[row].tolist(),
                "confidence": _finite(float(scene.views.confidence[row])),
            }
        )
    k1, k2 = scene.radial
    return {
        "camera_model": "OPENCV",
        "fl_x": scene.focal_px * width / scene.width,
        "fl_y": scene.focal_px * height / scene.height,
        "cx": width / 2,
        "cy": height / 2,
        "w": width,
        "h": height,
        "k1": k1,
        "k2": k2,
        "p1": 0.0,
        "p2": 0.0,
        "frames": frames,
    }


def write_transforms(folder: Path, content: dict[str, object]) -> None:
    """``transforms.json`` of a data set."""
    write_atomically(folder / TRANSFORMS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _camera_to_world(scene: ExportScene) -> torch.Tensor:
    """``(n, 4, 4)``, OpenGL camera axes."""
    world_from_cam = invert(scene.views.matrices.double())
    world_from_cam[..., 1:3] *= -1
    last = world_from_cam.new_tensor([[[0.0, 0.0, 0.0, 1.0]]]).expand(len(world_from_cam), 1, 4)
    return torch.cat([world_from_cam, last], dim=1)


def _finite(value: float) -> float | str:
    """JSON has no infinity."""
    return value if value != float("inf") else "inf"

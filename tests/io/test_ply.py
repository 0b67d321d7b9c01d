from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from acezero_gpu.data.camera_frusta import confidence_colours, frustum_corners
from acezero_gpu.io.ply import write_cameras, write_points

TYPES = {"float": "<f4", "uchar": "u1", "int": "<i4"}


def read_ply(path: Path) -> dict[str, np.ndarray]:
    """A plain reader of binary PLY that knows only what its header says; lists must have three entries."""
    data = path.read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    header = data[:end].decode("ascii").split("\n")
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    elements: list[tuple[str, int, list]] = []
    for line in header[2:]:
        words = line.split()
        if words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:2] == ["property", "list"]:
            elements[-1][2].extend([("count", TYPES[words[2]]), (words[4], TYPES[words[3]], 3)])
        elif words[:1] == ["property"]:
            elements[-1][2].append((words[2], TYPES[words[1]]))
    result = {}
    for name, count, fields in elements:
        result[name] = np.frombuffer(data, np.dtype(fields), count, end)
        end += result[name].nbytes
    assert end == len(data)
    return result


def positions(vertices: np.ndarray) -> np.ndarray:
    return np.stack([vertices["x"], vertices["y"], vertices["z"]], -1)


def test_points_come_back_without_those_that_are_not_finite(tmp_path: Path) -> None:
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    colours = torch.arange(300).remainder(256).to(torch.uint8).reshape(100, 3)
    broken = points.clone()
    broken[7, 1], broken[50, 0] = torch.nan, torch.inf
    write_points(tmp_path / "points.ply", broken, colours)
    vertices = read_ply(tmp_path / "points.ply")["vertex"]
    kept = np.delete(np.arange(100), [7, 50])
    assert np.array_equal(positions(vertices), points.numpy()[kept])
    assert np.array_equal(
        np.stack([vertices[c] for c in ("red", "green", "blue")], -1), colours.numpy()[kept]
    )


def test_cameras_are_thin_strips_along_their_edges(tmp_path: Path) -> None:
    rotations = Rotation.random(4, rng=np.random.default_rng(0)).as_matrix()
    centres = np.random.default_rng(1).normal(size=(4, 3))
    matrices = np.concatenate([rotations, -(rotations @ centres[..., None])], -1)
    colours = confidence_colours(torch.tensor([0.0, 500.0, 1000.0, torch.inf]))
    cam_from_world = torch.from_numpy(matrices).float()
    write_cameras(tmp_path / "cameras.ply", cam_from_world, colours, size=0.5)
    content = read_ply(tmp_path / "cameras.ply")
    vertices, faces = content["vertex"], content["face"]
    corners = frustum_corners(cam_from_world, 0.5).numpy()
    assert np.allclose(corners[:, 0], centres, atol=1e-5)
    nearest = np.linalg.norm(positions(vertices)[:, None] - corners.reshape(1, -1, 3), axis=-1)
    assert nearest.min(1).max() < 0.01
    assert set(nearest.argmin(1)) == set(range(20))
    assert len(faces) == 4 * 8 * 2
    triangles = positions(vertices)[faces["vertex_indices"]]
    areas = np.linalg.norm(
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1
    )
    assert areas.min() > 1e-4
    face_colours = np.stack([faces[c] for c in ("red", "green", "blue")], -1).reshape(4, 16, 3)
    assert np.array_equal(face_colours, np.broadcast_to(colours.numpy()[:, None], (4, 16, 3)))


def test_frustum_corners_project_to_the_corners_of_an_image() -> None:
    cam_from_world = torch.eye(4)[:3][None]
    corners = frustum_corners(cam_from_world, size=2.0, aspect=1.5, opening=0.5)[0]
    assert torch.equal(corners[0], torch.zeros(3))
    assert torch.equal(corners[1:, 2], torch.full((4,), 2.0))
    projected = corners[1:, :2] / corners[1:, 2:]
    assert torch.allclose(projected, torch.tensor([[-0.75, -0.5], [0.75, -0.5], [0.75, 0.5], [-0.75, 0.5]]))


def test_confidence_runs_from_rust_to_blue() -> None:
    low, high, more = confidence_colours(torch.tensor([0.0, 2000.0, torch.inf])).tolist()
    assert low[0] > 2 * low[1]
    assert high[2] > 2 * high[0]
    assert more == high

"""Frames with scene coordinates, true poses and outliers, for pose solvers to be compared on."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from acezero_gpu.cli.run import Run
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import resolve_images
from acezero_gpu.geometry import cell_centres_px, undistort_pixels
from acezero_gpu.network import SceneMap
from acezero_gpu.runtime import InputError
from benchmarks.workloads.relocalisation import Place

OUTLIER_SHARES = (0.3, 0.6, 0.8, 0.9)
NOISE_M = 0.02


@dataclass(frozen=True, slots=True)
class PoseCase:
    """Frames of one camera; everything in float64, as most solvers want it."""

    name: str
    points: NDArray[np.float64]
    """World points (frames, n, 3) in metres."""
    pixels: NDArray[np.float64]
    """Where all frames see them (n, 2)."""
    focal_px: float
    principal_point_px: tuple[float, float]
    size_px: tuple[int, int]
    cam_from_world: NDArray[np.float64]
    """True ``[R | t]`` (frames, 3, 4)."""
    max_error_px: float = 10.0

    def part(self, start: int, step: int) -> "PoseCase":
        """Every ``step``-th frame."""
        frames = slice(start, None, step)
        return self.frames(frames)

    def frames(self, frames: slice) -> "PoseCase":
        """Some of the frames."""
        rest = self.focal_px, self.principal_point_px, self.size_px
        return PoseCase(
            self.name,
            self.points[frames],
            self.pixels,
            *rest,
            self.cam_from_world[frames],
            self.max_error_px,
        )

    def errors(self, estimate: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rotation errors in degrees and distances of the centres in metres; infinite where NaN."""
        rotation, truth = estimate[:, :, :3], self.cam_from_world
        relative = np.einsum("fij,fkj->fik", rotation, truth[:, :, :3])
        sine = np.stack([relative[:, 2, 1] - relative[:, 1, 2], relative[:, 0, 2] - relative[:, 2, 0]])
        sine = np.sqrt((sine**2).sum(0) + (relative[:, 1, 0] - relative[:, 0, 1]) ** 2) / 2
        cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
        angle = np.degrees(np.arctan2(sine, cosine))
        centres = [-np.einsum("fji,fj->fi", pose[:, :, :3], pose[:, :, 3]) for pose in (estimate, truth)]
        distance = np.linalg.norm(centres[0] - centres[1], axis=-1)
        failed = np.isnan(estimate).any((1, 2))
        return np.where(failed, np.inf, angle), np.where(failed, np.inf, distance)


def grid_case(frames: int, outliers: float, seed: int = 0) -> PoseCase:
    """A grid of 80 x 60 cells of a 640 x 480 image, depths of 1 to 5 m, Gaussian noise of 2 cm.

    Outliers are uniform in the bounding box of the frame's points.
    """
    draw = np.random.default_rng([seed, round(100 * outliers)])
    columns, rows = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack([8 * columns.ravel() + 4, 8 * rows.ravel() + 4], axis=1).astype(np.float64)
    n, focal, principal = len(pixels), 525.0, (320.0, 240.0)
    rotation = Rotation.random(frames, random_state=draw).as_matrix()
    translation = draw.uniform(-3, 3, (frames, 3))
    rays = np.concatenate([(pixels - principal) / focal, np.ones((n, 1))], axis=1)
    in_camera = rays * draw.uniform(1, 5, (frames, n, 1))
    world = np.einsum("fji,fnj->fni", rotation, in_camera - translation[:, None])
    low, high = world.min(1, keepdims=True), world.max(1, keepdims=True)
    anywhere = draw.uniform(low, high, world.shape)
    noisy = world + draw.normal(0, NOISE_M, world.shape)
    wrong = draw.random((frames, n, 1)) < outliers
    poses = np.concatenate([rotation, translation[:, :, None]], axis=2)
    name = f"{100 * outliers:.0f} % outliers"
    return PoseCase(name, np.where(wrong, anywhere, noisy), pixels, focal, principal, (640, 480), poses)


def predicted_case(place: Place, map_file: Path, settings: Settings) -> PoseCase:
    """Scene coordinates that a map predicts for the queries of a place; the map must be in the true frame."""
    if not map_file.is_file():
        raise InputError(f"--map {map_file}: no such file; make one with acezero map and the true poses.")
    scene_map = SceneMap.load(map_file, settings.device)
    if scene_map.head.count > 1:
        raise InputError(f"--map {map_file}: is of several heads; make one with --heads 1.")
    with TemporaryDirectory(prefix="benchmark-") as temporary, RunLog("quiet") as log:
        folder = Path(temporary)
        images = resolve_images(str(place.queries.write_list(folder / "query.txt")), minimum=1)
        run = Run.start(folder / "run", settings, log, ["register"], overwrite=True)
        run = run.with_bank_settings(shortest_side_px=scene_map.shortest_side_px, feature_cache_bytes=0)
        bank = run.load_bank(images, keypoints=False, minimum=1)
    truth = place.queries.truth()
    stems = [Path(name).stem for name in place.queries.stems]
    rows = [stems.index(name) for name in truth.names]
    features = [bank.features(part) for part in torch.tensor(rows).split(16)]
    points = torch.cat([scene_map.scene_coordinates(part)[0] for part in features])
    camera = bank.camera(place.queries.focal_px)
    pixels = cell_centres_px(*features[0].shape[-2:], bank.encoder.stride, device=points.device)
    pixels = undistort_pixels(pixels, camera, torch.tensor(scene_map.radial, device=points.device))
    centre = camera.principal_point_px.tolist()
    return PoseCase(
        f"{place.mapping.name}, predicted",
        points.double().cpu().numpy() * place.unit_m,
        pixels.double().cpu().numpy(),
        float(camera.focal_px.mean()),
        (centre[0], centre[1]),
        (bank.width, bank.height),
        _in_metres(truth.matrices, place.unit_m),
        10.0 * bank.pixel_scale,
    )


def _in_metres(cam_from_world: torch.Tensor, unit_m: float) -> NDArray[np.float64]:
    poses = cam_from_world.double().cpu().numpy().copy()
    poses[:, :, 3] *= unit_m
    return poses

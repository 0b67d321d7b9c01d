"""pycolmap's incremental mapper on the CPU: SIFT, exhaustive matching, incremental mapping, one camera.

Reference: Schönberger and Frahm, Structure-from-Motion Revisited, CVPR 2016. All settings are pycolmap's own,
but for the single camera, the number of threads, and the random seed.
"""

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypose as pp
import torch

from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import PosedViews
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import SystemResult
from benchmarks.systems.ours import failure_sentence
from benchmarks.timing import Stages

CAMERA_MODEL = "SIMPLE_RADIAL"
"""One focal length, one coefficient of radial distortion, the principal point in the centre."""


def is_installed() -> bool:
    """Whether pycolmap can be imported."""
    return importlib.util.find_spec("pycolmap") is not None


def reconstruct_set(truth_set: TruthSet, settings: Settings, folder: Path) -> SystemResult:
    """Its largest model. It gets as many threads as this process' PyTorch, and no GPU."""
    import pycolmap  # optional, and slow to import: outside the measured time

    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    views: PosedViews | None = None
    details: dict[str, Any] = {}
    failure = None
    start = time.perf_counter()
    try:
        with _quiet():
            models = _models(truth_set, folder, settings.config.seed, stages)
        details = {
            "version": pycolmap.__version__,
            "models": sorted((m.num_reg_images() for m in models), reverse=True),
        }
        if models:
            largest = max(models, key=lambda model: model.num_reg_images())
            views = _views(largest)
            details |= {"focal_px": round(float(views.focal_px[0]), 3), "points": largest.num_points3D()}
        else:
            failure = "no initial pair of images was found"
    except Exception as error:  # one set that fails must not end the comparison of the others
        failure = failure_sentence(error, folder)
    return SystemResult(views, 1.0, time.perf_counter() - start, stages.seconds, failure, details)


def _models(truth_set: TruthSet, folder: Path, seed: int, stages: Stages) -> list[Any]:
    import pycolmap

    threads = torch.get_num_threads()
    pycolmap.set_random_seed(seed)
    database, image_folder = folder / "database.db", truth_set.images[0].parent
    database.unlink(missing_ok=True)
    extraction = pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False)
    matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
    mapping = pycolmap.IncrementalPipelineOptions(num_threads=threads, random_seed=seed)
    with stages("extract"):
        pycolmap.extract_features(
            database,
            image_folder,
            image_names=[path.name for path in truth_set.images],
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=pycolmap.ImageReaderOptions(camera_model=CAMERA_MODEL),
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
    with stages("match"):
        pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
    with stages("map"):
        sparse = folder / "sparse"
        sparse.mkdir(exist_ok=True)
        return list(pycolmap.incremental_mapping(database, image_folder, sparse, mapping).values())


def _views(model: Any) -> PosedViews:
    """Poses of the registered images; pycolmap's quaternions are ``x y z w``, as pypose's."""
    images = [image for image in model.images.values() if image.has_pose]
    images.sort(key=lambda image: image.name)
    rows, focals = [], []
    for image in images:
        pose = image.cam_from_world()
        rows.append([*pose.translation, *pose.rotation.quat])
        focals.append(float(model.cameras[image.camera_id].mean_focal_length()))
    names = tuple(Path(image.name).stem for image in images)
    pose = pp.SE3(torch.tensor(rows, dtype=torch.float64))
    return PosedViews(
        names, pose, torch.tensor(focals, dtype=torch.float64), torch.full((len(names),), torch.inf)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hundreds of lines that pycolmap writes about its progress."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before

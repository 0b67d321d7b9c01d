"""Bundle adjustment by this program and by pycolmap (Ceres): same start, same loss, same gauge, same stop."""

import time
from dataclasses import dataclass, replace

import pycolmap
import torch

from acezero_gpu.adjustment import BundleAdjustmentConfig, BundleProblem, bundle_adjust
from acezero_gpu.geometry import PinholeCamera
from benchmarks.timing import wait

LOSSES = {"squared": "TRIVIAL", "huber": "HUBER", "cauchy": "CAUCHY"}
"""Our names and pycolmap's; both give half the loss of the squared error."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What one adjustment gave and took."""

    cost: float
    """Final cost, in px²."""
    iterations: int
    """Steps tried."""
    seconds: float
    """Of the whole call; of pycolmap's, without building its problem."""
    cpu_seconds: float
    """Of all threads together in that time: what other programs on the machine disturb least."""
    setup_seconds: float
    """Of building its problem."""
    focal_px: float
    solver: str
    """The linear solver, or why it ended."""


def adjust_ours(problem: BundleProblem, config: BundleAdjustmentConfig, device: torch.device) -> Adjusted:
    """With the problem on the device before the clock runs."""
    there = on_device(problem, device)
    wait(device)
    start, cpu = time.perf_counter(), time.process_time()
    result = bundle_adjust(there, config)
    wait(device)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Adjusted(
        result.cost_final,
        result.iterations,
        seconds,
        cpu,
        0.0,
        float(result.camera.focal_px[0]),
        result.status.name.lower(),
    )


def adjust_pycolmap(problem: BundleProblem, config: BundleAdjustmentConfig, threads: int) -> Adjusted:
    """The same free parameters with COLMAP's own choice of linear solver; ``fixed_views`` must be given."""
    reconstruction = _reconstruction(problem, "RADIAL" if config.refine_radial else "SIMPLE_PINHOLE")
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = config.refine_focal
    options.refine_extra_params = config.refine_radial
    options.ceres.loss_function_type = getattr(pycolmap.LossFunctionType, LOSSES[config.loss])
    options.ceres.loss_function_scale = config.loss_scale_px
    options.ceres.solver_options.function_tolerance = config.cost_tolerance
    options.ceres.solver_options.gradient_tolerance = 0.0
    options.ceres.solver_options.max_num_iterations = config.max_iterations
    options.ceres.solver_options.num_threads = threads
    chosen = pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.images:
        chosen.add_image(image_id)
    assert problem.fixed_views is not None
    for view in problem.fixed_views.nonzero()[:, 0].tolist():
        chosen.set_constant_rig_from_world_pose(reconstruction.images[view + 1].frame_id)
    start = time.perf_counter()
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, chosen, reconstruction)
    built, cpu = time.perf_counter(), time.process_time()
    summary = adjuster.solve().ceres_summary
    seconds, cpu = time.perf_counter() - built, time.process_time() - cpu
    return Adjusted(
        summary.final_cost,
        summary.num_successful_steps + summary.num_unsuccessful_steps,
        seconds,
        cpu,
        built - start,
        float(reconstruction.cameras[1].params[0]),
        summary.linear_solver_type_used.name.lower(),
    )


def on_device(problem: BundleProblem, device: torch.device) -> BundleProblem:
    """The same problem there."""
    names = ("cam_from_world", "points", "view_index", "point_index", "pixels", "fixed_views")
    moved = {name: getattr(problem, name).to(device) for name in names}
    camera = PinholeCamera(problem.camera.focal_px.to(device), problem.camera.principal_point_px.to(device))
    return replace(problem, camera=camera, **moved)


def _reconstruction(problem: BundleProblem, model: str) -> pycolmap.Reconstruction:
    reconstruction = pycolmap.Reconstruction()
    parameters = [float(problem.camera.focal_px[0]), *problem.camera.principal_point_px.tolist()]
    parameters += [0.0, 0.0] if model == "RADIAL" else []
    reconstruction.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model=model, width=640, height=480, params=parameters)
    )
    order = problem.view_index.argsort(stable=True)
    counts = torch.bincount(problem.view_index, minlength=len(problem.cam_from_world))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[problem.view_index[order]]
    groups = problem.pixels[order].split(counts.tolist())
    for view, (pose, pixels) in enumerate(zip(problem.cam_from_world.numpy(), groups, strict=True)):
        image = pycolmap.Image(name=str(view), image_id=view + 1, camera_id=1, keypoints=pixels.numpy())
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    tracks = [pycolmap.Track() for _ in range(len(problem.points))]
    for view, point, slot in zip(
        problem.view_index.tolist(), problem.point_index.tolist(), place.tolist(), strict=True
    ):
        tracks[point].add_element(view + 1, slot)
    for point, track in zip(problem.points.numpy(), tracks, strict=True):
        reconstruction.add_point3D(point, track)
    return reconstruction

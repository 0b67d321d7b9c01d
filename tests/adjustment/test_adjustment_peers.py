"""Joint adjustment against COLMAP and SciPy."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import scipy.optimize
import torch
from adjustment_scenes import EVERYTHING, disturbed, make_scene, with_outliers
from scipy.spatial.transform import Rotation

from acezero_gpu.adjustment import BundleProblem, bundle_adjust


def colmap_adjust(problem: BundleProblem, loss: str, scale_px: float) -> tuple[float, np.ndarray]:
    """Final cost and camera parameters of COLMAP's adjustment; focal length and radial terms are free."""
    reconstruction = pycolmap.Reconstruction()
    focal, centre = float(problem.camera.focal_px[0]), problem.camera.principal_point_px.tolist()
    parameters = [focal, *centre, *problem.radial.tolist()]
    reconstruction.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="RADIAL", width=640, height=480, params=parameters)
    )
    place = {}
    for view, pose in enumerate(problem.cam_from_world.numpy()):
        mine = (problem.view_index == view).nonzero()[:, 0].tolist()
        place |= {k: (view + 1, n) for n, k in enumerate(mine)}
        keypoints = problem.pixels[mine].numpy()
        image = pycolmap.Image(name=str(view), image_id=view + 1, camera_id=1, keypoints=keypoints)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    for point, coordinates in enumerate(problem.points.numpy()):
        track = pycolmap.Track()
        for k in (problem.point_index == point).nonzero()[:, 0].tolist():
            track.add_element(*place[k])
        reconstruction.add_point3D(coordinates, track)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = getattr(pycolmap.LossFunctionType, loss)
    options.ceres.loss_function_scale = scale_px
    options.ceres.solver_options.function_tolerance = 1e-12
    options.ceres.solver_options.max_num_iterations = 300
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in reconstruction.images:
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    summary = pycolmap.create_default_ceres_bundle_adjuster(options, config, reconstruction).solve()
    return summary.ceres_summary.final_cost, reconstruction.cameras[1].params


@pytest.mark.parametrize(
    ("ours", "theirs"), [("squared", "TRIVIAL"), ("huber", "HUBER"), ("cauchy", "CAUCHY")]
)
def test_cost_and_camera_are_those_of_colmap(generator, ours, theirs):
    scene = make_scene(generator, noise_px=1.0, radial=(0.1, -0.05))
    problem = with_outliers(disturbed(scene, generator, focal_factor=1.1), generator)
    result = bundle_adjust(problem, replace(EVERYTHING, loss=ours, loss_scale_px=2.0))
    cost, parameters = colmap_adjust(problem, theirs, 2.0)
    assert result.cost_final < 0.5 * result.cost_initial
    assert result.cost_final == pytest.approx(cost, rel=1e-4)
    assert float(result.camera.focal_px[0]) == pytest.approx(parameters[0], rel=1e-3)
    assert result.radial.tolist() == pytest.approx(parameters[3:], abs=5e-3)


@pytest.mark.parametrize("loss", ["squared", "huber", "cauchy"])
def test_cost_is_that_of_scipy(generator, loss):
    """SciPy minimises the same robust cost over the same parameters with numerical derivatives."""
    scale = 1.5
    scene = make_scene(generator, views=4, points=10, seen_by=4, noise_px=0.7)
    problem = with_outliers(disturbed(scene, generator), generator)
    weights = 0.5 + torch.rand(len(problem.pixels), generator=generator, dtype=torch.float64)
    fixed = torch.tensor([True, True, False, False])
    problem = replace(problem, weights=weights, fixed_views=fixed)
    view, point, pixels = (x.numpy() for x in (problem.view_index, problem.point_index, problem.pixels))
    poses, points = problem.cam_from_world.numpy(), problem.points.numpy()
    focal, centre = 500.0, problem.camera.principal_point_px.numpy()

    def residuals(x: np.ndarray) -> np.ndarray:
        steps = np.concatenate([np.zeros((2, 6)), x[1:13].reshape(2, 6)])
        cam = np.einsum("kij,kj->ki", poses[view, :, :3], (points + x[13:].reshape(-1, 3))[point])
        turn = Rotation.from_rotvec(steps[:, 3:]).as_matrix()
        cam = np.einsum("kij,kj->ki", turn[view], cam + poses[view, :, 3]) + steps[view, :3]
        error = focal * np.exp(x[0]) * cam[:, :2] / cam[:, 2:] + centre - pixels
        norm = np.linalg.norm(error, axis=1)
        if loss == "huber":
            cost = np.where(norm < scale, norm**2, 2 * scale * norm - scale**2)
        elif loss == "cauchy":
            cost = scale**2 * np.log(1 + (norm / scale) ** 2)
        else:
            cost = norm**2
        # Two numbers per observation whose squares add up to its cost: smoother than the root of the cost.
        return (error * (np.sqrt(weights.numpy() * cost) / norm)[:, None]).ravel()

    start = np.zeros(13 + points.size)
    expected = scipy.optimize.least_squares(
        residuals, start, ftol=1e-12, xtol=1e-10, x_scale="jac", max_nfev=100
    )
    config = replace(EVERYTHING, refine_radial=False, loss=loss, loss_scale_px=scale)
    result = bundle_adjust(problem, config)
    assert result.cost_initial == pytest.approx(0.5 * float((residuals(start) ** 2).sum()), rel=1e-9)
    assert result.cost_final == pytest.approx(expected.cost, rel=1e-5)
    assert float(result.camera.focal_px[0]) == pytest.approx(500.0 * np.exp(expected.x[0]), rel=1e-3)
    assert torch.equal(result.cam_from_world[:2], problem.cam_from_world[:2])

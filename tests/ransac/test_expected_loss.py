"""The expected pose loss: its terms against naive twins, its gradient by finite differences, its failures."""

import math
import warnings

import pytest
import torch
from reference.posed_scene import make_scene
from reference.slow_absolute_pose import score_one

from acezero_gpu.geometry import PinholeCamera, camera_centres, retract, rotation_angle_deg
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.expected_loss import (
    PoseDistribution,
    PoseDistributionConfig,
    pose_loss,
    sample_pose_distribution,
)

F64 = torch.float64
FEW = PoseDistributionConfig(hypotheses=8, attempts=8, alpha=20.0)


def noisy_scene(batch=2, outliers=0.3, dtype=F64, device="cpu", noise_px=3.0, size=(6, 8)):
    return make_scene(
        batch,
        rows=size[0],
        columns=size[1],
        noise_px=noise_px,
        outliers=outliers,
        dtype=dtype,
        device=device,
    )


def expected_loss(scene, points, config=FEW, **kwargs):
    """The distribution, and its expected loss per image."""
    distribution = sample_pose_distribution(points, scene.pixels, scene.camera, config, **kwargs)
    truth = scene.cam_from_world.to(points)[:, None]
    return distribution, distribution.expected(pose_loss(distribution.cam_from_world, truth))


def test_probabilities_are_the_softmax_of_the_naive_score(device):
    scene = noisy_scene(device=device)
    distribution, expected = expected_loss(scene, scene.points)
    focal, principal = scene.camera.focal_px.cpu().numpy(), scene.camera.principal_point_px.cpu().numpy()
    pixels = scene.pixels.cpu().numpy()
    usable = [True] * len(pixels)
    poses, points = distribution.cam_from_world.cpu().numpy(), scene.points.cpu().numpy()
    for i in range(2):
        scores = [
            score_one(poses[i, j], points[i], pixels, usable, focal, principal, 10.0, "soft")
            for j in range(8)
        ]
        naive = torch.tensor(scores, dtype=F64).mul(20.0 / len(pixels)).softmax(0)
        ours = distribution.log_probabilities[i].exp().cpu()
        assert distribution.valid[i].all()
        assert torch.allclose(ours, naive, rtol=1e-9)
        loss = pose_loss(distribution.cam_from_world[i].cpu(), scene.cam_from_world[i].cpu())
        assert expected[i].item() == pytest.approx((naive * loss).sum().item(), rel=1e-9)
        assert distribution.entropy()[i].item() == pytest.approx(
            -(naive * naive.log()).sum().item(), rel=1e-9
        )


@pytest.mark.parametrize("name", ["points", "pixels", "focal", "principal"])
def test_gradient_by_finite_differences_with_the_same_samples(name):
    scene = noisy_scene(outliers=0.2)
    g = torch.Generator().manual_seed(4)
    leaves = {
        "points": scene.points,
        "pixels": scene.pixels,
        "focal": scene.camera.focal_px,
        "principal": scene.camera.principal_point_px,
    }
    config = PoseDistributionConfig(hypotheses=6, attempts=8, alpha=20.0, refinement_iterations=20)

    def total(**changed):
        values = leaves | changed
        camera = PinholeCamera(values["focal"], values["principal"])
        distribution = sample_pose_distribution(values["points"], values["pixels"], camera, config)
        return distribution.expected(
            pose_loss(distribution.cam_from_world, scene.cam_from_world[:, None])
        ).sum()

    value = leaves[name].clone().requires_grad_()
    gradient = torch.autograd.grad(total(**{name: value}), value)[0]
    step = 1e-5 if name == "points" else 1e-3  # poses settle to about 1e-9
    for _ in range(3):
        direction = torch.randn(value.shape, generator=g, dtype=F64)
        ends = [total(**{name: leaves[name] + sign * step * direction}).item() for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=5e-4)


def test_the_gradient_comes_both_by_poses_and_by_probabilities():
    scene = noisy_scene(outliers=0.5)
    points = scene.points.clone().requires_grad_()
    distribution, whole = expected_loss(scene, points)
    loss = pose_loss(distribution.cam_from_world, scene.cam_from_world[:, None])
    parts = [
        (distribution.log_probabilities.exp() * loss.detach()).sum(),
        (distribution.log_probabilities.exp().detach() * loss).sum(),
    ]
    grads = [torch.autograd.grad(p, points, retain_graph=True)[0] for p in [whole.sum(), *parts]]
    assert all(g.abs().max() > 1e-3 for g in grads)
    assert torch.allclose(grads[0], grads[1] + grads[2], rtol=1e-9, atol=1e-12)


def test_alpha_reaches_from_equal_shares_to_the_best_alone():
    scene = noisy_scene(outliers=0.5)
    flat, medium, hard = (
        expected_loss(scene, scene.points, PoseDistributionConfig(hypotheses=16, alpha=alpha))[0]
        for alpha in (1e-3, 30.0, 1e6)
    )
    assert torch.allclose(flat.entropy(), torch.full_like(flat.entropy(), math.log(16)), atol=1e-3)
    assert (medium.entropy() < flat.entropy()).all()
    # Hypotheses that share their inliers end in the same pose: together they have all the probability.
    same = (hard.cam_from_world - hard.most_likely()[:, None]).abs().amax((-1, -2)) < 1e-6
    assert not same.all()
    assert torch.where(same, hard.log_probabilities.exp(), 0).sum(-1).min() > 0.99


@pytest.mark.parametrize("case", ["equal", "collinear", "outliers only", "masked", "NaN", "camera"])
def test_a_failed_image_has_a_status_and_no_gradient_and_disturbs_nobody(device, dtype, case):
    scene = noisy_scene(3, dtype=dtype, device=device)
    points, mask = scene.points.clone(), torch.ones(3, 48, dtype=torch.bool, device=device)
    camera = PinholeCamera(scene.camera.focal_px.repeat(3, 1), scene.camera.principal_point_px.repeat(3, 1))
    expected_status = PoseStatus.TOO_FEW_POINTS
    if case == "equal":
        points[1], expected_status = points[1, :1].clone(), PoseStatus.NO_HYPOTHESIS
    elif case == "collinear":
        line = torch.linspace(1, 2, 48, device=device, dtype=dtype)[:, None]
        points[1], expected_status = line * torch.ones(3).to(line), PoseStatus.NO_HYPOTHESIS
    elif case == "outliers only":
        box = 1e4 * torch.rand(48, 3, generator=torch.Generator().manual_seed(0)).to(points)
        points[1], expected_status = box, None
    elif case == "masked":
        mask[1, 3:] = False
    elif case == "NaN":
        points[1, 3:] = torch.nan
    elif case == "camera":
        camera.focal_px[1] = torch.nan
    leaf, focal = points.requires_grad_(), camera.focal_px.requires_grad_()
    distribution = sample_pose_distribution(leaf, scene.pixels, camera, FEW, mask=mask)
    truth = scene.cam_from_world.to(leaf)[:, None]
    expected = distribution.expected(pose_loss(distribution.cam_from_world, truth), without_hypothesis=7.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly mode warns that it is slow
        with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
            gradient, focal_gradient = torch.autograd.grad(expected.sum(), [leaf, focal])
    clean, clean_expected = expected_loss(scene, clean_leaf := scene.points.clone().requires_grad_())
    clean_gradient = torch.autograd.grad(clean_expected.sum(), clean_leaf)[0]
    assert (distribution.status[[0, 2]] == PoseStatus.OK).all()
    assert torch.equal(gradient[[0, 2]], clean_gradient[[0, 2]])
    assert torch.equal(distribution.cam_from_world[[0, 2]], clean.cam_from_world[[0, 2]])
    assert gradient.isfinite().all()
    assert focal_gradient.isfinite().all()
    if expected_status is not None:
        assert distribution.status[1] == expected_status
        assert expected[1] == 7.0
        assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
        assert torch.equal(focal_gradient[1], torch.zeros_like(focal_gradient[1]))
        assert not distribution.valid[1].any()
        assert (distribution.log_probabilities[1] == -torch.inf).all()
        assert distribution.entropy()[1] == 0


def test_invalid_hypotheses_count_nothing_whatever_their_loss():
    log_probabilities = torch.tensor([[0.25, 0.75, 0.0]], dtype=F64).log()
    valid = torch.tensor([[True, True, False]])
    poses = torch.eye(3, 4, dtype=F64).expand(1, 3, 3, 4)
    distribution = PoseDistribution(poses, log_probabilities, valid, torch.zeros(1, dtype=torch.int64))
    loss = torch.tensor([[4.0, 8.0, torch.nan]], dtype=F64, requires_grad=True)
    expected = distribution.expected(loss)
    assert torch.allclose(expected, torch.tensor([7.0], dtype=F64))
    gradient = torch.autograd.grad(expected.sum(), loss)[0]
    assert torch.allclose(gradient, torch.tensor([[0.25, 0.75, 0.0]], dtype=F64))
    assert distribution.most_likely().shape == (1, 3, 4)


def test_hypotheses_that_do_not_arrive_at_a_minimum_are_left_out():
    """One step each is too few for those that start far away; all arrive with more."""
    scene = noisy_scene(4, noise_px=5.0, outliers=0.0)
    one = PoseDistributionConfig(hypotheses=32, refinement_rounds=1, refinement_iterations=1)
    hasty = expected_loss(scene, scene.points, one)[0]
    patient = expected_loss(scene, scene.points, PoseDistributionConfig(hypotheses=32))[0]
    assert patient.valid.float().mean() > 0.95
    assert 0 < hasty.valid.float().mean() < 0.9
    assert torch.equal(hasty.log_probabilities.isinf(), ~hasty.valid)
    assert torch.allclose(hasty.log_probabilities.exp().sum(-1), hasty.valid.any(-1).double())
    identity = torch.eye(3, 4, dtype=F64)
    assert torch.equal((hasty.cam_from_world == identity).all(-1).all(-1), ~hasty.valid)


def test_images_without_points_are_results_too():
    scene = noisy_scene(2)
    for n in (0, 2):
        distribution = sample_pose_distribution(scene.points[:, :n], scene.pixels[:n], scene.camera, FEW)
        assert distribution.status.tolist() == [PoseStatus.TOO_FEW_POINTS] * 2
        assert not distribution.valid.any()
    none = sample_pose_distribution(scene.points[:0], scene.pixels, scene.camera, FEW)
    assert none.cam_from_world.shape == (0, 8, 3, 4)


def test_the_same_generator_gives_the_same_distribution():
    scene = noisy_scene()
    runs = [
        sample_pose_distribution(
            scene.points, scene.pixels, scene.camera, FEW, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0].cam_from_world, runs[1].cam_from_world)
    assert not torch.equal(runs[0].cam_from_world, runs[2].cam_from_world)


def test_pose_loss_is_angle_and_distance_and_bends_at_the_clamp():
    scene = noisy_scene(4)
    truth = scene.cam_from_world
    near = retract(truth, 0.02 * torch.ones(4, 6, dtype=F64))
    plain = rotation_angle_deg(near[..., :3], truth[..., :3])
    plain = plain + 50 * (camera_centres(near) - camera_centres(truth)).norm(dim=-1)
    assert torch.allclose(pose_loss(near, truth, deg_per_unit=50.0), plain)
    bent = pose_loss(near, truth, deg_per_unit=50.0, clamp=1.0)
    assert torch.allclose(bent, plain.sqrt())
    assert (plain > 1).all()


@pytest.mark.parametrize("angle_deg", [0.0, 180.0])
def test_pose_loss_has_a_finite_gradient_where_angles_have_none(dtype, angle_deg):
    truth = torch.eye(3, 4, dtype=dtype)
    turn = torch.zeros(6, dtype=dtype)
    turn[4] = math.radians(angle_deg)
    estimate = retract(truth, turn).requires_grad_()
    loss = pose_loss(estimate, truth)
    gradient = torch.autograd.grad(loss, estimate)[0]
    assert gradient.isfinite().all()
    if angle_deg == 0:
        assert torch.equal(gradient, torch.zeros_like(gradient))
    # A small step away it points the right way.
    turn[4] += 1e-2
    away = retract(truth, turn).detach().requires_grad_()
    slope = torch.autograd.grad(pose_loss(away, truth), away)[0]
    assert slope.abs().max() > 10


def test_scene_coordinates_learn_from_the_pose_error_alone():
    """A few steps on noisy coordinates, which see nothing but the true pose, and other samples at each step."""
    scene = make_scene(4, rows=8, columns=10, noise_px=6.0, outliers=0.2, dtype=torch.float32)
    points = scene.points.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.01)
    config = PoseDistributionConfig(hypotheses=16, attempts=8)
    history = []
    for step in range(25):
        generator = torch.Generator().manual_seed(step)
        _, expected = expected_loss(scene, points, config, generator=generator)
        optimizer.zero_grad()
        expected.sum().backward()
        optimizer.step()
        history.append(expected.mean().item())
    fresh = torch.Generator().manual_seed(1000)
    after = expected_loss(scene, points.detach(), config, generator=fresh)[1].mean().item()
    assert after < 0.5 * history[0]


def test_no_value_is_asked_for_on_the_way_there_and_back():
    """On the meta device tensors have no values: whatever would wait for the device raises."""
    scene = noisy_scene()
    points = scene.points.to("meta").requires_grad_()
    camera = scene.camera.to("meta")
    distribution = sample_pose_distribution(points, scene.pixels.to("meta"), camera, FEW)
    loss = pose_loss(distribution.cam_from_world, scene.cam_from_world.to("meta")[:, None])
    distribution.expected(loss).sum().backward()
    assert points.grad.shape == points.shape


@pytest.mark.parametrize(
    "kwargs",
    [{"hypotheses": 0}, {"attempts": 0}, {"refinement_rounds": 0}, {"alpha": 0.0}, {"max_error_px": 0.0}],
)
def test_settings_without_sense_are_named(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}.* must be"):
        PoseDistributionConfig(**kwargs)


def test_inputs_of_the_wrong_shape_are_named():
    scene = noisy_scene()
    with pytest.raises(ValueError, match=r"points must have the shape \(batch, n, 3\)"):
        sample_pose_distribution(scene.points[0], scene.pixels, scene.camera)

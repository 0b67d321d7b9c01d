"""Poses to be refined from inputs that require gradients."""

import torch
from reference.posed_scene import make_scene

from acezero_gpu.geometry import PinholeCamera, retract
from acezero_gpu.pnp import PoseRefinement, RefinementConfig

F64 = torch.float64


INPUTS = ["points", "pixels", "focal", "principal", "weights", "scale"]


GRADIENTS = ["implicit", "unrolled"]


CONVERGING = [("squared", 10.0), ("huber", 1.0), ("cauchy", 3.0), ("tukey", 30.0), ("truncated", 30.0)]


def make_inputs(batch=2, size=(3, 4), noise_px=1.0, dtype=F64, device="cpu", start=0.02):
    """Leaves that require gradients, and poses near the truth."""
    scene = make_scene(batch, rows=size[0], columns=size[1], noise_px=noise_px, dtype=F64)
    g = torch.Generator().manual_seed(3)
    n = scene.points.shape[1]
    values = {
        "points": scene.points,
        "pixels": scene.pixels.expand(batch, n, 2),
        "focal": scene.camera.focal_px.expand(batch, 2),
        "principal": scene.camera.principal_point_px.expand(batch, 2),
        "weights": 0.5 + torch.rand(batch, n, generator=g, dtype=F64),
        "scale": torch.full((batch,), 10.0, dtype=F64),
    }
    leaves = {k: v.to(device, dtype).clone().requires_grad_() for k, v in values.items()}
    initial = retract(scene.cam_from_world, start * torch.randn(batch, 6, generator=g, dtype=F64))
    return leaves, initial.to(device, dtype)


def refine(inputs, initial, gradient="implicit", loss="squared", iterations=25):
    layer = PoseRefinement(RefinementConfig(iterations=iterations, loss=loss), gradient=gradient)
    camera = PinholeCamera(inputs["focal"], inputs["principal"])
    return layer(
        inputs["points"],
        inputs["pixels"],
        camera,
        initial,
        weights=inputs["weights"],
        loss_scale_px=inputs["scale"],
    )


def gradients_of(inputs, initial, gradient="implicit", loss="squared", iterations=25):
    """The record, and the gradient of a fixed random combination of its poses' and costs' entries."""
    result = refine(inputs, initial, gradient, loss, iterations)
    g = torch.Generator().manual_seed(7)
    shares = torch.randn(initial.shape[-2:], generator=g, dtype=F64).to(initial)
    total = (result.cam_from_world * shares).sum() + 1e-3 * result.cost.sum()
    grads = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    zeros = [torch.zeros_like(value) for value in inputs.values()]
    return result, {k: z if v is None else v for k, v, z in zip(inputs, grads, zeros, strict=True)}

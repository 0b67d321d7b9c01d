"""gsplat's rasterization on a CPU: its own PyTorch projection and colours, with every Gaussian at every pixel."""

import torch
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)


def rasterization(*, means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree, packed):
    """Pictures ``(c, h, w, 3)``, opacity ``(c, h, w, 1)`` and what ``gsplat.DefaultStrategy`` reads."""
    assert not packed
    covariances, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        means, covariances, viewmats, Ks, width, height
    )
    centres = torch.linalg.inv(viewmats)[:, :3, 3]
    directions = means[None] - centres[:, None]
    coefficients = colors[None].expand(len(viewmats), -1, -1, -1)
    rgb = (_spherical_harmonics(sh_degree, directions, coefficients) + 0.5).clamp_min(0)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).view(-1, 1, 2)
    pictures, covered = [], []
    for view in range(len(viewmats)):
        seen = (radii[view] > 0).all(-1).nonzero()[:, 0]
        seen = seen[depths[view, seen].argsort()]
        apart = pixels - means2d[view, seen]
        a, b, c = conics[view, seen].unbind(-1)
        dx, dy = apart.unbind(-1)
        exponent = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (opacities[seen] * (-exponent).exp()).clamp_max(0.999)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
        through = torch.cumprod(1 - alpha, dim=1)
        weight = alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
        pictures.append((weight @ rgb[view, seen]).view(height, width, 3))
        covered.append(weight.sum(1).view(height, width, 1))
    info = {
        "means2d": means2d,
        "radii": radii,
        "width": width,
        "height": height,
        "n_cameras": len(viewmats),
        "gaussian_ids": None,
    }
    return torch.stack(pictures), torch.stack(covered), info

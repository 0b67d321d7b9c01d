"""A walk with a turn of the camera on the spot, as points, places of the views, and who sees what."""

import torch

WALK, TURN = 8, 6


def walk_with_turn(
    device: torch.device,
    across: int = 0,
    *,
    second_scale: float = 1.0,
    second_step: float = 1.0,
    turn_length: float = 1e-3,
    turn_sees_both: bool = False,
) -> tuple[torch.Tensor, ...]:
    """A camera walks past a wall, turns, and walks on past another: points, centres, observations.

    The views of the turn stand on a line of ``turn_length``; half of them see the first wall, half the second, or all
    see both, and every view sees a hundred points as good as infinitely far. ``across`` points near by are seen by
    every view. The second wall is ``second_scale`` times as large and as far away, the second walk has steps of
    ``second_step``.
    """
    random = torch.Generator().manual_seed(0)
    steps = torch.arange(WALK).float()
    first = torch.stack([steps - WALK, 0 * steps, 0 * steps], dim=1)
    turn = torch.zeros(TURN, 3)
    turn[:, 1] = torch.linspace(0, turn_length, TURN)
    second = torch.stack([0 * steps, 0 * steps, second_step * (steps + 1)], dim=1)
    centres = torch.cat([first, turn, second])
    walls = [
        4 * torch.rand(60, 3, generator=random) + torch.tensor(place) for place in ([-4.0, 0, 5], [5.0, 0, 4])
    ]
    walls[1] *= second_scale
    far = 1e5 * torch.nn.functional.normalize(torch.randn(100, 3, generator=random), dim=1)
    near = torch.rand(across, 3, generator=random) + torch.tensor([0.0, 2, 0])
    views = torch.arange(len(centres))
    until, since = (WALK + TURN, WALK) if turn_sees_both else (WALK + TURN // 2, WALK + TURN // 2)
    seers = [views[:until], views[since:], views, views]
    groups = [*walls, far, near]
    points = torch.cat(groups)
    view = torch.cat([v.repeat(len(group)) for v, group in zip(seers, groups, strict=True)])
    count = torch.cat([torch.full((len(group),), len(v)) for v, group in zip(seers, groups, strict=True)])
    point = torch.arange(len(points)).repeat_interleave(count)
    mixed = torch.randperm(len(view), generator=random)
    return tuple(x.to(device) for x in (points, centres, view[mixed], point[mixed]))

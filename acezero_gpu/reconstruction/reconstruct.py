"""The loop: seed, map, register, grow, refit (ACE0, ECCV 2024), in one process."""

from collections.abc import Callable, Iterator

from acezero_gpu.data.depth import DepthSource
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.network import Head
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.rounds import Loop, Round, adjusted, refining_round
from acezero_gpu.reconstruction.seed_round import seed_round
from acezero_gpu.reconstruction.state import ReconstructionState, ReconstructionStep
from acezero_gpu.reconstruction.stopping import should_stop
from acezero_gpu.runtime import StageTimer


def reconstruct(
    bank: ImageBank,
    camera: PinholeCamera,
    config: LoopConfig,
    *,
    depth: DepthSource | None = None,
    seed: int = 0,
    timer: StageTimer | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> Iterator[ReconstructionStep]:
    """Poses, focal length and a map from images alone (ACE0's algorithm); yields after every round.

    ``camera`` (in pixels of the network image) is the starting guess; ``depth``, if given, replaces
    two-view geometry at the seeds. Raises ``ReconstructionError`` when no two
    images give a start.
    """
    loop = Loop(bank, config, seed, timer or StageTimer(bank.device), log)
    step, state, head = seed_round(loop, camera, depth)
    yield step
    best_share = state.share
    iteration = 0
    reason: str | None = None
    while reason is None:
        iteration += 1
        adjust = config.joint.when == "every"
        state = adjusted(loop, state, adjust, iteration)
        round_ = refining_round(config, "iteration", iteration, adjust)
        step, state, head = _mapping_round(
            loop, round_, state, head if config.warm_start else None, best_share
        )
        reason = step.stop_reason
        best_share = max(best_share, state.share)
        yield step
    adjust = config.joint.when != "off"
    state = adjusted(loop, state, adjust, iteration + 1)
    final = refining_round(config, "final", iteration + 1, adjust)
    step, state, _ = _mapping_round(loop, final, state, None, best_share)
    yield step


def _mapping_round(
    loop: Loop, round_: Round, state: ReconstructionState, head: Head | None, best_share: float
) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    frames = state.registered.nonzero()[:, 0]
    mapped = loop.map(
        round_, frames, state.cam_from_world[frames], state.camera, head=head, radial=state.radial
    )
    scene_map = loop.scene_map(mapped, state.radial)
    state = loop.register(scene_map, mapped.camera, state.radial, round_)
    if round_.name == "final":
        state = adjusted(loop, state, loop.config.joint.when != "off", round_.index + 1)
    reason = (
        "finished"
        if round_.name == "final"
        else should_stop(state.share, best_share, round_.index, loop.config.stopping)
    )
    step = loop.step(round_, frames, mapped, scene_map, state, reason)
    loop.log(
        f"{round_.name} {round_.index}: mapped {len(frames)} images in {mapped.iterations} steps "
        f"(inliers {100 * mapped.inlier_share:.0f} %), registered {step.registered} of {len(loop.bank)}, "
        f"focal {loop.bank.focal_original_px(mapped.camera):.1f} px" + (f"; {reason}" if reason else "")
    )
    return step, state, mapped.head

"""``acezero map``: a map from photographs whose poses are known."""

from dataclasses import replace
from pathlib import Path

import torch

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.given import focal_is_guessed, given_of, read_given, shared_focal_px
from acezero_gpu.cli.memory_size import memory_bytes
from acezero_gpu.cli.output import say
from acezero_gpu.cli.ranks import all_ranks
from acezero_gpu.cli.run import Run
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.settings import Settings, heads_flags, resolve_settings
from acezero_gpu.data import resolve_images
from acezero_gpu.io import write_pose_file
from acezero_gpu.mapping import FrameTable, MappingResult, TrainingProgress
from acezero_gpu.reconstruction import ImageBank, ReconstructionState, parallel
from acezero_gpu.reconstruction.final_map import final_training
from acezero_gpu.reconstruction.plan import mapping_work
from acezero_gpu.reconstruction.rounds import Loop, adjusted, scene_map_of
from acezero_gpu.reconstruction.state import posed_state, to_posed_views
from acezero_gpu.runtime import InputError, random_stream
from acezero_gpu.runtime.progress import expect

MAP_DEFAULTS = {
    "loop.training.poses.name": "none",
    "loop.joint.when": "off",
    "loop.training.loss.name": "dyntanh",
}
"""Given poses are taken to be right unless the user says otherwise, and a given focal length with them; the loss is
that of a last round."""


def map_(
    images: opt.Images,
    out: opt.Out,
    poses: opt.Poses,
    allow_missing: opt.AllowMissing = False,
    pose_refinement: opt.PoseRefinementName = None,
    pose_refinement_wait: opt.PoseRefinementWait = None,
    refine_joint: opt.MapRefineJoint = None,
    heads: opt.Heads = None,
    focal_px: opt.FocalPx = None,
    fix_focal: opt.FixFocal = False,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    seed: opt.Seed = None,
    encoder: opt.EncoderChoice = None,
    buffer_device: opt.BufferDeviceChoice = None,
    memory_budget: opt.MemoryBudget = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_json: opt.LogJson = None,
) -> None:
    """A map from photographs whose poses are known, and those poses refined."""
    flags = {
        "seed": seed,
        "encoder": encoder,
        "bank.buffer.device": buffer_device,
        "bank.memory_budget_bytes": memory_bytes(memory_budget, "--memory-budget"),
        "loop.training.poses.name": pose_refinement,
        "loop.training.poses.wait": pose_refinement_wait,
        "loop.joint.when": refine_joint,
        **heads_flags(heads),
        "loop.fix_focal": fix_focal or None,
    }
    settings = resolve_settings(device, preset, config, flags, set_, command_defaults=MAP_DEFAULTS)
    if heads is not None and heads > 1 and settings.config.loop.training.poses.reestimates:
        raise InputError(f"--heads {heads}: poses are re-estimated against one head only; leave out --heads.")
    with all_ranks(settings) as settings, RunLog(verbosity(quiet, verbose), log_json) as log:
        line = map_folder(images, out, poses, settings, log, focal_px, allow_missing, overwrite)
    say(line)


def map_folder(
    images: str,
    out: Path,
    poses: str,
    settings: Settings,
    log: RunLog,
    focal_px: float | None,
    allow_missing: bool,
    overwrite: bool,
) -> str:
    """Load, train one map, save; the line to end with."""
    image_set = resolve_images(images)
    given = read_given(poses, image_set, focal_px, allow_missing=allow_missing)
    command: list[str | Path] = ["map", images, out, "--poses", poses]
    command += ["--focal-px", f"{focal_px:g}"] if focal_px else []
    command += ["--allow-missing"] if allow_missing else []
    run = Run.start(out, settings, log, command, overwrite=overwrite, reads=[poses])
    adjusts = settings.config.loop.joint.when != "off"
    bank = run.load_bank(image_set, keypoints=adjusts)
    given = given_of(given, bank.images.image_set)
    camera = bank.camera(shared_focal_px(given, poses, focal_px, log))
    state = posed_state(bank, given.matrices, given.confidence > 0, camera)
    if adjusts:
        loop = Loop(bank, settings.config.loop, settings.config.seed, run.timer, log.line)
        state = adjusted(loop, state, True, 0)
        if not bool(state.registered.any()):
            raise RunFailedError(
                f"{poses}: keypoints contradict all poses; give better ones, or no --refine-joint."
            )
    return _save(run, bank, state, _train(run, bank, state, guessed=focal_is_guessed(poses, focal_px)))


def _train(run: Run, bank: ImageBank, state: ReconstructionState, *, guessed: bool) -> MappingResult:
    """The map; a focal length that is given moves only if the poses do: a few images would not hold it."""
    config = run.settings.config
    loop = config.loop
    frames = state.registered.nonzero()[:, 0]
    size = loop.final_map.with_encoder(bank.encoder.identifier)
    training, heads = final_training(size, loop.training, loop.training.poses, len(frames), run.log.line)
    expect("", mapping_work(bank, training, loop.final_schedule, len(frames), heads))
    with run.timer.stage("buffer"):
        parallel.fill_buffer(bank, frames.cpu())
    moves = guessed or loop.training.poses.name != "none"
    refines_focal = moves and not loop.fix_focal and loop.joint.when == "off"  # an adjustment knows it better
    training = replace(
        training,
        schedule=loop.final_schedule,
        calibration=replace(loop.training.calibration, refine=refines_focal),
    ).scaled(bank.pixel_scale)
    radial = state.radial if bool(state.radial.any()) else None  # a lens without distortion costs nothing
    table = FrameTable(frames, state.cam_from_world[frames], state.camera, radial)

    def report(entry: TrainingProgress) -> None:
        run.log.line(
            f"  step {entry.iteration} of {entry.total_iterations}: loss {entry.loss:.2f}, "
            f"inliers {100 * entry.inlier_share:.0f} %"
        )

    with run.timer.stage("mapping"):
        return parallel.train(
            bank,
            table,
            training,
            generator=random_stream(config.seed, "mapping", "given poses", device=bank.device),
            heads=heads,
            progress=report,
        )


def _save(run: Run, bank: ImageBank, state: ReconstructionState, mapped: MappingResult) -> str:
    path = run.folder.path / "map.safetensors"
    scene_map = scene_map_of(bank, mapped, state.radial)
    scene_map.save(path)
    poses = state.cam_from_world.clone()
    poses[state.registered] = mapped.cam_from_world
    confidence = torch.where(state.registered, torch.inf, 0.0)
    write_pose_file(
        run.folder.path / "poses_mapped.txt", to_posed_views(bank, poses, confidence, mapped.camera)
    )
    count = int(state.registered.sum())
    focal_original_px = bank.focal_original_px(mapped.camera)
    figures = {
        "mapped": count,
        "focal_px": round(focal_original_px, 3),
        "radial": [round(value, 6) for value in scene_map.radial],
        "iterations": mapped.iterations,
        "heads": mapped.head.count,
        "inlier_share": round(mapped.inlier_share, 4),
    }
    run.write_summary(bank.images.image_set, figures)
    line = (
        f"mapped {count} of {len(bank)} images, {100 * mapped.inlier_share:.0f} % inliers, "
        f"focal {focal_original_px:.1f} px, {run.log.seconds:.0f} s → {path}"
    )
    run.log.line(f" {line}")
    return line

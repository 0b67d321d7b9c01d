"""``acezero map``: a map from photographs whose poses are known."""

from dataclasses import replace
from pathlib import Path

import torch

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.output import say
from acezero_gpu.cli.run import Run
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.settings import Settings, resolve_settings
from acezero_gpu.data import ImageSet, PosedViews, resolve_images
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.io import read_poses, write_pose_file
from acezero_gpu.mapping import FrameTable, MappingResult, TrainingProgress, train_map
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.plan import mapping_work
from acezero_gpu.reconstruction.state import to_posed_views
from acezero_gpu.runtime import InputError, random_stream
from acezero_gpu.runtime.progress import expect

MAP_DEFAULTS = {"loop.training.poses.name": "none", "loop.training.loss.name": "dyntanh"}
"""Given poses are taken to be right unless the user says otherwise; the loss is that of a last round."""
FOCAL_SPREAD = 0.01
"""Given focal lengths that differ by a larger share than this deserve a warning."""


def map_(
    images: opt.Images,
    out: opt.Out,
    poses: opt.Poses,
    allow_missing: opt.AllowMissing = False,
    pose_refinement: opt.PoseRefinementName = None,
    pose_refinement_wait: opt.PoseRefinementWait = None,
    focal_px: opt.MapFocalPx = None,
    fix_focal: opt.FixFocal = False,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    seed: opt.Seed = None,
    encoder: opt.EncoderChoice = None,
    buffer_device: opt.BufferDeviceChoice = None,
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
        "loop.training.poses.name": pose_refinement,
        "loop.training.poses.wait": pose_refinement_wait,
        "loop.fix_focal": fix_focal or None,
    }
    settings = resolve_settings(device, preset, config, flags, set_, command_defaults=MAP_DEFAULTS)
    with RunLog(verbosity(quiet, verbose), log_json) as log:
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
    _read_given(poses, image_set, focal_px, allow_missing)  # wrong files are told before the folder is made
    command: list[str | Path] = ["map", images, out, "--poses", poses]
    command += ["--focal-px", f"{focal_px:g}"] if focal_px else []
    command += ["--allow-missing"] if allow_missing else []
    run = Run.start(out, settings, log, command, overwrite=overwrite)
    bank = run.load_bank(image_set, keypoints=False)
    given = _read_given(poses, bank.images.image_set, focal_px, allow_missing, log)
    frames = (given.confidence > 0).nonzero()[:, 0]
    focal = given.focal_px[frames]
    if float(focal.max() / focal.min()) > 1 + FOCAL_SPREAD:
        log.warn(
            f"{poses}: focal lengths from {float(focal.min()):.1f} to {float(focal.max()):.1f} px; one "
            "camera is assumed, their median is taken."
        )
    mapped = _train(
        run, bank, frames, given.matrices[frames].to(bank.device), bank.camera(float(focal.median()))
    )
    return _save(run, bank, frames, mapped)


def _read_given(
    poses: str, image_set: ImageSet, focal_px: float | None, allow_missing: bool, log: RunLog | None = None
) -> PosedViews:
    """The given poses by image. Matrices bring no focal length: it is guessed then, with a warning."""
    focal = focal_px
    if focal is None and not Path(poses).is_file():
        focal = float(PinholeCamera.guess(image_set.width, image_set.height).focal_px[0])
        if log is not None:
            log.warn(f"no --focal-px: starting from a guess of {focal:.1f} px, 0.7 of the image diagonal.")
    given = read_poses(poses, image_set.names, focal, allow_missing=allow_missing)
    lost = (given.confidence <= 0).nonzero()[:, 0]
    if len(lost) and not allow_missing:
        raise InputError(
            f"{poses}: image {given.names[int(lost[0])]} has no valid pose there; leave the image out, "
            "or give --allow-missing."
        )
    if len(lost) == len(given.names):
        raise InputError(f"{poses}: none of the {len(lost)} images has a valid pose there.")
    return given


def _train(
    run: Run, bank: ImageBank, frames: torch.Tensor, cam_from_world: torch.Tensor, camera: PinholeCamera
) -> MappingResult:
    config = run.settings.config
    loop = config.loop
    expect("", mapping_work(bank, loop.training, loop.final_schedule, len(frames)))
    with run.timer.stage("buffer"):
        bank.fill_buffer(frames)
    training = replace(
        loop.training,
        schedule=loop.final_schedule,
        calibration=replace(loop.training.calibration, refine=not loop.fix_focal),
    ).scaled(bank.pixel_scale)
    table = FrameTable(frames.to(bank.device), cam_from_world, camera)

    def report(entry: TrainingProgress) -> None:
        run.log.line(
            f"  step {entry.iteration} of {entry.total_iterations}: loss {entry.loss:.2f}, "
            f"inliers {100 * entry.inlier_share:.0f} %"
        )

    with run.timer.stage("mapping"):
        return train_map(
            bank.buffer,
            table,
            training,
            generator=random_stream(config.seed, "mapping", "given poses", device=bank.device),
            progress=report,
        )


def _save(run: Run, bank: ImageBank, frames: torch.Tensor, mapped: MappingResult) -> str:
    shortest = min(bank.height, bank.width)
    focal = float(mapped.camera.focal_px.mean())
    path = run.folder.path / "map.safetensors"
    SceneMap(mapped.head, bank.encoder.identifier, shortest, focal / shortest).save(path)
    poses = torch.eye(3, 4, device=bank.device).repeat(len(bank), 1, 1)
    confidence = torch.zeros(len(bank), device=bank.device)
    rows = frames.to(bank.device)
    poses[rows], confidence[rows] = mapped.cam_from_world, torch.inf
    write_pose_file(
        run.folder.path / "poses_mapped.txt", to_posed_views(bank, poses, confidence, mapped.camera)
    )
    focal_original_px = bank.focal_original_px(mapped.camera)
    figures = {
        "mapped": len(frames),
        "focal_px": round(focal_original_px, 3),
        "iterations": mapped.iterations,
        "inlier_share": round(mapped.inlier_share, 4),
    }
    run.write_summary(bank.images.image_set, figures)
    line = (
        f"mapped {len(frames)} of {len(bank)} images, {100 * mapped.inlier_share:.0f} % inliers, "
        f"focal {focal_original_px:.1f} px, {run.log.seconds:.0f} s → {path}"
    )
    run.log.line(f" {line}")
    return line

"""``acezero reconstruct``: from photographs to poses, focal length and a map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.frames import frame_selection, frames_of_run, named_video, refuse_video_flags
from acezero_gpu.cli.memory_size import memory_bytes
from acezero_gpu.cli.output import say
from acezero_gpu.cli.point_cloud import map_points
from acezero_gpu.cli.ranks import all_ranks
from acezero_gpu.cli.report import report_after_run
from acezero_gpu.cli.run import Run
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.settings import Settings, heads_flags, resolve_settings
from acezero_gpu.cli.start import Start, given_poses, load_start, starting_camera
from acezero_gpu.cli.video import film_of_run
from acezero_gpu.data import PosedViews, find_depth_files, resolve_images
from acezero_gpu.data.frame_selection import FrameSelection
from acezero_gpu.data.point_tracks import track_colours
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.io import SavedTracks, write_history, write_points, write_pose_file, write_tracks
from acezero_gpu.io.run_folder import REGISTERED_FROM
from acezero_gpu.io.run_reader import rounds_of
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction import GivenPoses, ImageBank, ReconstructionStep
from acezero_gpu.reconstruction import reconstruct as run_loop
from acezero_gpu.reconstruction.history import RunHistory
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.progress import Work
from acezero_gpu.viz import plot_reconstruction

VIDEO_S, REPORT_S = 6.0, 4.0
"""Typical seconds of the film, and of the report."""
PICTURE_S, POINTS_S = 1.5, 0.02
"""Typical seconds of the last picture, and per image of the point cloud."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished reconstruction has to say."""

    views: PosedViews
    """Poses of all images."""
    registered: int
    """Images with enough inliers."""
    min_confidence: float
    """How many inliers are enough."""
    seconds: float
    """From the start to the last file."""
    line: str
    """The last line of the output."""


def reconstruct(
    images: exchange.ImagesOrVideo,
    out: opt.Out,
    focal_px: opt.FocalPx = None,
    fix_focal: opt.FixFocal = False,
    heads: opt.Heads = None,
    depth: opt.Depth = None,
    poses: opt.StartPoses = None,
    fix_poses: opt.FixPoses = False,
    seed_map: opt.SeedMap = None,
    refine_joint: opt.RefineJointWhen = None,
    fps: exchange.Fps = None,
    every: exchange.Every = None,
    min_sharpness: exchange.MinSharpness = 0.0,
    max_frames: exchange.ReconstructMaxFrames = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    seed: opt.Seed = None,
    encoder: opt.EncoderChoice = None,
    buffer_device: opt.BufferDeviceChoice = None,
    memory_budget: opt.MemoryBudget = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    video: opt.Video = False,
    log_json: opt.LogJson = None,
) -> None:
    """Poses, focal length and a map from photographs alone, or from a video."""
    flags = {
        "seed": seed,
        "encoder": encoder,
        "bank.buffer.device": buffer_device,
        "bank.memory_budget_bytes": memory_bytes(memory_budget, "--memory-budget"),
        "loop.joint.when": refine_joint,
        "loop.fix_focal": fix_focal or None,
        **heads_flags(heads),
    }
    settings = resolve_settings(device, preset, config, flags, set_)
    frames = frame_selection(fps, every, min_sharpness, max_frames or exchange.VIDEO_FRAMES)
    if named_video(images) is None:
        refuse_video_flags(images, fps, every, min_sharpness, max_frames)
    with all_ranks(settings) as settings, RunLog(verbosity(quiet, verbose), log_json) as log:
        try:
            outcome = reconstruct_folder(
                images,
                out,
                settings,
                log,
                focal_px=focal_px,
                start=Start(depth, poses, fix_poses, seed_map),
                frames=frames,
                overwrite=overwrite,
                film=video,
                report=not no_report,
            )
        except RunFailedError:
            # Its rounds show why it failed.
            if not no_report:
                report_after_run(out, settings.device, log)
            raise
        page = None if no_report else report_after_run(out, settings.device, log)
    say(outcome.line)
    if page is not None:
        say(f"report → {page}")


def reconstruct_folder(
    images: str,
    out: Path,
    settings: Settings,
    log: RunLog,
    *,
    focal_px: float | None = None,
    start: Start = Start(),
    frames: FrameSelection | None = None,
    overwrite: bool = False,
    film: bool = False,
    report: bool = False,
) -> Outcome:
    """Load, run the loop, and save every round as it ends: an interrupted run keeps what it had.

    ``frames`` says which ones to take if ``images`` is a video; they stay in the folder's ``frames``.
    ``film`` adds one; ``report`` says that the caller will make one, which takes time.
    ``RunFailedError`` if no image is registered; what was made until then stays in the folder.
    """
    start.check()
    if settings.config.loop.fix_focal and focal_px is None and start.poses is None and start.seed_map is None:
        raise InputError("--fix-focal: say with --focal-px at which value.")
    frames = frames or FrameSelection()
    video = named_video(images)
    image_set = resolve_images(images) if video is None else None
    # Wrong files are told before the folder is made; of a video no image is there yet.
    loaded = None if image_set is None else load_start(start, image_set, settings, focal_px)
    command: list[str | Path] = ["reconstruct", images, out]
    command += ["--focal-px", f"{focal_px:g}"] if focal_px else []
    command += start.command()
    command += ["--video"] if film else []
    command += frames.flags() if video is not None else []
    reads = [start.poses, start.depth, start.seed_map]
    run = Run.start(out, settings, log, command, overwrite=overwrite, reads=reads)
    if image_set is None:
        assert video is not None
        with run.timer.stage("frames"):
            image_set = resolve_images(frames_of_run(video, out, frames, log))
    if loaded is None:
        loaded = load_start(start, image_set, settings, focal_px)
    if loaded.scene_map is not None:
        run = run.with_bank_settings(shortest_side_px=loaded.scene_map.shortest_side_px)
    bank = run.load_bank(image_set, keypoints=True)
    given = given_poses(loaded, bank.images.image_set, start.fix_poses)
    camera = starting_camera(bank, start, loaded, focal_px, log)
    works = [Work("point cloud", PICTURE_S + POINTS_S * len(bank))]
    works += [Work("video", VIDEO_S, "frames")] if film else []
    works += [Work("report", REPORT_S)] if report else []
    run.log.afterwards(*works)
    step = _run_loop(run, bank, camera, start, given, loaded.scene_map)
    return _finish(run, bank, step, given, film)


def _write_poses(path: Path, views: PosedViews, given: GivenPoses | None) -> None:
    """Fixed poses are written with every digit that they came with."""
    if given is not None and given.fixed:
        views = given.into_views(views, torch.float64)
    write_pose_file(path, views)


def _run_loop(
    run: Run,
    bank: ImageBank,
    camera: PinholeCamera,
    start: Start,
    given: GivenPoses | None,
    seed_map: SceneMap | None,
) -> ReconstructionStep:
    """All rounds, saved as they end; the last one."""
    config = run.settings.config
    step: ReconstructionStep | None = None
    image_set = bank.images.image_set
    history = RunHistory.start(bank, config.loop, poses_fixed=given is not None and given.fixed)
    rounds = run_loop(
        bank,
        camera,
        config.loop,
        depth=None if start.depth is None else find_depth_files(start.depth, image_set.names),
        given=given,
        seed_map=seed_map,
        seed=config.seed,
        timer=run.timer,
        log=run.log.line,
    )
    for step in rounds:
        _write_poses(run.folder.poses_preliminary(step.index), step.preliminary, given)
        _write_poses(run.folder.poses(step.index), step.views, given)
        if step.scene_map is not None:
            step.scene_map.save(run.folder.map(step.index))
        history = history.after(step, run.timer.seconds)
        write_history(run.folder.history, history)
        run.log.registered(step.registered, len(bank))
        if step.registered == 0:
            raise RunFailedError(
                f"No image could be registered after round {step.index}; give sharper or more strongly "
                "overlapping images, their --focal-px, or --preset quality."
            )
    assert step is not None, "the loop yields at least its seed"
    if history.uncertain_scale is not None:
        run.log.warn(history.uncertain_scale)
    return step


def _finish(
    run: Run, bank: ImageBank, step: ReconstructionStep, given: GivenPoses | None, film: bool
) -> Outcome:
    settings, folder = run.settings, run.folder
    cells = bank.grid[0] * bank.grid[1]
    min_confidence = settings.config.loop.registration.min_inlier_share * cells
    assert step.scene_map is not None, "the final round trains a map"
    _write_poses(folder.poses_final, step.views, given)
    figures = _figures(step, min_confidence, _write_tracks(run, bank, step))
    # What follows are pictures of the result: were one of them to fail, the result is finished all the same.
    run.write_summary(bank.images.image_set, figures)
    with run.timer.stage("point cloud"):
        cloud = map_points(bank, step.scene_map, step.views, min_confidence, settings.config.seed)
        write_points(folder.point_cloud, cloud.points, cloud.colours)
        shown = torch.where(step.views.registered(min_confidence), step.views.confidence, 0.0)
        plot_reconstruction(
            folder.path / "reconstruction.png",
            cloud.points,
            cloud.colours,
            step.views.matrices,
            # The scale of the colours is that of a picture of 4800 cells, ACE0's.
            shown * (4800 / cells),
            title=folder.path.name,
            aspect=bank.width / bank.height,
        )
    if film:
        try:
            with run.timer.stage("video"):
                film_of_run(folder.video, rounds_of(folder), step.views, min_confidence, cloud, bank)
        except RunFailedError as error:  # the reconstruction itself is in order
            run.log.warn(str(error))
    figures["points"] = len(cloud.points)
    run.write_summary(bank.images.image_set, figures)
    line = (
        f"registered {step.registered} of {len(bank)} images, focal {float(step.views.focal_px[0]):.1f} px, "
        f"{run.log.seconds:.0f} s → {folder.poses_final}"
    )
    run.log.line(f" {line}")
    return Outcome(step.views, step.registered, min_confidence, run.log.seconds, line)


def _figures(step: ReconstructionStep, min_confidence: float, tracks: int) -> dict[str, Any]:
    """What the summary says of the poses."""
    return {
        "registered": step.registered,
        "registered_by_map": step.registered_by_map,
        "focal_px": round(float(step.views.focal_px[0]), 3),
        "iterations": step.index,
        "stop_reason": step.stop_reason,
        REGISTERED_FROM: round(min_confidence, 3),
        "radial": [round(value, 6) for value in step.radial],
        "tracks": tracks,
    }


def _write_tracks(run: Run, bank: ImageBank, step: ReconstructionStep) -> int:
    """Keep the points of the last adjustment, if the poses stem from one; their number."""
    if step.tracks is None:
        return 0
    image_set = bank.images.image_set
    with run.timer.stage("tracks"):
        size_px = (image_set.width, image_set.height), (bank.width, bank.height)
        colours = track_colours(step.tracks, image_set.paths, *size_px)
        write_tracks(run.folder.tracks, SavedTracks(image_set.names, step.tracks, colours))
    return len(step.tracks.points)

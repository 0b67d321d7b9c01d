"""``acezero register``: poses of photographs in a map that exists."""

from pathlib import Path

import torch

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.given import focal_of_map, load_map
from acezero_gpu.cli.output import say
from acezero_gpu.cli.ranks import all_ranks
from acezero_gpu.cli.run import Run
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.settings import Settings, resolve_settings
from acezero_gpu.data import resolve_images
from acezero_gpu.io import write_pose_file
from acezero_gpu.io.run_folder import REGISTERED_FROM
from acezero_gpu.reconstruction import parallel
from acezero_gpu.reconstruction.plan import registration_work
from acezero_gpu.reconstruction.state import to_posed_views
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.progress import expect


def register(
    images: opt.Images,
    map_file: opt.MapFile,
    out: opt.Out,
    focal_px: opt.RegisterFocalPx = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    seed: opt.Seed = None,
    encoder: opt.EncoderChoice = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_json: opt.LogJson = None,
) -> None:
    """Poses of photographs in a map that exists."""
    settings = resolve_settings(device, preset, config, {"seed": seed, "encoder": encoder}, set_)
    with all_ranks(settings) as settings, RunLog(verbosity(quiet, verbose), log_json) as log:
        line = register_folder(
            images, map_file, out, settings, log, focal_px, overwrite, encoder_given=encoder is not None
        )
    say(line)


def register_folder(
    images: str,
    map_file: Path,
    out: Path,
    settings: Settings,
    log: RunLog,
    focal_px: float | None,
    overwrite: bool,
    *,
    encoder_given: bool = True,
) -> str:
    """Load, register, save; the line to end with. ``RunFailedError`` if no image is registered.

    Unless the encoder was given, a map of another encoder of the package is taken with that one.
    """
    scene_map, settings = load_map(map_file, settings, encoder_given)
    image_set = resolve_images(images, minimum=1)
    command: list[str | Path] = ["register", images, map_file, out]
    command += ["--focal-px", f"{focal_px:g}"] if focal_px else []
    run = Run.start(out, settings, log, command, overwrite=overwrite, reads=[map_file])
    # Every image is encoded once only: nothing to keep.
    run = run.with_bank_settings(shortest_side_px=scene_map.shortest_side_px, feature_cache_bytes=0)
    bank = run.load_bank(image_set, keypoints=False, minimum=1)
    image_set = bank.images.image_set
    focal = focal_px or focal_of_map(scene_map, image_set, log)
    config = settings.config.loop.registration
    expect("", [registration_work(bank, scene_map.head.count)])
    with run.timer.stage("registration"):
        found = parallel.register(
            bank,
            scene_map,
            bank.camera(focal),
            config,
            radial=torch.tensor(scene_map.radial, device=bank.device),
            generator=random_stream(settings.config.seed, "registration", "queries"),
        )
    count = int(found.registered(config).sum())
    log.registered(count, len(bank))
    views = to_posed_views(bank, found.cam_from_world, found.inlier_count.float(), bank.camera(focal))
    path = run.folder.path / "poses.txt"
    write_pose_file(path, views)
    threshold = round(config.min_inlier_share * found.cells, 3)
    figures = {
        "registered": count,
        "focal_px": round(focal, 3),
        REGISTERED_FROM: threshold,
        "map": str(map_file),
    }
    run.write_summary(image_set, figures)
    if count == 0:
        raise RunFailedError(
            f"No image could be registered in {map_file}; is it the same place, and --focal-px right?"
        )
    line = f"registered {count} of {len(bank)} images, focal {focal:.1f} px, {log.seconds:.0f} s → {path}"
    log.line(f" {line}")
    return line

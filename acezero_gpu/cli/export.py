"""``acezero export``: a finished run in the formats of other programs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError, as_input_error
from acezero_gpu.cli.given import cells_of_run, settings_of_run
from acezero_gpu.cli.output import say
from acezero_gpu.cli.point_cloud import exported_points
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.config import ReconstructionConfig
from acezero_gpu.data import ImageSet, PosedViews, load_grey
from acezero_gpu.data.camera_frusta import confidence_colours, scene_extent
from acezero_gpu.geometry import camera_centres
from acezero_gpu.io import FinishedRun, SavedTracks, open_run, read_tracks, write_cameras, write_points
from acezero_gpu.io.colmap_export import colmap_model
from acezero_gpu.io.colmap_writer import write_colmap_binary, write_colmap_text
from acezero_gpu.io.export_scene import ColouredPoints, ExportScene, export_scene, tracks_of_scene
from acezero_gpu.io.frame_folder import frame_times
from acezero_gpu.io.nerfstudio import IMAGE_FOLDER, write_nerfstudio
from acezero_gpu.io.placed_images import place_images
from acezero_gpu.io.point_text import write_point_text
from acezero_gpu.io.run_folder import RunFolder
from acezero_gpu.io.trajectory import write_kitti, write_tum
from acezero_gpu.network import SceneMap, make_encoder
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.map_cloud import CloudConfig
from acezero_gpu.runtime import InputError, resolve_device

TARGETS = {
    "colmap": ("colmap/sparse/0/images.bin", "colmap/sparse_text/images.txt"),
    "nerfstudio": ("nerfstudio/transforms.json",),
    "ply": ("point_cloud.ply", "cameras.ply"),
    "txt": ("point_cloud.txt",),
    "tum": ("trajectory_tum.txt",),
    "kitti": ("trajectory_kitti.txt",),
}
"""Every format, and the files in OUT that show that it was exported before."""
TELL_EVERY = 16
"""Images between two words about the progress."""
FRUSTUM_SHARE = 0.05
"""Depth of a drawn camera, as a share of the cameras' extent."""


def export(
    run: exchange.RunDir,
    to: exchange.ExportTo,
    out: exchange.ExportOut = None,
    images: exchange.MovedImages = None,
    min_confidence: exchange.ExportMinConfidence = None,
    dense: exchange.Dense = False,
    opengl: exchange.OpenGl = False,
    copy_images: exchange.CopyImages = False,
    camera_size: exchange.CameraSize = None,
    device: opt.Device = "auto",
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """A finished reconstruction for COLMAP, Nerfstudio and others; docs/exports.md says what each file holds."""
    formats = _formats(to)
    with as_input_error():
        place = resolve_device(device)
    with RunLog(verbosity(quiet, verbose)) as log:
        finished = open_run(run, images=images)
        scene = export_scene(finished, finished.min_confidence if min_confidence is None else min_confidence)
        if not scene.file_names:
            raise RunFailedError(
                f"{run}: no image is registered there, so there is nothing to export; --min-confidence 0 exports "
                "all images as they are."
            )
        exporter = _Exporter(
            finished, scene, out or run / "export", place, log, CloudConfig(dense=dense), opengl, copy_images,
            camera_size,
        )  # fmt: skip
        exporter.require_possible(formats, overwrite)
        for name in formats:
            log.stage(name)
            getattr(exporter, name)()
    say(
        f"exported {len(scene.file_names)} of {len(finished.views.names)} images as {', '.join(formats)}, "
        f"{log.seconds:.0f} s → {exporter.out}"
    )


def _formats(given: list[str]) -> list[str]:
    """Each wanted format once, in the order that they were given."""
    wanted = [name.strip().lower() for text in given for name in text.split(",") if name.strip()]
    unknown = next((name for name in wanted if name not in TARGETS), None)
    if unknown is not None or not wanted:
        raise InputError(f"--to {unknown or ''}: choose from {', '.join(TARGETS)}.")
    return list(dict.fromkeys(wanted))


@dataclass(frozen=True)
class _Exporter:
    """One method per format; what several of them need is computed once."""

    run: FinishedRun
    scene: ExportScene
    out: Path
    device: torch.device
    log: RunLog
    cloud_config: CloudConfig
    opengl: bool
    copy: bool
    camera_size: float | None

    def require_possible(self, formats: list[str], overwrite: bool) -> None:
        """``InputError`` before anything is written, if files are in the way or images that a format needs lack."""
        missing = len(self.run.views.names) - len(self.scene.file_names)
        if missing and "kitti" in formats:
            raise InputError(
                f"--to kitti: {missing} images are not registered, and a line number is all that names an image "
                "there; export tum instead."
            )
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is not a folder; give another one.")
        for name in formats:
            for target in TARGETS[name]:
                if (self.out / target).exists() and not overwrite:
                    raise InputError(
                        f"{self.out / target}: is there already; give another folder, or --overwrite to replace it."
                    )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.out}: cannot be made ({error.strerror}); give another folder."
            ) from error

    def colmap(self) -> None:
        folder = self.out / "colmap"
        self._place_images(folder / "images")
        points: SavedTracks | ColouredPoints = self.tracks or self.cloud
        model = colmap_model(self.scene, points)
        write_colmap_binary(folder / "sparse" / "0", model)
        write_colmap_text(folder / "sparse_text", model)
        kind = "tracked" if self.tracks else "points of the map, without tracks"
        self.log.line(f"colmap: {len(model.points.ids)} points ({kind})")

    def nerfstudio(self) -> None:
        folder = self.out / "nerfstudio"
        self._place_images(folder / IMAGE_FOLDER)
        write_nerfstudio(folder, self.scene, self.cloud)

    def ply(self) -> None:
        write_points(self.out / "point_cloud.ply", self.cloud.points * self._flip, self.cloud.colours)
        centres = camera_centres(self.scene.views.matrices)
        write_cameras(
            self.out / "cameras.ply",
            self.scene.views.matrices * torch.cat([self._flip, torch.ones(1)]),
            confidence_colours(self.scene.views.confidence * (4800 / cells_of_run(self.run, self.config))),
            size=self.camera_size or FRUSTUM_SHARE * 2 * scene_extent(centres),
            aspect=self.scene.width / self.scene.height,
            opening=self.scene.height / (2 * self.scene.focal_px),
        )

    def txt(self) -> None:
        write_point_text(self.out / "point_cloud.txt", self.cloud.points * self._flip, self.cloud.colours)

    def tum(self) -> None:
        times = frame_times(self.run.image_paths)
        if times is None:
            self.log.line("tum: no times of frames, so the timestamps are the images' numbers")
            times = list(map(float, range(len(self.run.views.names))))
        time_of = dict(zip(self.run.views.names, times, strict=True))
        write_tum(
            self.out / "trajectory_tum.txt",
            self.scene.views,
            [time_of[name] for name in self.scene.views.names],
        )

    def kitti(self) -> None:
        write_kitti(self.out / "trajectory_kitti.txt", self.scene.views)

    @cached_property
    def config(self) -> ReconstructionConfig:
        """The settings of the run."""
        return settings_of_run(self.run)

    @cached_property
    def tracks(self) -> SavedTracks | None:
        """The points of the run's last adjustment; None if there are none."""
        path = RunFolder(self.run.path).tracks
        found = tracks_of_scene(read_tracks(path), self.scene) if path.is_file() else None
        return found if found is not None and len(found.tracks.points) else None

    @cached_property
    def cloud(self) -> ColouredPoints:
        """Points of the run's last map, as the exported images see them."""
        last = self.run.rounds[-1] if self.run.rounds else None
        if last is None or last.scene_map is None:
            raise InputError(
                f"{self.run.path}: the map of its last round (map_*.safetensors) is missing; make the run again."
            )
        with as_input_error():
            scene_map = SceneMap.load(last.scene_map, self.device)
        self.log.stage("point cloud")
        bank, views = self._bank(scene_map)
        return exported_points(
            bank, scene_map, views, self.cloud_config, self.config.seed, self._progress("images predicted")
        )

    def _bank(self, scene_map: SceneMap) -> tuple[ImageBank, PosedViews]:
        """The images that can be decoded, and their poses in the same order."""
        scene, config = self.scene, self.config
        with as_input_error():
            encoder = make_encoder(config.encoder, self.device)
        images = load_grey(
            ImageSet(scene.views.names, scene.images(), scene.width, scene.height),
            scene_map.shortest_side_px,
            minimum=1,
        )
        # Every image is encoded once only: nothing to keep.
        settings = replace(config.bank, shortest_side_px=scene_map.shortest_side_px, feature_cache_bytes=0)
        row_of = {name: row for row, name in enumerate(scene.views.names)}
        rows = [row_of[name] for name in images.image_set.names]
        views = scene.views.subset(rows)
        return ImageBank(images, images, encoder, settings, self.device, config.seed), views

    @cached_property
    def _flip(self) -> torch.Tensor:
        """The exported world's axes in those of the run."""
        return torch.tensor([1.0, -1.0, -1.0] if self.opengl else [1.0, 1.0, 1.0])

    def _place_images(self, folder: Path) -> None:
        turned = place_images(folder, self.scene, copy=self.copy, progress=self._progress("images placed"))
        if turned:
            self.log.line(f"{turned} images were written upright, as their EXIF orientation says")

    def _progress(self, what: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if done % TELL_EVERY == 0 or done == total:
                self.log.line(f"  {done} of {total} {what}")

        return tell

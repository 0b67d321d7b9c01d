"""From matches and rough poses to adjusted poses: tracks, triangulation, bundle adjustment, in rounds."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.bundle_adjustment import BundleAdjustmentConfig, BundleProblem, bundle_adjust
from acezero_gpu.adjustment.match_graph import PairMatches, epipolar_distance_px
from acezero_gpu.adjustment.spread import well_spread
from acezero_gpu.adjustment.tracks import Tracks, build_tracks
from acezero_gpu.geometry import PinholeCamera, reproject, triangulate_tracks, undistort_pixels
from acezero_gpu.geometry.triangulation import REFINEMENT_STEPS

QUICK_ITERATIONS = 8
QUICK_TOLERANCE = 1e-3
"""Most steps, and when to stop, of an adjustment that another one follows."""
FIRST_STEPS = 1
"""Steps of a triangulation that an adjustment follows."""
MANY_VIEWS = 3
ANGLE_SHARE_OF_MANY = 1 / 3
"""Points of so many views need only this share of the angle. A wrong match along an epipolar line makes a point of two
views, hardly ever of three; and only points of three carry the scale on where a camera turns and sees what is far."""


@dataclass(frozen=True, slots=True)
class JointConfig:
    """How tightly tracks must fit, and how often they are made anew."""

    max_error_px: float = 2.0
    """An observation stays in the last round if its reprojection error is below this, in pixels of the network
    image at a shortest side of 480; scaled with the resolution."""
    first_error_px: float = 12.0
    """The same in the first round, when the poses are rough; rounds in between go down geometrically."""
    min_angle_deg: float = 1.5
    """A point that two views see stays if their rays meet at this angle or more; of three views a third of it will
    do."""
    rounds: int = 3
    """Times that tracks are made, triangulated and adjusted."""
    cells_per_side: int = 8
    """Side of the grid on each view over which the points that poses are adjusted by are spread."""
    points_per_cell: int = 4
    """At least so many of a cell's points take part in the adjustment, the most widely seen ones."""
    all_up_to: int = 50_000
    """With no more observations than this all points take part: it costs little, and few views need every one."""
    bundle: BundleAdjustmentConfig = field(
        default_factory=lambda: BundleAdjustmentConfig(
            loss="cauchy", max_iterations=30, cost_tolerance=1e-5, refine_focal=True
        )
    )

    def quick(self) -> "JointConfig":
        """The same with fewer rounds and steps, for an estimate that will be adjusted again anyway."""
        return replace(self, rounds=min(2, self.rounds), bundle=_quick(self.bundle))


def _quick(bundle: BundleAdjustmentConfig) -> BundleAdjustmentConfig:
    return replace(
        bundle,
        max_iterations=min(QUICK_ITERATIONS, bundle.max_iterations),
        cost_tolerance=max(QUICK_TOLERANCE, bundle.cost_tolerance),
    )


@dataclass(frozen=True, slots=True)
class JointResult:
    """Adjusted views and the points that hold them together."""

    cam_from_world: Float[Tensor, "v 3 4"]
    camera: PinholeCamera
    radial: Float[Tensor, " 2"]
    """``k1, k2`` of the shared lens."""
    points: Float[Tensor, "p 3"]
    view_index: Int[Tensor, " k"]
    """The view of each observation."""
    point_index: Int[Tensor, " k"]
    """The point of each observation."""
    keypoint_index: Int[Tensor, " k"]
    """The keypoint slot of each observation."""
    error_px: Float[Tensor, " k"]
    """Reprojection error of each observation."""

    @property
    def observations_per_view(self) -> Int[Tensor, " v"]:
        """How many points each view sees; a view with none kept its pose."""
        return torch.bincount(self.view_index, minlength=len(self.cam_from_world))

    def depth(self) -> Float[Tensor, " k"]:
        """Depth of each observation in its view."""
        pose = self.cam_from_world[self.view_index]
        return (pose[:, 2, :3] * self.points[self.point_index]).sum(-1) + pose[:, 2, 3]


def adjust_views(
    matches: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    cam_from_world: Float[Tensor, "v 3 4"],
    camera: PinholeCamera,
    config: JointConfig,
    *,
    pixel_scale: float,
    radial: Float[Tensor, " 2"] | None = None,
    fixed_views: Bool[Tensor, " v"] | None = None,
) -> JointResult:
    """Poses, shared camera and points of least robust reprojection error.

    ``keypoint_pixels`` are as seen, through a lens of distortion ``radial`` (none if not given).

    Every round keeps the matches that fit the current poses, joins them to tracks, triangulates, drops what does
    not fit, and adjusts by points that are well spread over the views. Starting from rough poses (a map's, or a
    resection's), the thresholds tighten from round to round. In the end all points are triangulated that fit the
    adjusted poses. Views without tracks keep their poses. Never raises for bad matches: with nothing left to adjust
    the poses come back as they were, without observations.
    """
    radial = torch.zeros_like(camera.focal_px) if radial is None else radial
    result = _empty(cam_from_world, camera, radial)
    for index in range(config.rounds):
        share = index / max(1, config.rounds - 1)
        error_px = pixel_scale * config.first_error_px ** (1 - share) * config.max_error_px**share
        bundle = config.bundle if index == config.rounds - 1 else _quick(config.bundle)
        bundle = replace(bundle, loss_scale_px=0.5 * error_px)
        observations = _fitting_points(matches, keypoint_pixels, result, error_px, config.min_angle_deg)
        chosen = _well_spread(observations, keypoint_pixels, config)
        result = _adjusted(chosen, keypoint_pixels, result, bundle, fixed_views)
    if len(result.points) == 0:
        return result
    every = _fitting_points(matches, keypoint_pixels, result, error_px, config.min_angle_deg)
    held = replace(bundle, refine_poses=False, refine_focal=False, refine_radial=False)
    return _without_outliers(_adjusted(every, keypoint_pixels, result, held, fixed_views), error_px)


def triangulate_views(
    matches: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    adjusted: JointResult,
    config: JointConfig,
    *,
    pixel_scale: float,
) -> JointResult:
    """All points of the matches that fit the poses of ``adjusted``, also those with next to no parallax.

    How far away these are is uncertain, and no pose should be moved by it. But from where the views stand that saw
    them they lie in the right direction: enough to place a further view in nearly the same place.
    """
    error_px = pixel_scale * config.max_error_px
    return _fitting_points(matches, keypoint_pixels, adjusted, error_px, 0.0, REFINEMENT_STEPS)


def _fitting_points(
    matches: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    start: JointResult,
    error_px: float,
    min_angle_deg: float,
    steps: int = FIRST_STEPS,
) -> JointResult:
    """Points of the matches that fit the poses of ``start``."""
    straight = undistort_pixels(keypoint_pixels, start.camera, start.radial)
    fitting = matches.where(
        epipolar_distance_px(matches, straight, start.cam_from_world, start.camera) < error_px
    )
    ends = (fitting.view_a, fitting.view_b, fitting.keypoint_a, fitting.keypoint_b)
    tracks = build_tracks(*ends, keypoint_pixels.shape[1])
    return _triangulated(tracks, straight, start, error_px, min_angle_deg, steps)


def _well_spread(
    result: JointResult, keypoint_pixels: Float[Tensor, "v k 2"], config: JointConfig
) -> JointResult:
    """The points that the poses are adjusted by."""
    if len(result.view_index) <= config.all_up_to:
        return result
    chosen = well_spread(
        result.view_index,
        result.point_index,
        keypoint_pixels[result.view_index, result.keypoint_index],
        len(result.points),
        2 * result.camera.principal_point_px,
        cells_per_side=config.cells_per_side,
        points_per_cell=config.points_per_cell,
    )
    return _with_observations(result, chosen[result.point_index])


def _adjusted(
    observations: JointResult,
    keypoint_pixels: Float[Tensor, "v k 2"],
    start: JointResult,
    bundle: BundleAdjustmentConfig,
    fixed_views: Bool[Tensor, " v"] | None,
) -> JointResult:
    if len(observations.points) == 0:
        return _empty(start.cam_from_world, start.camera, start.radial)
    adjusted = bundle_adjust(
        BundleProblem(
            observations.cam_from_world,
            observations.points,
            observations.camera,
            observations.view_index,
            observations.point_index,
            keypoint_pixels[observations.view_index, observations.keypoint_index],
            radial=observations.radial,
            fixed_views=fixed_views,
        ),
        bundle,
    )
    return replace(
        observations,
        cam_from_world=adjusted.cam_from_world,
        camera=adjusted.camera,
        radial=adjusted.radial,
        points=adjusted.points,
        error_px=torch.where(adjusted.depth > 0, adjusted.residuals_px.norm(dim=-1), torch.inf),
    )


def _triangulated(
    tracks: Tracks,
    keypoint_pixels: Float[Tensor, "v k 2"],
    start: JointResult,
    error_px: float,
    min_angle_deg: float,
    steps: int,
) -> JointResult:
    """Tracks as points. Observations far from their track's point are dropped, and its rest triangulated again."""
    view, keypoint, point = tracks.view_index, tracks.keypoint_index, tracks.point_index
    pixels, count = keypoint_pixels[view, keypoint], tracks.num_points
    every = torch.ones(count, dtype=torch.bool, device=point.device)
    places, good, error = _placed(view, point, pixels, every, start, min_angle_deg, steps)
    keep = error < 2 * error_px
    lost = torch.zeros_like(every)
    lost[point[~keep]] = True
    view, keypoint, point, pixels, error = (x[keep] for x in (view, keypoint, point, pixels, error))
    touched = lost[point]
    redone = _placed(view[touched], point[touched], pixels[touched], lost, start, min_angle_deg, steps)
    places[lost], good[lost], error[touched] = redone
    keep = error < 2 * error_px
    view, keypoint, point, error = (x[keep] for x in (view, keypoint, point, error))
    keep = good[point] & (torch.bincount(point, minlength=count) >= 2)[point]
    view, keypoint, point, error = view[keep], keypoint[keep], point[keep], error[keep]
    used, point = point.unique(return_inverse=True)
    return replace(
        start,
        points=places[used].to(start.cam_from_world.dtype),
        view_index=view,
        point_index=point,
        keypoint_index=keypoint,
        error_px=error,
    )


def _placed(
    view: Int[Tensor, " k"],
    point: Int[Tensor, " k"],
    pixels: Float[Tensor, "k 2"],
    chosen: Bool[Tensor, " p"],
    start: JointResult,
    min_angle_deg: float,
    steps: int,
) -> tuple[Float[Tensor, "c 3"], Bool[Tensor, " c"], Float[Tensor, " k"]]:
    """The ``chosen`` points, whether each is well determined, and the error of each observation; all are of these.

    Behind its view an observation is infinitely wrong.
    """
    row = (chosen.cumsum(0) - 1)[point]
    found = triangulate_tracks(
        view,
        row,
        start.camera.normalised(pixels).double(),
        start.cam_from_world.double(),
        int(chosen.sum()),
        refinement_steps=steps,
    )
    seen = reproject(found.points[row][:, None].float(), start.cam_from_world[view], start.camera)
    error = (seen.pixels[:, 0] - pixels).norm(dim=-1)
    many = torch.bincount(row, minlength=len(found.points)) >= MANY_VIEWS
    good = found.valid & (found.angle_deg >= torch.where(many, ANGLE_SHARE_OF_MANY, 1.0) * min_angle_deg)
    return found.points, good, torch.where(seen.depth[:, 0] > 0, error, torch.inf)


def _without_outliers(result: JointResult, error_px: float) -> JointResult:
    keep = result.error_px < error_px
    views_left = torch.bincount(result.point_index[keep], minlength=len(result.points))
    return _with_observations(result, keep & (views_left >= 2)[result.point_index])


def _with_observations(result: JointResult, keep: Bool[Tensor, " k"]) -> JointResult:
    """These observations only, and the points that they are of."""
    used, point = result.point_index[keep].unique(return_inverse=True)
    return replace(
        result,
        points=result.points[used],
        view_index=result.view_index[keep],
        point_index=point,
        keypoint_index=result.keypoint_index[keep],
        error_px=result.error_px[keep],
    )


def _empty(
    cam_from_world: Float[Tensor, "v 3 4"], camera: PinholeCamera, radial: Float[Tensor, " 2"]
) -> JointResult:
    none = torch.zeros(0, dtype=torch.long, device=cam_from_world.device)
    nothing = cam_from_world.new_zeros(0)
    return JointResult(
        cam_from_world, camera, radial, cam_from_world.new_zeros(0, 3), none, none, none, nothing
    )

"""The points of an adjustment, in the terms of the image files."""

from acezero_gpu.data.point_tracks import PointTracks
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement


def held_tracks(refined: JointRefinement, bank: ImageBank) -> PointTracks:
    """The adjusted points, as those images see them whose poses they hold; empty where nothing was adjusted."""
    joint = refined.joint
    pixels = bank.keypoints(refined.views).pixels[refined.views][joint.view_index, joint.keypoint_index]
    scale = pixels.new_tensor(bank.images.scale_xy)
    order = joint.point_index.argsort(stable=True)
    tracks = PointTracks(
        joint.points.cpu(),
        refined.views[joint.view_index[order]].cpu(),
        joint.point_index[order].cpu(),
        (pixels[order] / scale).cpu(),
        (joint.error_px[order] / scale.mean()).cpu(),
    )
    return tracks.seen_by(refined.state.held.cpu())[1]

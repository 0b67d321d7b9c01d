"""Files in and out: poses, run folders, tracks, point clouds."""

from acezero_gpu.io.export_scene import ColouredPoints
from acezero_gpu.io.history_file import read_history, write_history
from acezero_gpu.io.ply import read_points, write_cameras, write_points
from acezero_gpu.io.pose_file import (
    match_to_images,
    read_pose_file,
    read_pose_folder,
    read_poses,
    write_pose_file,
)
from acezero_gpu.io.run_folder import RunFolder
from acezero_gpu.io.run_reader import FinishedRun, RunRound, open_run
from acezero_gpu.io.track_file import SavedTracks, read_tracks, write_tracks

__all__ = [
    "ColouredPoints",
    "FinishedRun",
    "RunFolder",
    "RunRound",
    "SavedTracks",
    "match_to_images",
    "open_run",
    "read_history",
    "read_points",
    "read_pose_file",
    "read_pose_folder",
    "read_poses",
    "read_tracks",
    "write_cameras",
    "write_history",
    "write_points",
    "write_pose_file",
    "write_tracks",
]

"""Tracks of a run: read back as they were written, by rows of the scene, damage named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import exported_scene as made

from acezero_gpu.io import read_tracks, write_tracks
from acezero_gpu.io.export_scene import tracks_of_scene
from acezero_gpu.runtime import InputError


def test_they_come_back(tmp_path: Path) -> None:
    saved = made.tracks()
    write_tracks(tmp_path / "tracks.safetensors", saved)
    found = read_tracks(tmp_path / "tracks.safetensors")
    assert found.names == saved.names
    assert torch.equal(found.colours, saved.colours)
    for name in ("points", "view_index", "point_index", "pixels_px", "error_px"):
        assert torch.equal(getattr(found.tracks, name), getattr(saved.tracks, name)), name


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tracks.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"tracks\.safetensors: not a readable file of tracks"):
        read_tracks(path)
    saved = made.tracks()
    write_tracks(path, replace(saved, names=saved.names[:-1]))
    with pytest.raises(InputError, match="an observation of image 4 of 4"):
        read_tracks(path)


def test_a_scene_of_fewer_images_has_the_points_that_two_of_them_see() -> None:
    scene, saved = made.scene(), made.tracks()
    rows = [3, 1, 0]
    fewer = replace(
        scene, views=scene.views.subset(rows), file_names=tuple(scene.file_names[row] for row in rows)
    )
    found = tracks_of_scene(saved, fewer)
    for point in range(len(found.tracks.points)):
        former = int((saved.tracks.points == found.tracks.points[point]).all(-1).nonzero()[0, 0])
        seen = found.tracks.point_index == point
        expected = {row for row, view in enumerate(rows) if former % made.VIEWS != view}
        assert set(found.tracks.view_index[seen].tolist()) == expected
        assert torch.equal(found.colours[point], saved.colours[former])
    assert len(found.tracks.points) == made.POINTS  # each lacks one of the three at most
    two = replace(scene, views=scene.views.subset([3, 1]), file_names=scene.file_names[:2])
    assert len(tracks_of_scene(saved, two).tracks.points) == made.POINTS * 3 // 5
    strangers = replace(saved, names=tuple(f"other {row}" for row in range(made.VIEWS)))
    with pytest.raises(InputError, match="of other images"):
        tracks_of_scene(strangers, scene)

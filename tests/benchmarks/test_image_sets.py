import shutil

import numpy as np
import pytest
import torch
from benchmark_sets import write_set

from acezero_gpu.data import resolve_images
from acezero_gpu.runtime import InputError
from benchmarks.image_sets import read_mapping_set, read_set
from benchmarks.workloads.relocalisation import read_place


def test_a_set_gives_images_truth_and_unit(tmp_path):
    world_from_cam = write_set(tmp_path / "place")
    found = read_set(tmp_path / "place")
    truth = found.truth()
    assert (found.name, len(found.images), found.focal_px, found.unit_m) == ("place", 12, 31.0, 0.001)
    assert truth.names == tuple(f"img_{row:02d}" for row in range(12)) == found.stems
    rotation, translation = truth.matrices[..., :3], truth.matrices[..., 3]
    torch.testing.assert_close(
        -(rotation.transpose(-1, -2) @ translation[..., None])[..., 0], world_from_cam[..., 3]
    )
    torch.testing.assert_close(rotation.transpose(-1, -2), world_from_cam[..., :3])


def test_a_unit_without_a_length_is_none(tmp_path):
    write_set(tmp_path / "place", unit="arbitrary")
    assert read_set(tmp_path / "place").unit_m is None


def test_the_list_chooses_and_orders_the_images(tmp_path):
    write_set(tmp_path / "place")
    (tmp_path / "place" / "mapping.txt").write_text("img_07\nimg_02\n\nimg_05\n")
    found = read_mapping_set(tmp_path / "place")
    assert found.stems == ("img_07", "img_02", "img_05")
    listed = resolve_images(found.write_list(tmp_path / "list.txt"))
    assert [path.stem for path in listed.paths] == ["img_07", "img_02", "img_05"]
    (tmp_path / "place" / "mapping.txt").unlink()
    assert len(read_mapping_set(tmp_path / "place").images) == 12


def test_images_without_a_true_pose_are_left_out_of_the_truth_alone(tmp_path):
    write_set(tmp_path / "place")
    (tmp_path / "place" / "poses" / "img_03.txt").unlink()
    np.savetxt(tmp_path / "place" / "poses" / "img_04.txt", np.full((4, 4), np.nan))
    found = read_set(tmp_path / "place")
    assert len(found.images) == 12
    assert set(found.stems) - set(found.truth().names) == {"img_03", "img_04"}


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda folder: shutil.rmtree(folder), "is it|cannot be read"),
        (lambda folder: (folder / "set.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "set.json").write_text('{"fx": 3}'), "fy"),
        (lambda folder: (folder / "mapping.txt").write_text("img_99\n"), "img_99"),
        (lambda folder: shutil.rmtree(folder / "images"), "at least 2"),
    ],
)
def test_a_folder_that_is_no_set_is_refused_in_a_sentence(tmp_path, damage, word):
    write_set(tmp_path / "place")
    damage(tmp_path / "place")
    with pytest.raises(InputError, match=word):
        read_mapping_set(tmp_path / "place")


def test_relocalisation_needs_queries_and_a_unit(tmp_path):
    write_set(tmp_path / "place", unit="arbitrary")
    (tmp_path / "place" / "mapping.txt").write_text("img_00\nimg_01\n")
    with pytest.raises(InputError, match=r"query\.txt"):
        read_place(tmp_path / "place")
    (tmp_path / "place" / "query.txt").write_text("img_03\nimg_04\n")
    with pytest.raises(InputError, match="unit"):
        read_place(tmp_path / "place")


@pytest.mark.parametrize(
    ("name", "images", "unit_m"), [("redkitchen", 125, 1.0), ("fox", 50, None), ("dtu_scan24", 49, 0.001)]
)
def test_real_sets_are_read(real_data, name, images, unit_m):
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} here")
    found = read_mapping_set(real_data / name)
    assert (len(found.images), len(found.truth().names), found.unit_m) == (images, images, unit_m)

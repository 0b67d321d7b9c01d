from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from acezero_gpu.data.depth import DepthSource, find_depth_files, read_depth
from acezero_gpu.runtime import InputError


def test_png_is_millimetres_and_npy_metres(tmp_path: Path) -> None:
    depth_m = np.random.default_rng(0).uniform(0.3, 9.0, (12, 16)).round(3)
    depth_m[0, 0] = 0.0
    cv2.imwrite(str(tmp_path / "a.png"), (depth_m * 1000).round().astype(np.uint16))
    np.save(tmp_path / "a.npy", depth_m)
    for name in ("a.png", "a.npy"):
        assert np.allclose(read_depth(tmp_path / name), depth_m, atol=1e-6), name


def test_what_was_not_measured_is_zero(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[np.nan, np.inf, -1.0, 2.0]]))
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 65535, 2000]], dtype=np.uint16))
    assert read_depth(tmp_path / "a.npy").tolist() == [[0, 0, 0, 2]]
    assert read_depth(tmp_path / "a.png").tolist() == [[0, 0, 2]]


def test_names_decide_before_the_order(tmp_path: Path) -> None:
    for value, name in enumerate(("frame-1.depth.png", "frame-2.depth.png")):
        cv2.imwrite(str(tmp_path / name), np.full((2, 2), 1000 * (value + 1), dtype=np.uint16))
    source: DepthSource = find_depth_files(
        tmp_path, ["frame-2.color.png", "frame-3.color.png", "frame-1.color.png"]
    )
    depths = [source.depth_m(index) for index in range(3)]
    assert depths[1] is None
    assert torch.equal(depths[0], torch.full((2, 2), 2.0))
    assert torch.equal(depths[2], torch.full((2, 2), 1.0))
    by_order = find_depth_files(f"{tmp_path}/*.png", ["b.jpg", "a.jpg"])
    assert [path.name for path in by_order.paths] == ["frame-2.depth.png", "frame-1.depth.png"]


def test_colour_images_beside_depth_maps_are_none(tmp_path: Path) -> None:
    for name in ("frame-1.color.png", "frame-1.depth.png", "frame-2.color.png", "frame-2.depth.png"):
        cv2.imwrite(str(tmp_path / name), np.full((2, 2), 1000, dtype=np.uint16))
    names = [str(tmp_path / "frame-1.color.png"), str(tmp_path / "frame-2.color.png")]
    assert [path.name for path in find_depth_files(tmp_path, names).paths] == [
        "frame-1.depth.png",
        "frame-2.depth.png",
    ]


def test_errors_name_the_file_or_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no depth map"):
        find_depth_files(tmp_path, ["a.jpg"])
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 4), dtype=np.uint8))
    with pytest.raises(InputError, match="1 depth maps for 2 images"):
        find_depth_files(tmp_path, ["a.jpg", "b.jpg"])
    with pytest.raises(InputError, match=r"x\.png.*16-bit"):
        read_depth(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"y\.png.*not a readable"):
        read_depth(tmp_path / "y.png")

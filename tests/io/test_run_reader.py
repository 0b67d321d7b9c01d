import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pypose as pp
import pytest
import torch

from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.io import open_run, read_points, write_points, write_pose_file
from acezero_gpu.io.run_folder import IMAGE_ROOT, REGISTERED_FROM
from acezero_gpu.runtime import InputError

COMMAND = "acezero reconstruct 'my photos' out --preset fast"


def views(names: list[str], confidence: list[float]) -> PosedViews:
    count = len(names)
    return PosedViews(
        tuple(names), pp.identity_SE3(count).tensor(), torch.full((count,), 50.0), torch.tensor(confidence)
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three images, of which two are registered after the second round."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        (photos / f"{index}.jpg").write_bytes(b"picture")
    out = tmp_path / "out"
    out.mkdir()
    names = [f"photos/{index}.jpg" for index in range(3)]
    for step, confidence in (("0", [80.0, 0.0, 0.0]), ("1", [90.0, 60.0, 0.0]), ("10", [95.0, 70.0, 5.0])):
        write_pose_file(out / f"poses_{step}.txt", views(names, confidence))
        write_pose_file(out / f"poses_{step}_preliminary.txt", views(names, confidence))
    shutil.copy(out / "poses_10.txt", out / "poses_final.txt")
    (out / "map_10.safetensors").write_bytes(b"map")
    (out / "config.toml").write_text(f"# {COMMAND}\n# preset fast\n")
    (out / "summary.json").write_text(json.dumps({REGISTERED_FROM: 48.0, IMAGE_ROOT: str(tmp_path)}))
    write_points(out / "point_cloud.ply", torch.rand(5, 3), torch.zeros(5, 3, dtype=torch.uint8))
    return out


def test_what_was_written_is_read(run: Path) -> None:
    found = open_run(run, points=True, rounds=True)
    assert found.registered == (True, True, False)
    assert [r.index for r in found.rounds] == [0, 1, 10]
    assert [r.scene_map is not None for r in found.rounds] == [False, False, True]
    assert found.rounds[1].views().confidence.tolist() == [90.0, 60.0, 0.0]
    assert found.image_paths == tuple(run.parent / name for name in found.views.names)
    assert found.missing_images == 0
    assert found.point_cloud == run / "point_cloud.ply"


def test_images_that_were_moved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = run.parent / "archive"
    (run.parent / "photos").rename(new)
    (new / "0.jpg").unlink()
    assert open_run(run).missing_images == 3
    assert open_run(run, images=new).image_paths == (None, new / "1.jpg", new / "2.jpg")
    with pytest.raises(InputError, match="--images .*no image of the run there.*photos/0.jpg"):
        open_run(run, images=run)
    (run.parent / "elsewhere").mkdir()
    new.rename(run.parent / "elsewhere" / "photos")
    monkeypatch.chdir(run.parent / "elsewhere")
    assert open_run(run).missing_images == 1


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def spoil(run: Path) -> None:
    (run / "summary.json").write_text('{"registered": 3}')


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (remove("poses_final.txt"), "poses_final.txt is missing"),
        (remove("summary.json"), "summary.json is missing"),
        (remove("point_cloud.ply"), "point_cloud.ply is missing"),
        (lambda run: [file.unlink() for file in run.glob("poses_*[0-9].txt")], "poses_0.txt is missing"),
        (spoil, "not the summary of a reconstruction"),
    ],
)
def test_an_incomplete_run_names_the_file_and_the_command(
    run: Path, harm: Callable[[Path], None], part: str
) -> None:
    harm(run)
    with pytest.raises(InputError) as error:
        open_run(run, points=True, rounds=True)
    assert part in str(error.value)
    assert f"{COMMAND} --overwrite" in str(error.value)
    (run / "config.toml").unlink()
    with pytest.raises(InputError, match="acezero reconstruct IMAGES .*out --overwrite"):
        open_run(run, points=True, rounds=True)


def test_points_and_rounds_are_demanded_only_by_those_who_need_them(run: Path) -> None:
    for file in (run / "point_cloud.ply", *run.glob("poses_*[0-9].txt")):
        file.unlink()
    found = open_run(run)
    assert (found.point_cloud, found.rounds) == (None, ())


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_run(tmp_path / "nothing")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not the folder of a reconstruction.*reconstruct IMAGES"):
        open_run(tmp_path)
    (tmp_path / "poses.txt").write_text("")
    with pytest.raises(InputError, match="acezero register"):
        open_run(tmp_path)


def test_names_are_paths_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(2):
        Image.new("L", (8, 6)).save(photos / f"{index}.png")
    (tmp_path / "list.txt").write_text("photos/0.png\nphotos/1.png\n")
    monkeypatch.chdir(photos)
    for spec in ("../list.txt", ".", str(photos), "../photos/*.png"):
        image_set = resolve_images(spec)
        for name, path in zip(image_set.names, image_set.paths, strict=True):
            assert (image_set.root / name).samefile(path), spec
            assert image_set.root.is_absolute()


def test_points_come_back(tmp_path: Path) -> None:
    points, colours = torch.randn(7, 3), torch.randint(0, 256, (7, 3), dtype=torch.uint8)
    write_points(tmp_path / "a.ply", points, colours)
    read, read_colours = read_points(tmp_path / "a.ply")
    assert torch.equal(read, points)
    assert torch.equal(read_colours, colours)
    write_points(tmp_path / "none.ply", points[:0], colours[:0])
    assert len(read_points(tmp_path / "none.ply")[0]) == 0
    (tmp_path / "cut.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-1])
    (tmp_path / "text.ply").write_text("hello")
    for name in ("cut.ply", "text.ply"):
        with pytest.raises(InputError, match="not a point cloud of this program"):
            read_points(tmp_path / name)

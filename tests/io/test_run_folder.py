import json
import os
import tomllib
from pathlib import Path

import pytest

from acezero_gpu.io.run_folder import RunFolder
from acezero_gpu.runtime import InputError


def test_names_are_those_that_users_know(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    files = (
        run.poses_final,
        run.poses("iteration2"),
        run.poses_preliminary("iteration2"),
        run.map(0),
        run.summary,
    )
    assert [file.name for file in files] == [
        "poses_final.txt",
        "poses_iteration2.txt",
        "poses_iteration2_preliminary.txt",
        "map_0.safetensors",
        "summary.json",
    ]


def test_a_new_folder_is_made_and_its_files_read_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "first")
    run.prepare()
    assert list(run.path.iterdir()) == []
    run.write_json("summary.json", {"registered": 3, "name": "Küche", "none": None})
    run.write_toml("config.toml", {"seed": 1, "limit": None, "mapping": {"depth": None, "loss": "tanh"}})
    assert json.loads(run.summary.read_text()) == {"registered": 3, "name": "Küche", "none": None}
    assert tomllib.loads(run.config.read_text()) == {"seed": 1, "mapping": {"loss": "tanh"}}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.toml", "summary.json"]


@pytest.mark.parametrize(
    "name",
    [
        "poses_final.txt",
        "summary.json",
        "poses_iteration0.txt",
        "poses_0_preliminary.txt",
        "map_1.safetensors",
    ],
)
def test_earlier_results_are_refused_and_overwrite_takes_only_ours(tmp_path: Path, name: str) -> None:
    for file in (name, "notes.txt", "photo.png", "pose.txt", "config.toml"):
        (tmp_path / file).write_text("content")
    (tmp_path / "images").mkdir()
    run = RunFolder(tmp_path)
    with pytest.raises(InputError, match="--overwrite"):
        run.prepare()
    assert (tmp_path / name).read_text() == "content"
    run.prepare(overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images",
        "notes.txt",
        "photo.png",
        "pose.txt",
    ]


def test_files_of_other_origin_stay(tmp_path: Path) -> None:
    """What a user may have called so; with a run beside it, it is the run's."""
    mine = ["poses_known.txt", "poses_gt.txt", "map_of_town.safetensors"]
    common = ["poses.txt", "point_cloud.ply"]
    for file in (*mine, *common):
        (tmp_path / file).write_text("mine")
    run = RunFolder(tmp_path)
    with pytest.raises(InputError, match="holds results already"):
        run.prepare()
    run.prepare(overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((*mine, *common))
    run.write_text("config.toml", "# acezero register")
    run.prepare(overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(mine)


@pytest.mark.parametrize("source", ["poses_final.txt", "map_3.safetensors", ""])
def test_what_a_run_reads_is_not_removed_first(tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    run = RunFolder(out)
    run.prepare()
    for file in ("poses_final.txt", "map_3.safetensors"):
        (out / file).write_text("finished")
    with pytest.raises(InputError, match="before it is read"):
        run.prepare(overwrite=True, reads=[out / source])
    assert len(list(out.iterdir())) == 2
    run.prepare(overwrite=True, reads=[tmp_path / "elsewhere.txt", "photos/*.txt"])
    assert not any(out.iterdir())


def test_without_earlier_results_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("mine")
    RunFolder(tmp_path).prepare()
    assert (tmp_path / "log.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").prepare()
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / "file").prepare()
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="cannot be written"):
            RunFolder(tmp_path / "locked").prepare()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_json("summary.json", {"a": 1})
    with pytest.raises(TypeError):
        run.write_json("summary.json", {"a": object()})
    assert json.loads(run.summary.read_text()) == {"a": 1}

"""``acezero benchmark``: data for Nerfstudio, its commands (stand-ins of them), and the table of results."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_calls import Call, picture
from nvs_run import COUNT, DOUBTFUL, FAILED, FAILED_TEST, HEIGHT, SMALL, WIDTH, Run, posed, stems
from PIL import Image
from plyfile import PlyData

from acezero_gpu.io import write_pose_file


def test_the_data_is_that_of_the_protocol(call: Call, run: Run) -> None:
    said = call("benchmark", "nvs", run.path, "--convert-only")
    assert said.code == 0, said.err
    assert said.out.startswith(f"10 images to train on, 2 to test, {SMALL[0]}x{SMALL[1]} px")
    assert "1 of 2 test images are not registered" in said.err
    content = run.transforms()
    assert stems(content["test_filenames"]) == [4, FAILED_TEST]
    assert content["val_filenames"] == content["test_filenames"]
    left_out = {DOUBTFUL, FAILED, 4, FAILED_TEST}
    assert stems(content["train_filenames"]) == [row for row in range(COUNT) if row not in left_out]
    files = {frame["file_path"]: np.array(frame["transform_matrix"]) for frame in content["frames"]}
    assert set(files) == {*content["train_filenames"], *content["test_filenames"]}
    # A point in front of each camera lands where the photograph, scaled, has it.
    for name, matrix in files.items():
        row = run.views.names.index(f"photos/{Path(name).stem}.jpg")
        point = np.linalg.inv(np.r_[run.views.matrices[row].numpy(), [[0, 0, 0, 1]]]) @ [0.3, 0.2, 2, 1]
        camera = np.linalg.inv(matrix) @ point
        u = content["cx"] + content["fl_x"] * camera[0] / -camera[2]
        v = content["cy"] - content["fl_y"] * camera[1] / -camera[2]
        assert u == pytest.approx((WIDTH / 2 + 150) * SMALL[0] / WIDTH, abs=1e-3)
        assert v == pytest.approx((HEIGHT / 2 + 100) * SMALL[1] / HEIGHT, abs=1e-3)
        with Image.open(run.path / "nvs" / name) as image:
            assert (image.size, image.mode) == ((content["w"], content["h"]), "RGB")
    assert (content["w"], content["h"]) == SMALL
    assert (content["k1"], content["k2"]) == (-0.1, 0.02)
    assert len(PlyData.read(run.path / "nvs" / content["ply_file_path"])["vertex"]) == 9
    with Image.open(run.path / "nvs" / "images" / "p04.png") as image:
        expected = picture(4, SMALL)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).mean() < 2


def test_nerfstudio_is_called_and_its_figures_are_kept(call: Call, run: Run) -> None:
    run.install("ns-train")
    run.install("ns-eval")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 0, said.err
    assert said.out.startswith("PSNR 21.250, SSIM 0.750, LPIPS 0.500 on 2 test images by nerfacto")
    result = run.result()
    counts = {"images": 14, "registered": 12, "train": 10, "test": 2, "test_unregistered": 1}
    expected = {"scene": "scene", "method": "nerfacto", "psnr": 21.25, "ssim": 0.75, "lpips": 0.5, **counts}
    assert {key: result[key] for key in expected} == expected
    assert result["versions"].keys() == {"acezero_gpu", "nerfstudio"}
    assert "called with" in (run.path / "nvs" / "ns-train.log").read_text()

    again = call("benchmark", "nvs", run.path, "--method", "splatfacto")
    assert again.code == 2
    assert "nvs.json: is there already" in again.sentence
    run.install("ns-eval", results={"psnr": 20.0, "ssim": 0.5})
    said = call("benchmark", "nvs", run.path, "--method", "splatfacto", "--overwrite")
    assert said.code == 0, said.err
    assert (run.result()["method"], run.result()["psnr"]) == ("splatfacto", 20.0)
    assert "lpips" not in run.result()


def test_a_split_of_ones_own(call: Call, run: Run, tmp_path: Path) -> None:
    split = {"train_filenames": ["p03.jpg", "p02.jpg", "p05.jpg"], "test_filenames": ["p09.jpg", "p01.jpg"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    said = call("benchmark", "nvs", run.path, "--split", tmp_path / "split.json", "--convert-only")
    assert said.code == 0, said.err
    content = run.transforms()
    assert stems(content["train_filenames"]) == [3, 5]
    assert stems(content["test_filenames"]) == [1, 9]


def test_without_nerfstudio_the_data_stays(call: Call, run: Run) -> None:
    run.install("ns-train")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    assert said.sentence.startswith("ns-eval: not found on the PATH")
    assert "pip install nerfstudio" in said.sentence
    assert len(run.transforms()["frames"]) == 12
    assert not (run.path / "nvs" / "nvs.json").exists()


def test_a_failure_of_nerfstudio_names_its_log(call: Call, run: Run) -> None:
    run.install("ns-eval")
    run.install("ns-train", "#!{python} -SE\nprint('no GPU')\nraise SystemExit(3)\n")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    log = run.path / "nvs" / "ns-train.log"
    assert said.sentence == f"ns-train failed (exit code 3); {log} says why."
    assert log.read_text() == "no GPU\n"
    run.install("ns-train", "#!{python} -SE\n")
    assert "ended without" in call("benchmark", "nvs", run.path, "--overwrite").sentence
    run.install("ns-train")
    for results, complaint in (({"ssim": 1}, "no finite PSNR"), ([], "wrote no results")):
        run.install("ns-eval", results=results)
        said = call("benchmark", "nvs", run.path, "--overwrite")
        assert said.code == 1
        assert complaint in said.sentence
    assert not (run.path / "nvs" / "nvs.json").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a split"),
        ("[]", "not a split"),
        ('{"train_filenames": ["p01.jpg"], "test_filenames": [1]}', "not a split"),
        (
            '{"train_filenames": ["p01.jpg"], "test_filenames": ["p99.jpg", "q"]}',
            "names p99.jpg, which is no",
        ),
        ('{"train_filenames": ["p01.jpg"], "test_filenames": ["p01.jpg"]}', "names p01.jpg 2 times"),
        (None, "cannot be read"),
    ],
)
def test_a_split_that_is_wrong(
    call: Call, run: Run, tmp_path: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "split.json").write_text(content)
    said = call("benchmark", "nvs", run.path, "--split", tmp_path / "split.json")
    assert said.code == 2
    assert f"--split {tmp_path / 'split.json'}: " in said.sentence
    assert complaint in said.sentence
    assert not (run.path / "nvs").exists()


@pytest.mark.parametrize(
    ("confidence", "complaint"), [(99.0, "no image is registered"), (199.0, "has the confidence 200")]
)
def test_poses_that_are_not_enough(call: Call, run: Run, confidence: float, complaint: str) -> None:
    views = posed()
    views.confidence[:] = confidence
    write_pose_file(run.path / "poses_final.txt", views)
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    assert complaint in said.sentence


def test_folders_that_are_wrong(call: Call, run: Run, tmp_path: Path) -> None:
    assert "not the folder of a reconstruction" in call("benchmark", "nvs", run.photos).sentence
    said = call("benchmark", "nvs", run.path, "--images", tmp_path)
    assert said.code == 2
    assert "no image of the run there" in said.sentence
    (tmp_path / "file").write_text("")
    said = call("benchmark", "nvs", run.path, tmp_path / "file", "--convert-only")
    assert (said.code, "cannot be made" in said.sentence) == (2, True)


def result(folder: Path, method: str, **figures: float) -> None:
    folder.mkdir(parents=True)
    counts = {"images": 10, "registered": 9, "train": 7, "test": 2}
    (folder / "nvs.json").write_text(
        json.dumps({"scene": folder.name, "method": method, **counts, **figures})
    )


def test_one_table_of_all_scenes(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result(tmp_path / "a long name of a scene" / "nvs", "nerfacto", psnr=20.0, ssim=0.5, lpips=0.25)
    result(tmp_path / "b" / "run" / "nvs", "nerfacto", psnr=21.0, ssim=0.75)
    result(tmp_path / "b" / "run" / "splat", "splatfacto", psnr=25.0)
    monkeypatch.setenv("COLUMNS", "20")
    said = call("benchmark", "show", tmp_path)
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines() if line.strip()]
    assert lines[0] == ["scene", "method", "images", "registered", "train", "test", "PSNR", "SSIM", "LPIPS"]
    assert " ".join(lines[1]) == "a long name of a scene nerfacto 10 9 7 2 20.00 0.500 0.250"
    assert lines[2:4] == [
        ["b/run", "nerfacto", "10", "9", "7", "2", "21.00", "0.750"],
        ["b/run/splat", "splatfacto", "10", "9", "7", "2", "25.00"],
    ]
    assert lines[4:] == [["mean", "nerfacto", "20.50", "0.625"]]


def test_what_cannot_be_shown_is_said(call: Call, tmp_path: Path) -> None:
    said = call("benchmark", "show", tmp_path)
    assert said.code == 1
    assert said.sentence == f"{tmp_path}: no nvs.json there; acezero benchmark nvs RUN makes one."
    assert call("benchmark", "show", tmp_path / "none").code == 2
    (tmp_path / "nvs.json").write_text('{"scene": "a"}')
    said = call("benchmark", "show", tmp_path)
    assert said.code == 2
    assert "nvs.json: not a result" in said.sentence

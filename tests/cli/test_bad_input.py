"""What the user gets wrong is one sentence on stderr, with the right exit code and without a traceback."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calls import LINE, SMALL, Call, picture
from PIL import Image

from acezero_gpu.io.run_folder import RESULTS_BY_COMMON_NAMES


def test_a_glob_without_a_match(call: Call, tmp_path: Path) -> None:
    said = call("reconstruct", tmp_path / "*.jpg", tmp_path / "out")
    assert said.code == 2
    assert "no image matches" in said.sentence
    assert not (tmp_path / "out").exists()


def test_one_image_is_too_few(call: Call, tmp_path: Path) -> None:
    picture().save(tmp_path / "only.png")
    said = call("reconstruct", tmp_path / "*.png", tmp_path / "out")
    assert said.code == 2
    assert "at least 2 are needed" in said.sentence


def test_a_budget_that_is_too_small_says_what_is_enough(
    call: Call, photos: Path, tmp_path: Path, no_loop: list
) -> None:
    said = call("reconstruct", photos, tmp_path / "out", "--memory-budget", "10kB", *SMALL)
    assert said.code == 2
    assert said.sentence.startswith("--memory-budget: too little for 3 images of 48 cells; give at least ")
    enough = said.sentence.rstrip(".").split(" ")[-1]
    assert call("reconstruct", photos, tmp_path / "out2", "--memory-budget", enough, *SMALL).code == 1
    (bank, *_), *_ = no_loop
    assert bank.config.memory_budget_bytes > 10_000


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n not a picture", None], ids=["empty", "header", "cut"]
)
def test_a_broken_image_among_good_ones_is_named_and_skipped(
    call: Call, photos: Path, tmp_path: Path, no_loop: list, content: bytes | None
) -> None:
    if content is None:
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(photos / "broken.png")
        content = (photos / "broken.png").read_bytes()[:2000]
    (photos / "broken.png").write_bytes(content)
    said = call("reconstruct", photos, tmp_path / "out", "--quiet", *SMALL)
    assert said.code == 1
    assert said.sentence == "No start was found; add images."
    warning = next(line for line in said.err.splitlines() if line.startswith("warning: "))
    assert "broken.png" in warning
    assert "broken.png" in (tmp_path / "out" / "log.txt").read_text()
    (bank, *_), *_ = no_loop
    assert [Path(name).name for name in bank.images.image_set.names] == [f"photo_{i}.png" for i in range(3)]


def test_images_of_two_sizes(call: Call, photos: Path, tmp_path: Path) -> None:
    picture(size=(48, 64)).save(photos / "upright.png")
    said = call("reconstruct", photos, tmp_path / "out")
    assert said.code == 2
    assert "upright.png is 48x64" in said.sentence


def test_unusual_images_are_read_alike(call: Call, tmp_path: Path, no_loop: list) -> None:
    """Rotated by EXIF, 16-bit, transparent where nothing is to be seen through, grey: the same picture."""
    photos = tmp_path / "photos"
    photos.mkdir()
    plain = picture()
    plain.save(photos / "a_plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    plain.rotate(90, expand=True).save(photos / "b_rotated.jpg", quality=97, exif=exif)
    deep = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(photos / "c_deep.png")
    plain.convert("RGBA").save(photos / "d_alpha.png")
    plain.convert("L").save(photos / "e_grey.png")
    assert call("reconstruct", photos, tmp_path / "out", *SMALL).code == 1
    (bank, *_), *_ = no_loop
    pixels = bank.images.pixels.float()
    assert len(pixels) == 5
    assert float((pixels - pixels[:1]).abs().max()) < 8
    assert float(pixels[0].std()) > 10


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_out_cannot_be_written(call: Call, photos: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "taken").write_text("a file")
    said = call("reconstruct", photos, tmp_path / place)
    assert said.code == 2
    assert "cannot be written" in said.sentence


@pytest.mark.parametrize("name", ["poses_final.txt", "map.safetensors", "summary.json", "poses.txt"])
def test_earlier_results_are_kept(call: Call, photos: Path, tmp_path: Path, no_loop: list, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    said = call("reconstruct", photos, out, *SMALL)
    assert said.code == 2
    assert "--overwrite" in said.sentence
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "precious"
    assert call("reconstruct", photos, out, "--overwrite", *SMALL).code == 1
    # Without a run beside it, a file of a common name is none of ours.
    assert (out / name).exists() == (name in RESULTS_BY_COMMON_NAMES)


def test_overwrite_does_not_remove_what_the_command_reads(call: Call, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "poses_final.txt").write_text(
        "".join(f"{file} 1 0 0 0 {row} 0 0 60 100\n" for row, file in enumerate(sorted(photos.iterdir())))
    )
    said = call("map", photos, out, "--poses", out / "poses_final.txt", "--overwrite", *SMALL)
    assert said.code == 2
    assert "before it is read" in said.sentence
    assert (out / "poses_final.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--set", "loop.seed.tries=3"), "did you mean loop.seeds.tries"),
        (("--set", "loop.seeds.tries"), "write section.key=value"),
        (("--set", "=3"), "write section.key=value"),
        (("--set", "loop.seeds.tries=many"), "loop.seeds.tries must be of type int"),
        (("--set", "loop.joint.when=never"), "must be one of"),
        (("--preset", "turbo"), "'auto', 'fast', 'default', 'quality'"),
        (("--device", "tpu"), "choose auto, cpu or cuda"),
        (("--encoder", "/no/such/file.pt"), "no such file"),
        (("--config", "/no/such/file.toml"), "cannot be read"),
        (("--refine-joint", "sometimes"), "'off', 'final', 'every'"),
        (("--focal-px", "-3"), "--focal-px"),
        (("--fix-focal",), "--focal-px"),
        (("--depth", "/no/such/folder"), "no depth map matches"),
        (("--nonsense",), "--nonsense"),
        (("another.jpg", "third.jpg"), "from another.jpg on; put a glob in quotes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_flags(
    call: Call, photos: Path, tmp_path: Path, no_loop: list, arguments: tuple[str, ...], part: str
) -> None:
    said = call("reconstruct", photos, tmp_path / "out", *arguments)
    assert said.code == 2
    assert part in said.sentence
    assert no_loop == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(call: Call, photos: Path, tmp_path: Path) -> None:
    said = call("reconstruct", photos, tmp_path / "out", "--device", "cuda")
    assert said.code == 2
    assert "no CUDA device" in said.sentence


def test_a_wrong_config_file(call: Call, photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("[loop.stoping]\nmax_iterations = 3\n")
    said = call("reconstruct", photos, tmp_path / "out", "--config", config)
    assert said.code == 2
    assert "loop.stoping" in said.sentence
    assert "loop.stopping" in said.sentence
    config.write_text("seed = \n")
    said = call("reconstruct", photos, tmp_path / "out", "--config", config)
    assert (said.code, "not valid TOML" in said.sentence) == (2, True)


def test_wrong_thresholds(call: Call, tmp_path: Path) -> None:
    poses = tmp_path / "poses.txt"
    poses.write_text("".join(LINE.format(name=f"{index}.png") for index in range(3)))
    for text in ("5", "5cm", "a/b", "-1/5", "0/5", "1e999/5", "..1/5"):
        said = call("evaluate", poses, poses, "--threshold", text)
        assert said.code == 2, text
        assert "DISTANCE/DEGREES" in said.sentence
    said = call("evaluate", poses, poses, "--threshold", "5cm/5", "--threshold", "2%/5")
    assert (said.code, "not both" in said.sentence) == (2, True)


def test_truth_of_other_images(call: Call, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(LINE.format(name=f"{name}.png"))
    said = call("evaluate", tmp_path / "a.txt", tmp_path / "b.txt")
    assert said.code == 2
    assert "a.png" in said.sentence


def test_the_demonstration_leaves_other_peoples_files(call: Call, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    said = call("demo", tmp_path)
    assert said.code == 2
    assert "not empty" in said.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    said = call("demo", tmp_path / "thesis.tex")
    assert (said.code, "not a folder" in said.sentence) == (2, True)


def test_a_defect_keeps_its_traceback(
    call: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_others: object) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("acezero_gpu.cli.reconstruct.run_loop", broken)
    with pytest.raises(ValueError, match="a mistake of ours"):
        call("reconstruct", photos, tmp_path / "out", *SMALL)
    assert "a mistake of ours" in (tmp_path / "out" / "log.txt").read_text()


def test_json_is_all_there_is_on_stdout(call: Call, tmp_path: Path) -> None:
    poses = tmp_path / "poses.txt"
    lines = [f"{index}.png 1 0 0 0 {index} {index**2} 0 50 100\n" for index in range(5)]
    poses.write_text("".join(lines))
    said = call("evaluate", poses, poses, "--json")
    assert said.code == 0
    assert json.loads(said.out)["registered"] == 5

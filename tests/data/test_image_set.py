import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acezero_gpu.data.image_set import resolve_images
from acezero_gpu.data.loading import load_grey
from acezero_gpu.runtime import InputError

ORIENTATION = 0x0112


def save(path: Path, width: int = 32, height: int = 24, orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_a_folder_gives_its_images_alphabetically_and_nothing_below(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.jpeg", "below/d.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    images = resolve_images(tmp_path)
    assert images.names == tuple(str(tmp_path / name) for name in ("a.JPG", "b.png", "c.jpeg"))
    assert (len(images), images.width, images.height, images.skipped) == (3, 32, 24, ())


def test_a_glob_may_reach_below_and_a_limit_keeps_the_first(tmp_path: Path) -> None:
    for name in ("x/b.png", "x/a.png", "y/c.png", "y/d.jpg"):
        save(tmp_path / name)
    images = resolve_images(f"{tmp_path}/**/*.png")
    assert [path.name for path in images.paths] == ["a.png", "b.png", "c.png"]
    assert resolve_images(f"{tmp_path}/**/*.png", limit=2).names == images.names[:2]


def test_brackets_in_a_folder_name_are_not_a_pattern(tmp_path: Path) -> None:
    save(tmp_path / "trip [2024]" / "a.png")
    save(tmp_path / "trip [2024]" / "b.png")
    assert len(resolve_images(tmp_path / "trip [2024]")) == 2


def test_a_list_keeps_its_order_names_and_comments_aside(tmp_path: Path) -> None:
    for name in ("images/b 1.png", "images/a.png"):
        save(tmp_path / name)
    (tmp_path / "list.txt").write_text("# two pictures\n\nimages/b 1.png\n  images/a.png  \n")
    images = resolve_images(tmp_path / "list.txt")
    assert images.names == ("images/b 1.png", "images/a.png")
    assert images.paths == (tmp_path / "images/b 1.png", tmp_path / "images/a.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a.png\nframe-000000\n", ["list.txt:2", "frame-000000", "suffix"]),
        ("a.png\n# again\na.png\n", ["list.txt:3", "twice"]),
        ("# nothing\n", ["list.txt", "no image"]),
    ],
)
def test_a_wrong_list_names_file_and_line(tmp_path: Path, content: str, words: list[str]) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(InputError) as error:
        resolve_images(tmp_path / "list.txt")
    assert all(word in str(error.value) for word in words)


def test_unreadable_files_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "d.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"not an image at all")
    with caplog.at_level(logging.WARNING):
        images = resolve_images(tmp_path)
    assert [path.name for path in images.paths] == ["a.png", "d.png"]
    assert [Path(path).name for path, _ in images.skipped] == ["b.png", "c.jpg"]
    assert images.skipped[0][1] == "empty file"
    assert len(caplog.records) == 1
    assert "b.png" in caplog.text
    assert "c.jpg" in caplog.text


def test_too_few_images_are_an_error_that_counts_them(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 usable image.*b\.png.*at least 2"):
        resolve_images(tmp_path)
    assert len(resolve_images(tmp_path, minimum=1)) == 1
    assert resolve_images(tmp_path / "a.png", minimum=1).names == (str(tmp_path / "a.png"),)
    with pytest.raises(InputError, match="no image matches"):
        resolve_images(tmp_path / "nowhere")


def test_the_odd_size_is_named_even_if_it_comes_first(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 40, 24)
    save(tmp_path / "b.png")
    save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"a\.png is 40x24 but 2 of 3 images are 32x24.*cropped"):
        resolve_images(tmp_path)


@pytest.mark.parametrize(("size", "advice"), [((24, 32), "turn them by 90"), ((64, 48), "resize it")])
def test_odd_sizes_are_told_together_with_what_to_do(
    tmp_path: Path, size: tuple[int, int], advice: str
) -> None:
    for name in "abcdefgh":
        save(tmp_path / f"{name}.png")
    for name in "st":
        save(tmp_path / f"{name}.png", *size)
    with pytest.raises(InputError, match=rf"s\.png is .* and so differ .*t\.png .*{advice}"):
        resolve_images(tmp_path)


def test_photographs_that_cannot_be_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1.HEIC", "2.heic"):
        (tmp_path / name).write_bytes(b"ftypheic")
    for spec in (tmp_path, tmp_path / "1.HEIC", tmp_path / "*.heic"):
        with pytest.raises(InputError, match=r"\.(HEIC|heic): this format cannot be read here; convert"):
            resolve_images(spec)
    for name in "ab":
        save(tmp_path / f"{name}.jpg")
    with caplog.at_level(logging.WARNING):
        assert len(resolve_images(tmp_path)) == 2
    assert "2 photographs are left out" in caplog.text


def test_depth_maps_beside_colour_images_are_no_photographs(tmp_path: Path) -> None:
    """As in a sequence of 7-Scenes; depth maps alone were meant."""
    for row in range(2):
        save(tmp_path / f"frame-{row:06d}.color.png")
        save(tmp_path / f"frame-{row:06d}.depth.png")
    assert [path.name for path in resolve_images(tmp_path).paths] == [
        "frame-000000.color.png",
        "frame-000001.color.png",
    ]
    assert len(resolve_images(tmp_path / "*.depth.png")) == 2


def test_the_picture_that_a_run_made_of_itself_is_no_photograph(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "reconstruction.png"):
        save(tmp_path / name)
    assert len(resolve_images(tmp_path)) == 3
    (tmp_path / "config.toml").write_text("# acezero reconstruct photos photos")
    assert len(resolve_images(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_after_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    for name in "ab":
        save(tmp_path / f"{name}{suffix}", 32, 24, orientation)
    images = resolve_images(tmp_path)
    assert (images.width, images.height) == ((24, 32) if orientation >= 5 else (32, 24))


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    for name in "ab":
        data = save(tmp_path / f"{name}.png", 32, 24, 6).read_bytes()
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4])
        last = data.index(b"IEND") - 4
        (tmp_path / f"{name}.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    images = resolve_images(tmp_path)
    assert (images.width, images.height) == (24, 32)
    assert load_grey(images, 12).pixels.shape == (2, 1, 16, 12)


def test_subset_keeps_rows_together(tmp_path: Path) -> None:
    for name in "abcd":
        save(tmp_path / f"{name}.png")
    part = resolve_images(tmp_path).subset([3, 1])
    assert [Path(name).stem for name in part.names] == ["d", "b"]
    assert [path.stem for path in part.paths] == ["d", "b"]

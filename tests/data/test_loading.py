from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from acezero_gpu.data.image_set import resolve_images
from acezero_gpu.data.loading import load_colours, load_grey, working_size
from acezero_gpu.runtime import InputError


def smooth_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """RGB without detail that a resize could lose, so that two libraries must agree on it."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def load_one(path: Path, shortest_side: int) -> np.ndarray:
    return load_grey(resolve_images(path, minimum=1), shortest_side, minimum=1).pixels[0, 0].numpy()


@pytest.mark.parametrize(("width", "height", "side"), [(640, 480, 120), (301, 401, 100), (97, 64, 128)])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey_agrees_with_opencv(tmp_path: Path, width: int, height: int, side: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth_picture(width, height)).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    ours = load_one(path, side)
    theirs = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    method = cv2.INTER_AREA if side < min(width, height) else cv2.INTER_LANCZOS4
    theirs = cv2.resize(theirs, ours.shape[::-1], interpolation=method)
    assert min(ours.shape) == side
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    # A shift by half a pixel would show as several grey values here.
    assert difference.mean() < 1.0
    assert difference.max() <= 6


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(smooth_picture(96, 64, seed=orientation))
    picture.save(tmp_path / f"a{suffix}", exif=exif)
    ours = load_one(tmp_path / f"a{suffix}", 32)
    # Spelt out from the EXIF standard, so as not to ask Pillow's own exif_transpose.
    codes = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    upright = picture if codes[orientation] is None else picture.transpose(codes[orientation])
    expected = np.asarray(upright.convert("L").resize(ours.shape[::-1], Image.Resampling.LANCZOS))
    assert ours.shape == ((48, 32) if orientation >= 5 else (32, 48))
    assert np.abs(ours.astype(int) - expected.astype(int)).mean() < 1.5


def test_a_scaled_jpeg_decode_does_not_shift_the_picture(tmp_path: Path) -> None:
    """Sizes that the decoder's 1/8 steps do not divide: the part that it adds must be cut off again."""
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth_picture(273, 241)).save(path, quality=95)
    ours = load_one(path, 30)
    whole = cv2.resize(
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), ours.shape[::-1], interpolation=cv2.INTER_AREA
    )
    assert np.abs(ours.astype(int) - whole.astype(int)).max() <= 3


def test_sixteen_bits_become_eight_by_scaling(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    cv2.imwrite(str(tmp_path / "b.tif"), ramp)
    expected = np.round(ramp / 65535 * 255)
    for name in ("a.png", "b.tif"):
        assert np.abs(load_one(tmp_path / name, 48) - expected).max() == 0, name


def test_transparency_shows_white_and_other_modes_load(tmp_path: Path) -> None:
    rgba = np.zeros((40, 60, 4), dtype=np.uint8)
    rgba[:, 30:, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    grey = load_one(tmp_path / "a.png", 40)
    assert grey[:, :25].min() == 255
    assert grey[:, 35:].max() == 0
    picture = Image.fromarray(smooth_picture(60, 40))
    expected = np.asarray(picture.convert("L")).astype(int)
    for mode, name in (
        ("L", "l.png"),
        ("LA", "la.png"),
        ("P", "p.png"),
        ("CMYK", "c.jpg"),
        ("CMYK", "c.tif"),
        ("L", "l.bmp"),
    ):
        picture.convert(mode).save(tmp_path / name)
        difference = np.abs(load_one(tmp_path / name, 40).astype(int) - expected)
        assert difference.mean() < (12 if mode in ("P", "CMYK") else 0.1), name
    picture.convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(load_one(tmp_path / "bits.png", 40))) <= set(range(256))


def test_truncated_pixels_are_found_here_and_left_out(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.png", "d.jpg"):
        Image.fromarray(smooth_picture(320, 240, seed=ord(name[0]))).save(tmp_path / name)
    for name in ("b.jpg", "c.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    images = resolve_images(tmp_path)
    assert len(images) == 4
    loaded = load_grey(images, 24)
    assert [path.name for path in loaded.image_set.paths] == ["a.jpg", "d.jpg"]
    assert {Path(name).name for name, _ in loaded.image_set.skipped} == {"b.jpg", "c.png"}
    assert torch.equal(loaded.pixels[1, 0], torch.from_numpy(load_one(tmp_path / "d.jpg", 24)))
    with pytest.raises(InputError, match="at least 3"):
        load_grey(images, 24, minimum=3)


def test_batch_picks_rows_and_scales_to_one(tmp_path: Path, device: torch.device) -> None:
    for index in range(3):
        Image.fromarray(smooth_picture(50, 33, seed=index)).save(tmp_path / f"{index}.png")
    loaded = load_grey(resolve_images(tmp_path), 16)
    assert loaded.pixels.dtype == torch.uint8
    assert loaded.pixels.shape == (3, 1, 16, 24)
    assert loaded.scale_xy == (24 / 50, 16 / 33)
    batch = loaded.batch([2, 0], device)
    assert batch.device.type == device.type
    assert torch.allclose(batch.cpu() * 255, loaded.pixels[[2, 0]].float())
    assert torch.equal(loaded.batch(torch.tensor([2, 0])), loaded.batch([2, 0]))
    assert torch.equal(loaded.batch(slice(1, 3)), loaded.batch([1, 2]))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 333), (100, 100), (4032, 3024)])
def test_working_size_has_the_shortest_side_and_keeps_the_aspect(size: tuple[int, int]) -> None:
    width, height = working_size(*size, 480)
    assert min(width, height) == 480
    assert abs(width / height - size[0] / size[1]) < 0.5 / 480 * size[0] / size[1] + 1e-9


def test_colours_are_rgb_at_the_asked_size_and_black_if_unreadable(tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 40, 3), (200, 100, 50), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((30, 40, 3), (200, 100, 50), dtype=np.uint8)).save(tmp_path / "b.jpg", quality=95)
    (tmp_path / "c.jpg").write_bytes(b"broken")
    colours = load_colours([tmp_path / name for name in ("a.png", "b.jpg", "c.jpg")], (8, 6))
    assert colours.shape == (3, 6, 8, 3)
    assert torch.allclose(colours[:2].float(), torch.tensor([200.0, 100.0, 50.0]), atol=3)
    assert not colours[2].any()


def test_real_photographs_agree_with_opencv(real_data: Path) -> None:
    folder = real_data / "fern" / "images"
    if not folder.is_dir():
        pytest.skip("this image set is absent")
    images = resolve_images(folder, limit=3)
    loaded = load_grey(images, 240)
    for row, path in enumerate(images.paths):
        theirs = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        theirs = cv2.resize(theirs, loaded.pixels.shape[:-3:-1], interpolation=cv2.INTER_AREA)
        difference = np.abs(loaded.pixels[row, 0].numpy().astype(int) - theirs.astype(int))
        assert difference.mean() < 4.0

"""The script that makes the weights in the package, with a few steps of each of its stages."""

from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from reference.repository_scripts import load_script

from acezero_gpu.data.synthetic_textures import poster
from acezero_gpu.network.learned_encoder import load_learned_encoder, read_learned_encoder

TINY = """
network.channels=16 network.width=16 scene_share=0.0 side_px=64 pairs=4 anchors=32 warmup_steps=2 held_out=3
validation_pairs=2 validate_every=2 checkpoint_every=2
"""
SETTINGS = [*TINY.split()]


@pytest.fixture(scope="module")
def recipe():
    return load_script("train_packaged_encoder")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    for index in range(4):
        texture = poster(generator, 270, 300)
        iio.imwrite(folder / f"{index}.png", (texture * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    return folder


def test_each_stage_goes_on_from_the_one_before(recipe, pictures: Path, tmp_path: Path, capsys) -> None:
    weights = recipe.train(tmp_path, [pictures], "cpu", SETTINGS, steps=2)
    assert weights == tmp_path / "encoder.safetensors"
    stages = [
        read_learned_encoder(tmp_path / stage.name / "encoder.safetensors", "").config
        for stage in recipe.STAGES
    ]
    assert [(stage.coarser_levels, stage.scales) for stage in stages] == [(2, 1), (2, 1), (3, 1)]
    assert capsys.readouterr().err.count("starting from encoder.safetensors") == 2
    encoder = load_learned_encoder(weights)
    assert encoder.channels == 32
    one = load_learned_encoder(tmp_path / recipe.STAGES[-1].name / "encoder.safetensors")
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(encoder(image)[:, :16], one(image))


def test_a_recipe_that_was_interrupted_goes_on(recipe, pictures: Path, tmp_path: Path, capsys) -> None:
    recipe.train(tmp_path, [pictures], "cpu", SETTINGS, steps=2)
    capsys.readouterr()
    (tmp_path / "encoder.safetensors").unlink()
    recipe.train(tmp_path, [pictures], "cpu", SETTINGS, steps=2)
    assert capsys.readouterr().err.count("going on from step 2") == 3


def test_a_stage_that_fails_ends_the_recipe(recipe, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        recipe.train(tmp_path / "out", [tmp_path / "nothing"], "cpu", SETTINGS, steps=2)
    assert ended.value.code == 2

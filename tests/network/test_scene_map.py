"""Map files: what comes back is what went in, and files that are no maps are refused unread."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from acezero_gpu.network import Head, HeadConfig, SceneMap


def make_map(generator: torch.Generator, width: int = 32, channels: int = 24) -> SceneMap:
    centre = 1000 * torch.randn(3, generator=generator)
    head = Head(channels, HeadConfig(width=width), centre)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return SceneMap(head.eval().requires_grad_(False), "an-encoder", 240, 1.125, longest_to_shortest=4 / 3)


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def test_a_saved_map_comes_back_within_half_precision(device, generator, tmp_path):
    scene_map = make_map(generator)
    scene_map.save(tmp_path / "map.safetensors")
    loaded = SceneMap.load(tmp_path / "map.safetensors", device)
    assert (loaded.encoder_identifier, loaded.shortest_side_px) == ("an-encoder", 240)
    assert loaded.focal_to_shortest == 1.125
    assert loaded.focal_px(640, 480) == loaded.focal_px(480, 640) == 540
    assert loaded.longest_to_shortest == scene_map.longest_to_shortest
    for name, value in scene_map.head.state_dict().items():
        rounded = value if name == "centre" else value.half().float()
        assert torch.equal(loaded.head.state_dict()[name].cpu(), rounded), name
    features = torch.randn(2, 24, 3, 5, generator=generator)
    centred = scene_map.scene_coordinates(features) - scene_map.head.centre
    again = loaded.scene_coordinates(features.to(device)).cpu() - scene_map.head.centre
    assert (again - centred).abs().max() < 0.02 * centred.abs().max()
    assert not any(parameter.requires_grad for parameter in loaded.head.parameters())


@pytest.mark.parametrize(
    ("size", "focal_px"),
    [
        ((640, 360), 540.0),  # cropped above and below
        ((360, 640), 540.0),
        ((480, 480), 540.0),  # cropped left and right
        ((1280, 960), 1080.0),
        ((641, 480), 540.0),  # a rounded side
    ],
)
def test_cropped_images_keep_the_focal_length_of_the_camera(generator, size, focal_px):
    scene_map = make_map(generator)
    assert scene_map.focal_px(*size) == pytest.approx(focal_px)
    assert scene_map.has_shape_of(*size) == (size in ((1280, 960), (641, 480)))


def test_maps_of_earlier_versions_do_not_say_their_shape(generator):
    scene_map = replace(make_map(generator), longest_to_shortest=None)
    assert scene_map.has_shape_of(640, 360)
    assert scene_map.focal_px(640, 360) == pytest.approx(1.125 * 360)


def test_a_map_of_aces_size_takes_4_2_megabytes_and_leaves_no_other_file(generator, tmp_path):
    make_map(generator, width=512, channels=512).save(tmp_path / "map.safetensors")
    assert 4.2e6 < (tmp_path / "map.safetensors").stat().st_size < 4.22e6
    assert [path.name for path in tmp_path.iterdir()] == ["map.safetensors"]


def test_cells_come_row_by_row_whatever_the_chunks(device, generator):
    scene_map = make_map(generator)
    scene_map.head.to(device)
    features = torch.randn(2, 24, 3, 5, generator=generator).to(device)
    whole = scene_map.scene_coordinates(features)
    assert whole.shape == (1, 2, 15, 3)
    torch.testing.assert_close(
        scene_map.scene_coordinates(features, chunk_cells=7), whole, atol=1e-3, rtol=1e-3
    )
    for image, row, column in [(0, 0, 1), (0, 2, 0), (1, 1, 4)]:
        alone = scene_map.scene_coordinates(
            features[image : image + 1, :, row : row + 1, column : column + 1]
        )
        torch.testing.assert_close(whole[0, image, 5 * row + column], alone[0, 0, 0], atol=1e-3, rtol=1e-3)


def wrong_files(tmp_path: Path) -> dict[str, Path]:
    path = {
        name: tmp_path / name for name in ("text", "empty", "cut", "plain", "other", "headless", "absent")
    }
    path["text"].write_text("no map at all")
    path["empty"].write_bytes(b"")
    make_map(torch.Generator().manual_seed(0)).save(tmp_path / "whole")
    path["cut"].write_bytes((tmp_path / "whole").read_bytes()[:-100])
    save_file({"x": torch.zeros(3)}, path["plain"])
    save_file({"x": torch.zeros(3)}, path["other"], metadata={"map": '{"format": "acezero-map-99"}'})
    meta = '{"format": "acezero-map-1", "encoder": "e", "shortest_side_px": 1, "focal_to_shortest": 1.0}'
    save_file({"x": torch.zeros(3)}, path["headless"], metadata={"map": meta})
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "plain", "other", "headless", "absent"])
def test_a_file_that_is_no_map_is_refused_in_one_sentence(tmp_path, kind):
    path = wrong_files(tmp_path)[kind]
    with pytest.raises(ValueError) as caught:
        SceneMap.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickled_file_is_refused_without_running_it(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload must work where it is let"
    trace.unlink()
    (tmp_path / "pickle").write_bytes(pickle.dumps(Payload(trace)))
    torch.save({"head": Payload(trace)}, tmp_path / "torch")
    for name in ("pickle", "torch"):
        with pytest.raises(ValueError, match="not a readable map file"):
            SceneMap.load(tmp_path / name)
        assert not trace.exists()


def test_a_map_from_before_heads_had_a_unit_is_read(generator, tmp_path):
    scene_map = make_map(generator)
    scene_map.save(tmp_path / "map.safetensors")
    with safe_open(tmp_path / "map.safetensors", "pt") as file:
        meta, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del state["unit"]
    save_file(state, tmp_path / "old.safetensors", metadata=meta)
    features = torch.randn(1, 24, 3, 5, generator=generator)
    old, new = (SceneMap.load(tmp_path / f"{name}.safetensors") for name in ("old", "map"))
    assert torch.equal(old.scene_coordinates(features), new.scene_coordinates(features))

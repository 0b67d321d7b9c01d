"""Pictures of a rendered room that the map was not trained on are placed within centimetres of the truth."""

import torch
from reference.rendered_room import walked_room

from acezero_gpu.geometry import camera_centres, rotation_angle_deg
from acezero_gpu.mapping import (
    CalibrationConfig,
    FrameTable,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.network import HeadConfig, SceneMap
from acezero_gpu.registration import RegistrationConfig, register_images

CONFIG = TrainingConfig(
    head=HeadConfig(width=128),
    schedule=ScheduleConfig(iterations=600, lr_max=0.002, warmup_iterations=20, cooldown_iterations=200),
    poses=PoseRefinementConfig(name="none"),
    calibration=CalibrationConfig(refine=False),
    batch_size=1024,
    report_every=50,
)


def test_every_second_picture_is_placed_by_a_map_of_the_others(device):
    room = walked_room()
    bank = room.bank(device)
    mapped, held_out = torch.arange(0, len(room), 2), torch.arange(1, len(room), 2)
    camera = bank.camera(float(room.camera.focal_px[0]))
    bank.fill_buffer(mapped)
    result = train_map(
        bank.buffer,
        FrameTable(mapped.to(device), room.cam_from_world[mapped].to(device), camera),
        CONFIG.scaled(bank.pixel_scale),
        generator=torch.Generator(device=device).manual_seed(0),
    )
    assert result.log[0].inlier_share < 0.1
    assert result.log[-1].inlier_share > 0.2
    found = register_images(
        bank.features,
        held_out,
        SceneMap(result.head, bank.encoder.identifier, bank.height, 1.0),
        camera,
        RegistrationConfig(),
        stride=8,
        pixel_scale=bank.pixel_scale,
        generator=torch.Generator().manual_seed(0),
    )
    poses, truth = found.cam_from_world.cpu(), room.cam_from_world[held_out]
    angle = rotation_angle_deg(poses[:, :, :3], truth[:, :, :3])
    distance = (camera_centres(poses) - camera_centres(truth)).norm(dim=-1)
    assert found.registered(RegistrationConfig()).float().mean() > 0.8
    assert angle.median() < 2.5
    assert distance.median() < 0.12  # metres, in a room of six

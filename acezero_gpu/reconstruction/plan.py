"""What the loop expects to do next and how long that typically takes, for whoever tells the time left.

The costs were measured on one core of a 2.6 GHz x86 server; a run corrects them by its own pace as it goes on.
"""

from acezero_gpu.mapping import ScheduleConfig, TrainingConfig
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.state import StepName
from acezero_gpu.runtime.progress import Work

STARTS_S, SEEDS_S, ADJUSTMENT_S = 8.0, 0.75, 0.6
"""For the starts that are tried; then per image: keypoints and matches, and what follows from them."""
ENCODE_S, REGISTER_S = 0.6, 0.2
"""Per million pixels of the network image, and pass or registration."""
LOOK_SHARE = 0.08
"""Of a registration: what a look at one of several heads takes."""
PATCH_STEP_S = 2.6e-10
"""Per patch of a training step, and an eighth of the head's weights."""
MUON_STEP_S = 1e-9
"""Per cube of the head's width, once a step: Muon's products."""
GROWTH_ROUNDS_WITHOUT_ADJUSTMENT = 3
"""Rounds that a map alone typically needs; with keypoint adjustment after each round mostly none is needed."""


def mapping_work(
    bank: ImageBank, training: TrainingConfig, schedule: ScheduleConfig, images: int, heads: int = 1
) -> list[Work]:
    """Training patches of so many images, and a map of them."""
    patches = images * bank.buffer.passes * bank.buffer.per_pass
    steps = schedule.bounded(patches // heads, training.batch_size).iterations
    megapixels = bank.height * bank.width / 1e6
    buffer = Work("buffer", ENCODE_S * megapixels * images * bank.buffer.passes, "images")
    width, channels = training.head.width, bank.encoder.channels
    step_s = PATCH_STEP_S * training.batch_size * (width + channels / 4) * width
    step_s += MUON_STEP_S * width**3 if training.optimiser == "muon" else 0.0
    return [buffer, Work("mapping", heads * step_s * steps, "steps")]


def registration_work(bank: ImageBank, heads: int = 1) -> Work:
    """Registering all images in a map of so many heads."""
    looks = 1.0 if heads == 1 else 1.0 + LOOK_SHARE * heads
    return Work("registration", REGISTER_S * looks * bank.height * bank.width / 1e6 * len(bank), "images")


def expected_work(
    bank: ImageBank, config: LoopConfig, part: StepName, *, placed: int, maps_seeds: bool = True
) -> list[Work]:
    """Everything from the beginning of this part of the loop to its end.

    ``placed`` images are registered now; ``maps_seeds`` is off where keypoints alone let the best seed grow. A growth
    round is taken to be the last one before the final.
    """
    count = len(bank)
    adjusts = config.joint.when != "off"
    adjustment = [Work("adjustment", ADJUSTMENT_S * count)] if adjusts else []
    if part == "final":
        size = config.final_map.with_encoder(bank.encoder.identifier)
        heads = size.heads_for(placed)
        training = size.training(config.training, heads)
        mapped = mapping_work(bank, training, config.final_schedule, placed, heads)
        return [*mapped, registration_work(bank, heads)]
    final = expected_work(bank, config, "final", placed=count)
    mapped = mapping_work(bank, config.training, config.growth_schedule, placed)
    growth = [*mapped, registration_work(bank), *adjustment]
    if part == "iteration":
        return growth + final
    block = min(count, config.seeds.block_views)
    mapped = mapping_work(bank, config.training, config.seed_schedule, block)
    tries = config.seeds.mapped_tries * [*mapped, registration_work(bank)] if maps_seeds else []
    every = config.joint.when == "every"
    rounds = adjustment if every else GROWTH_ROUNDS_WITHOUT_ADJUSTMENT * growth
    return [Work("seeds", STARTS_S + SEEDS_S * count), *tries, *rounds, *final]

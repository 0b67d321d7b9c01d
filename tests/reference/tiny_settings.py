"""Settings for whole runs on ten pictures of 240 x 180 pixels, in seconds."""

TINY = (
    "bank.shortest_side_px=120",
    "bank.keypoint_side_px=180",
    "bank.buffer.max_passes=1",
    "loop.training.head.width=64",
    "loop.training.batch_size=1024",
    "loop.final_map.width=64",
    "loop.seed_schedule.iterations=300",
    "loop.seed_schedule.cooldown_iterations=100",
    "loop.seed_schedule.lr_max=0.01",
    "loop.growth_schedule.iterations=50",
    "loop.final_schedule.lr_max=0.01",
    "loop.final_schedule.max_epochs=0",
    "loop.seeds.mapped_tries=1",
    "loop.seeds.tries=1",
    "loop.seeds.growth_candidates=3",
)


def tiny_flags(*more: str) -> list[str]:
    """These and further settings as flags of a command; the last map's steps are for the caller to say."""
    return ["--device", "cpu", *(part for setting in (*TINY, *more) for part in ("--set", setting))]

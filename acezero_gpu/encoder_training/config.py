"""All that the training of an encoder depends on, beside its pictures."""

from dataclasses import dataclass, field

from acezero_gpu.encoder_training.homography_pairs import HomographyConfig
from acezero_gpu.encoder_training.photometric import PhotometricConfig
from acezero_gpu.encoder_training.scene_pairs import SceneConfig
from acezero_gpu.network.learned_encoder import LearnedEncoderConfig


@dataclass(frozen=True, slots=True)
class EncoderTrainingConfig:
    """The recipe."""

    network: LearnedEncoderConfig = field(default_factory=LearnedEncoderConfig)
    homography: HomographyConfig = field(default_factory=HomographyConfig)
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    scenes: SceneConfig = field(default_factory=SceneConfig)
    seed: int = 1305
    """Start of all random streams."""
    side_px: int = 192
    """Side of the square views."""
    pairs: int = 8
    """Pairs of views in one step."""
    scene_share: float = 0.375
    """Share of the pairs that show synthetic rooms; the others are homographies of photographs."""
    anchors: int = 256
    """Cells of each view that look for their match in one step."""
    steps: int = 12_000
    """Steps of the whole training."""
    learning_rate: float = 2e-3
    """Highest learning rate; it rises over the first steps and then falls along a cosine."""
    warmup_steps: int = 200
    """Steps of the rise."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    held_out: int = 20
    """Every so-manieth picture is for validation only."""
    validation_pairs: int = 32
    """Pairs of each kind that checkpoints are compared on."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 250
    """Steps between checkpoints; an interrupted training loses at most these."""

"""``history.json``: the rounds of a reconstruction and how each image fared, written after every round."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.reconstruction.history import ImageRecord, RoundRecord, RunHistory
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

FORMAT = "acezero-history-1"
_COLUMNS = tuple(field.name for field in fields(TrainingProgress))


def write_history(path: str | Path, history: RunHistory) -> None:
    """The file appears complete or not at all; numbers keep their digits."""
    content: dict[str, Any] = {"format": FORMAT, **asdict(history)}
    for record, round_ in zip(content["rounds"], history.rounds, strict=True):
        record["training"] = {
            column: [getattr(entry, column) for entry in round_.training] for column in _COLUMNS
        }
    write_atomically(path, json.dumps(content, ensure_ascii=False) + "\n")


def read_history(path: str | Path) -> RunHistory:
    """What ``write_history`` wrote; ``InputError`` for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8", errors="surrogateescape"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        rounds = tuple(_round(record) for record in content.pop("rounds"))
        images = tuple(ImageRecord(**record) for record in content.pop("images"))
        width, height = content.pop("image_size_px")
        skipped = tuple((str(file), str(reason)) for file, reason in content.pop("skipped"))
        return RunHistory(
            rounds=rounds, images=images, image_size_px=(width, height), skipped=skipped, **content
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path}: not the history of a reconstruction; remove it to go on without it, or reconstruct again."
        ) from None


def _round(record: dict[str, Any]) -> RoundRecord:
    columns = record.pop("training")
    rows = zip(*(columns[column] for column in _COLUMNS), strict=True)
    training = tuple(TrainingProgress(*row) for row in rows)
    return RoundRecord(training=training, **record)

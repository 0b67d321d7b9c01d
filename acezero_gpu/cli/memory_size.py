"""Sizes of memory as people write them."""

import re

from acezero_gpu.runtime import InputError

UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?", re.IGNORECASE)


def memory_bytes(text: str | None, flag: str) -> int | None:
    """``6GB`` in powers of 1000, ``512MiB`` in powers of 1024. ``InputError`` for what is no size above zero."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"{flag} {text}: give a size above zero with its unit, as 6GB or 512MiB.")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** UNITS[found[2].upper()])

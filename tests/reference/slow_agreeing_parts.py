"""Twin of ``adjustment.agreeing_parts``: all evidence between all parts is added up anew before every step."""

import itertools


def slow_agreeing_parts(pairs: list[tuple[int, int, float]], views: int) -> list[set[int]]:
    """Sets of views; the two parts with most evidence for each other join until none is positive."""
    parts = [{view} for view in range(views)]
    while True:
        best, found = 0.0, None
        for one, other in itertools.combinations(parts, 2):
            total = sum(w for a, b, w in pairs if (a in one and b in other) or (b in one and a in other))
            if total > best:
                best, found = total, (one, other)
        if found is None:
            return parts
        parts = [part for part in parts if part not in found] + [found[0] | found[1]]

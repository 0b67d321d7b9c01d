"""Streams repeat under the same name and differ under any other."""

import torch

from acezero_gpu.runtime import random_stream


def draws(*name: str | int) -> list[int]:
    return torch.randint(2**31, (8,), generator=random_stream(*name)).tolist()


def test_the_same_name_gives_the_same_draws():
    assert draws(7, "mapping", 3) == draws(7, "mapping", 3)


def test_seed_and_every_part_of_the_name_matter():
    names = [(7,), (8,), (7, "mapping"), (7, "mapping", 1), (7, "mapping", 2), (7, "registration"), (71,)]
    assert len({tuple(draws(*name)) for name in names}) == len(names)


def test_one_stream_does_not_depend_on_what_another_drew():
    alone = draws(7, "b")
    torch.rand(1000, generator=random_stream(7, "a"))
    torch.rand(1000)
    assert draws(7, "b") == alone


def test_draws_are_those_of_every_machine():
    # Frozen: a change here changes every result that a seed stands for.
    assert torch.randint(1000, (4,), generator=random_stream(2024, "seeds")).tolist() == [386, 123, 229, 518]

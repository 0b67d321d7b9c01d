"""Optional compilation: what the first call says, that it is done once, and the way back."""

import logging

import pytest
import torch
from torch._inductor import config as inductor

from acezero_gpu.runtime import compilation
from acezero_gpu.runtime.compilation import compiled


@pytest.fixture
def compiler(monkeypatch) -> list[dict]:
    """``torch.compile`` replaced by one that returns the function; the options of its calls."""
    calls: list[dict] = []

    def pretend(function, **options):
        calls.append(options)
        return function

    monkeypatch.setattr(torch, "compile", pretend)
    return calls


def test_the_first_call_says_that_it_compiles_and_later_ones_nothing(compiler, caplog):
    def _tripled(x: int) -> int:
        return 3 * x

    with caplog.at_level(logging.INFO):
        assert compiled(_tripled)(2) == 6
    assert [record.getMessage().split(".")[0] for record in caplog.records] == [
        "Compiling tripled",
        "Compiled tripled in 0 s",
    ]
    caplog.clear()
    assert compiled(_tripled)(5) == 15
    assert not caplog.records
    assert len(compiler) == 1  # one compilation, whoever asks
    assert compiler[0]["dynamic"]  # for any shapes
    assert compiler[0]["fullgraph"]


def test_one_pass_is_another_compilation(compiler):
    def doubled(x: int) -> int:
        return 2 * x

    assert compiled(doubled) is not compiled(doubled, one_pass=True)
    plain, one_pass = (call["options"] for call in compiler)
    assert set(plain) < set(one_pass)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failing_compiler_is_left_with_one_warning(monkeypatch, caplog, fails_at):
    """At the first call, or at a later one, where other types are compiled anew."""
    calls = []

    def failing(function, **options):
        def run(x):
            calls.append(x)
            if len(calls) >= fails_at:
                raise RuntimeError("\n  no compiler found\nand much more")
            return function(x)

        return run

    monkeypatch.setattr(torch, "compile", failing)

    def squared(x: int) -> int:
        return x * x

    with caplog.at_level(logging.INFO):
        assert [compiled(squared)(x) for x in (2, 3, 4)] == [4, 9, 16]
    warnings = [r.getMessage() for r in caplog.records if "failed" in r.getMessage()]
    assert len(warnings) == 1
    assert "RuntimeError: no compiler found);" in warnings[0]
    assert "g++" in warnings[0]
    assert len(calls) == fails_at  # never tried again
    assert any("Compiled squared" in r.getMessage() for r in caplog.records) == (fails_at > 1)


def test_wrong_arguments_raise_their_own_error_and_change_nothing(compiler):
    def half(x: float) -> float:
        return x / 2

    with pytest.raises(TypeError, match="unsupported operand"):
        compiled(half)("a")
    assert compiled(half)(3.0) == 1.5
    assert compiled(half)._fast is not None


def test_options_are_those_that_this_version_has():
    for one_pass in (False, True):
        for name in compilation._options(one_pass):
            found = inductor
            for part in name.split("."):
                found = getattr(found, part)

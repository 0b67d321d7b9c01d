"""Calling the command line inside the test process, and the small folders it is called on."""

from pathlib import Path

import pytest
from cli_calls import Call, Said, picture
from nvs_run import large_photos, run  # noqa: F401 - fixtures

from acezero_gpu.cli import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """``call("evaluate", …)`` as the shell would."""

    def typed(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return typed


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three small pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        picture(index).save(folder / f"photo_{index}.png")
    return folder


@pytest.fixture
def no_loop(monkeypatch: pytest.MonkeyPatch) -> list:
    """The loop is replaced by one that gives up at once; what it was called with is kept."""
    from acezero_gpu.reconstruction import ReconstructionError

    calls: list = []

    def give_up(bank, camera, config, **others):
        calls.append((bank, camera, config, others))
        raise ReconstructionError("No start was found; add images.")
        yield

    monkeypatch.setattr("acezero_gpu.cli.reconstruct.run_loop", give_up)
    return calls

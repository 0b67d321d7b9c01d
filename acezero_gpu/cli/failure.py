"""Which exceptions are meant for the user, in which words, with which exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from acezero_gpu.reconstruction import ReconstructionError
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.distributed import RankLostError
from acezero_gpu.runtime.memory import is_out_of_memory


class RunFailedError(RuntimeError):
    """The input was in order, the result is not; the message says what happened and what to try."""


def sentence_and_code(error: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code for an exception that the user can act on, None for a defect."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, RunFailedError | ReconstructionError | RankLostError):
        return str(error), 1
    if isinstance(error, FloatingPointError):
        return f"{str(error).rstrip('.')}; try another --seed, or a lower learning rate with --set.", 1
    if is_out_of_memory(error):
        return "the memory is full; try a --memory-budget below what there is, or --buffer-device cpu.", 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.", 1
    # The parser's own exceptions: which package defines them differs between versions of typer.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _usage(error.format_message()), int(error.exit_code)
    return None


def _usage(message: str) -> str:
    if not message.strip():
        return ""  # the help was shown instead
    message = message.replace("Value error, ", "").rstrip(".")
    if "unexpected extra argument" in message:
        first = message.partition(" (")[2].split(" ")[0].rstrip(")")
        message = f"More arguments than expected, from {first} on; put a glob in quotes"
    return f"{message} (acezero COMMAND --help shows what there is)."


@contextmanager
def as_input_error() -> Iterator[None]:
    """For library calls whose ``ValueError`` or ``OSError`` is a sentence about a file or a flag."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}).") from error

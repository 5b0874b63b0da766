"""The exceptions of this project: one small tree, each with what to do about it.

::

    InstructBlipError
    ├── BadRequest            the caller's input; ask again with other input
    │   ├── PictureError      bytes that are not a picture we can read
    │   ├── PromptTooLong     a single turn that can never fit into the context
    │   ├── BadParameter      a sampling value out of its range
    │   └── UnknownTurn       a turn, chat or picture that is not there (or not the asker's)
    ├── CheckpointError       weights or their files
    ├── DeviceError           the device, its driver or its memory
    │   └── OutOfMemory
    ├── Busy                  the waiting line is full; try again later
    └── EngineStopped         the engine is shutting down or has died
"""

from __future__ import annotations


class InstructBlipError(Exception):
    """Base of all errors raised on purpose.

    ``code`` names the message for translation; ``values`` fill its placeholders. ``str(error)``
    is the full English sentence: what happened, to which file or value, and what to do next.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, **values: object) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.code, self.values)


def _rebuild(
    kind: type[InstructBlipError], message: str, code: str, values: dict[str, object]
) -> InstructBlipError:
    return kind(message, code=code, **values)


class BadRequest(InstructBlipError):
    """The caller's input cannot be used; other input can."""

    code = "bad_request"


class PictureError(BadRequest):
    """Bytes that are not a picture we can read."""

    code = "picture_unreadable"


class PromptTooLong(BadRequest):
    """One turn alone is longer than the model's context."""

    code = "prompt_too_long"


class BadParameter(BadRequest):
    """A sampling value outside its allowed range."""

    code = "bad_parameter"


class UnknownTurn(BadRequest):
    """A chat, turn or picture id that does not exist or belongs to somebody else."""

    code = "unknown_turn"


class CheckpointError(InstructBlipError):
    """Weights, or the files beside them, are missing or do not fit."""

    code = "checkpoint"


class DeviceError(InstructBlipError):
    """The device, its driver or its run time failed."""

    code = "device"


class OutOfMemory(DeviceError):
    """The device has no memory left for this request."""

    code = "out_of_memory"


class Busy(InstructBlipError):
    """The waiting line is full."""

    code = "busy"


class EngineStopped(InstructBlipError):
    """The engine is shutting down, or its thread has died."""

    code = "engine_stopped"


# --- errors that arise in more than one place, or in the engine --------------------------------------


def not_finite() -> DeviceError:
    """The error of a request whose logits are no numbers."""
    return DeviceError(
        "The model's output is not a number (NaN): an overflow, or damaged weights. "
        "Try --dtype fp32 or bf16, or load the weights again.",
        code="not_finite",
    )


def restarted() -> InstructBlipError:
    """The error of a request that the engine could not finish in two tries."""
    return InstructBlipError(
        "The engine had to start again while it answered. Ask again.", code="engine_restarted"
    )


def engine_dead(error: BaseException) -> EngineStopped:
    """The error of all requests of an engine that gave up."""
    return EngineStopped(
        f"The engine has stopped: it failed again and again (at last: {type(error).__name__}). "
        "Restart the server, then ask again; its log has the details.",
        code="engine_dead",
    )


def engine_silent(seconds: float) -> EngineStopped:
    """The error of all requests of an engine whose device does not come back."""
    return EngineStopped(
        f"The device has not finished a unit of work for {seconds:.0f} s. If it stays so, restart "
        "the server, then ask again.",
        code="engine_silent",
    )


def engine_closed() -> EngineStopped:
    """The error of who asks an engine that was closed."""
    return EngineStopped("The engine is shutting down. Start the server again.")


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error that cannot be told is told by its kind
        return type(error).__name__


def failed_inside(error: BaseException) -> InstructBlipError:
    """The error of a request that met a fault of ours."""
    return InstructBlipError(
        f"The answer failed inside the engine ({_words(error)}). "
        "Ask again; the server's log has the details.",
        code="internal",
    )

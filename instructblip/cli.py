"""``python -m instructblip COMMAND``: the commands, and how their errors are told.

Exit codes: 0 done, 1 failed, 2 asked for wrongly. An error is one line on stderr; ``--debug``
shows where it came from.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from instructblip import bench, doctor, evaluate, infer, terminal
from instructblip.checkpoints import convert, delta
from instructblip.errors import BadRequest, InstructBlipError
from instructblip.training import command as training


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as end:  # --help, or flags that argparse refused
        return int(end.code or 0)
    _write_any_letter()
    try:
        with warnings.catch_warnings():
            if not args.debug and not sys.warnoptions:
                # A library's, about what its callers should write or a file that it reads.
                warnings.simplefilter("ignore")
            code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head -n 1`
        _drop_output()
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {told(error)}", file=sys.stderr)
        return exit_code(error)


def told(error: BaseException) -> str:
    """An error as one line: what happened, and what to do next."""
    if isinstance(error, InstructBlipError):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by Ctrl-C. {error}".rstrip()
    if isinstance(error, MemoryError):
        return "this machine's memory does not suffice. Close other programs, or use --dtype bf16."
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}. Check the path, its permissions and the disk's room."
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"it failed inside ({words}). Give the same command with --debug to see where."


def exit_code(error: BaseException) -> int:
    """2 where the caller's words were wrong or name something that is not there; otherwise 1."""
    if isinstance(error, InstructBlipError) and error.code.endswith(("_absent", "_unknown")):
        return 2
    return 2 if isinstance(error, BadRequest) else 1


def _write_any_letter() -> None:
    """Let a terminal that cannot show a letter of an answer get its number, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Keep the interpreter from complaining about the closed pipe once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Tells a wrong flag in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m instructblip", description=(__doc__ or "").split(":")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    answer = commands.add_parser("infer", help="answers about pictures, folders or lists")
    infer.add_flags(answer)
    answer.set_defaults(run=infer.run)
    chat = commands.add_parser("chat", help="talk about a picture in the terminal")
    terminal.add_flags(chat)
    chat.set_defaults(run=terminal.run)
    figures = commands.add_parser("eval", help="how often the embedded model is right")
    evaluate.add_flags(figures)
    figures.set_defaults(run=evaluate.run)
    speeds = commands.add_parser("bench", help="what the engine's caches and kernels gain")
    bench.add_flags(speeds)
    speeds.set_defaults(run=bench.run)
    lessons = commands.add_parser("train-embedded", help="train the embedded model")
    training.add_flags(lessons)
    lessons.set_defaults(run=training.run)
    weights = commands.add_parser("convert", help="weights in any layout → one folder")
    convert.add_flags(weights)
    weights.set_defaults(run=convert.run)
    vicuna = commands.add_parser("vicuna", help="LLaMA and Vicuna's delta → Vicuna")
    delta.add_flags(vicuna)
    vicuna.set_defaults(run=delta.run)
    look = commands.add_parser("doctor", help="whether a folder of weights will work here")
    doctor.add_flags(look)
    look.set_defaults(run=doctor.run)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser

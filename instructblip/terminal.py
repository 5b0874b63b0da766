"""A conversation on a terminal: ``python -m instructblip chat``."""

from __future__ import annotations

import argparse
import hashlib
import sys
import uuid
from pathlib import Path
from typing import Any

from instructblip.arguments import (
    add_flag,
    add_model_flags,
    add_sampling_flags,
    load_model,
    sampling,
)
from instructblip.engine.base import Engine, FinishReason, PastTurn, Request, SamplingParams
from instructblip.errors import InstructBlipError

CHAT_HELP = (
    "Type a question. /picture PATH takes another picture, /retry asks again, "
    "/undo takes the last turn back, /new starts over, /quit ends."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``chat``."""
    add_flag(parser, "img_path", help="the picture's file")
    parser.add_argument("--layout", help="refresh, keep or append; default: the model's")
    add_model_flags(parser)
    add_sampling_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Read questions from the terminal until /quit."""
    sampling(args, SamplingParams())  # a wrong value is told before the model is loaded
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(load_model(args))
    try:
        session = TerminalChat(engine, sampling(args, engine.card.generation), args.layout)
        if args.img_path:
            session.take_file(args.img_path)
        print(CHAT_HELP)
        return session.run(sys.stdin)
    finally:
        engine.close()


class TerminalChat:
    """A conversation on a terminal over any Engine."""

    def __init__(
        self, engine: Engine, sampling: SamplingParams, layout: str | None, out: Any = None
    ) -> None:
        from instructblip.conversation import Conversation

        self._engine = engine
        self._sampling = sampling
        self._layout = layout
        self._out = out or sys.stdout
        self._picture: str | None = None
        self._new = Conversation
        self.conversation = Conversation()

    def take_file(self, path: str) -> None:
        """Use the picture in a file for the turns to come, upright as the page shows it."""
        try:
            data = Path(path).expanduser().read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name that can be none
            why = getattr(error, "strerror", None) or error
            raise InstructBlipError(
                f"Cannot read the picture {path}: {why}. Check the path."
            ) from error
        self.take_picture(data)

    def take_picture(self, data: bytes) -> None:
        """Use these bytes for the turns to come."""
        from instructblip.images import note_text, prepare

        prepared = prepare(data)
        for code in prepared.notes:
            print(note_text(code), file=self._out)
        self.use_picture(prepared.data)

    def use_picture(self, data: bytes) -> None:
        """Use these bytes as they are: already upright, or meant to be seen as LAVIS sees them."""
        self._picture = hashlib.sha256(data).hexdigest()[:32]
        self._engine.register_picture(self._picture, data)

    def ask(self, question: str) -> FinishReason:
        """Ask, print the answer as it streams, and add the turn.

        Raises:
            InstructBlipError: whatever ended the answer.
        """
        if self._picture is None:
            raise InstructBlipError("There is no picture yet: /picture PATH takes one.")
        history = self.conversation.path()
        turn_id = uuid.uuid4().hex
        request = Request(
            turn_id, question, self._picture, history, self._sampling, layout=self._layout
        )
        stream, text = self._engine.submit(request), ""
        try:
            for delta in stream:
                text += delta.text
                print(delta.text, end="", file=self._out, flush=True)
        except KeyboardInterrupt:
            stream.cancel()
            delta = list(stream)[-1]
        print(file=self._out)
        if delta.error is not None:
            raise delta.error
        past = PastTurn(
            turn_id,
            question,
            self._picture,
            delta.answer_ids,
            text,
            delta.qformer_text,
            self._engine.card.tokenizer,
        )
        self.conversation.add(past, self.conversation.leaf)
        return delta.finish or FinishReason.ERROR

    def run(self, lines: Any) -> int:
        """Read lines until /quit or the end of input."""
        while True:
            print("> ", end="", file=self._out, flush=True)
            line = lines.readline()
            if not line or line.strip() == "/quit":
                return 0
            try:
                self._line(line.strip())
            except InstructBlipError as error:
                print(error, file=self._out)

    def _line(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/picture":
            self.take_file(rest.strip())
        elif command == "/new":
            self.conversation = self._new()
        elif command == "/undo":
            question = self.conversation.undo()
            print(f"Taken back: {question}" if question else "Nothing to undo.", file=self._out)
        elif command == "/retry":
            question = self.conversation.undo()
            if question is None:
                raise InstructBlipError("There is nothing to ask again yet.")
            self.ask(question)
        elif command.startswith("/"):
            print(CHAT_HELP, file=self._out)
        elif line:
            self.ask(line)

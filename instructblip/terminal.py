"""A conversation on a terminal: ``python -m instructblip chat``."""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import uuid
from typing import Any

from instructblip.arguments import (
    add_flag,
    add_model_flags,
    add_sampling_flags,
    load_model,
    sampling,
)
from instructblip.engine.base import Engine, FinishReason, PastTurn, Request, SamplingParams
from instructblip.errors import InstructBlipError, PictureError
from instructblip.paths import as_file, dropped_file
from instructblip.texts import known_encoding
from instructblip.typed import Lines

CHAT_HELP = (
    "Type a question. /picture PATH takes another picture, /retry asks again, "
    "/undo takes the last turn back, /new starts over, /quit ends."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``chat``."""
    add_flag(parser, "img_path", help="the picture's file")
    parser.add_argument("--encoding", help="of the terminal, such as gb18030; told otherwise")
    parser.add_argument("--layout", help="refresh, keep or append; default: the model's")
    add_model_flags(parser)
    add_sampling_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Read questions from the terminal until /quit."""
    sampling(args, SamplingParams())  # a wrong value is told before the model is loaded
    encoding = known_encoding(args.encoding) if args.encoding is not None else None
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(load_model(args))
    try:
        if encoding and not encoding.startswith("utf") and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding=encoding)
        session = TerminalChat(
            engine, sampling(args, engine.card.generation), args.layout, encoding=encoding
        )
        if args.img_path:
            session.take_file(args.img_path)
        print(CHAT_HELP)
        return session.run(sys.stdin)
    finally:
        engine.close()


class TerminalChat:
    """A conversation on a terminal over any Engine."""

    def __init__(
        self, engine: Engine, sampling: SamplingParams, layout: str | None, out: Any = None,
        encoding: str | None = None,
    ) -> None:  # fmt: skip
        from instructblip.conversation import Conversation

        self._engine = engine
        self._sampling = sampling
        self._layout = layout
        self._out = out or sys.stdout
        self._encoding = encoding
        self._picture: str | None = None
        self._new = Conversation
        self.conversation = Conversation()

    def take_file(self, words: str) -> None:
        """Use the picture in a file for the turns to come, upright as the page shows it.

        Raises:
            PictureError: it is not there, or no picture; or the words are an address.
        """
        if not words.strip():
            raise PictureError("No picture is named: /picture PATH takes one.", code="no_picture")
        path = as_file(words)
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name that can be none
            why = getattr(error, "strerror", None) or error
            raise PictureError(
                f"Cannot read the picture {path}: {why}. Check the path.",
                code="picture_absent",
                name=str(path),
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
        """Read lines until /quit or the end of input. A line that cannot be used is told, and the
        next one read."""
        typed = Lines(lines, self._encoding, self._say)
        while True:
            print("> ", end="", file=self._out, flush=True)
            try:
                line = typed.readline()
                if line is None or line == "/quit":
                    return 0
                self._line(line)
            except InstructBlipError as error:
                self._say(str(error))

    def _line(self, line: str) -> None:
        command = line.partition(" ")[0]
        if command == "/picture" or line.startswith("/picture\t"):
            self.take_file(line.removeprefix("/picture").strip())
        elif command == "/new":
            self.conversation = self._new()
        elif command == "/undo":
            question = self.conversation.undo()
            self._say(f"Taken back: {question}" if question else "Nothing to undo.")
        elif command == "/retry":
            question = self.conversation.undo()
            if question is None:
                raise InstructBlipError("There is nothing to ask again yet.")
            self.ask(question)
        elif (dropped := dropped_file(line)) is not None:
            self.take_file(str(dropped))
            self._say(f"The picture is {dropped.name} now.")
        elif command.startswith("/"):
            self._say(CHAT_HELP)
        elif line:
            self.ask(line)

    def _say(self, words: str) -> None:
        print(words, file=self._out)

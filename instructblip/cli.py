"""``python -m instructblip infer | chat | eval``: an answer, a conversation, the model's figures."""

from __future__ import annotations

import argparse
import hashlib
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructblip import evaluate
from instructblip.training import command as training
from instructblip.engine.base import Engine, FinishReason, PastTurn, Request, SamplingParams
from instructblip.errors import InstructBlipError
from instructblip.quick import no_collection

if TYPE_CHECKING:
    from instructblip.model import InstructBlip

CHAT_HELP = (
    "Type a question. /picture PATH takes another picture, /retry asks again, "
    "/undo takes the last turn back, /new starts over, /quit ends."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors of the project go to stderr as one sentence, exit code 2."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except InstructBlipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m instructblip", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="infer | chat | eval")
    infer = commands.add_parser("infer", help="one picture, one prompt, one answer")
    infer.add_argument("--img_path", "--img-path", required=True, help="the picture's file")
    infer.add_argument("--prompt", required=True, help="the question or instruction")
    chat = commands.add_parser("chat", help="talk about a picture in the terminal")
    chat.add_argument("--img_path", "--img-path", help="the picture's file")
    chat.add_argument("--layout", help="refresh, keep or append; default: the model's")
    infer.set_defaults(run=_infer)
    chat.set_defaults(run=_chat)
    for command in (infer, chat):
        _common_flags(command)
    figures = commands.add_parser("eval", help="how often the embedded model is right")
    evaluate.add_flags(figures)
    figures.set_defaults(run=evaluate.run)
    lessons = commands.add_parser("train-embedded", help="train the embedded model")
    training.add_flags(lessons)
    lessons.set_defaults(run=training.run)
    return parser


def _common_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="embedded", help="'embedded' or a folder of weights")
    command.add_argument("--device", default="auto", help="auto, npu, cuda, mps or cpu")
    command.add_argument("--dtype", default="auto", help="auto, fp32, bf16 or fp16")
    command.add_argument("--max_new_tokens", "--max-new-tokens", type=int)
    command.add_argument("--temperature", type=float, help="0 is greedy")
    command.add_argument("--top_k", "--top-k", type=int)
    command.add_argument("--top_p", "--top-p", type=float)
    command.add_argument("--repetition_penalty", "--repetition-penalty", type=float)
    command.add_argument("--seed", type=int)


def _sampling(args: argparse.Namespace, default: SamplingParams) -> SamplingParams:
    from dataclasses import fields, replace

    given = {f.name: getattr(args, f.name, None) for f in fields(SamplingParams)}
    return replace(default, **{k: v for k, v in given.items() if v is not None}).checked()


def _load(args: argparse.Namespace) -> InstructBlip:
    with no_collection():
        from instructblip.checkpoints import import_model_code, load

        import_model_code()
    return load(args.model, device=args.device, dtype=args.dtype)


def _infer(args: argparse.Namespace) -> int:
    """One answer; the picture is taken as LAVIS takes it."""
    import io

    from instructblip.engine.local import LocalEngine
    from instructblip.images import open_as_lavis

    picture = open_as_lavis(args.img_path)
    data = io.BytesIO()
    picture.save(data, "PNG")
    engine = LocalEngine(_load(args))
    try:
        session = TerminalChat(engine, _sampling(args, engine.card.generation), layout=None)
        session.use_picture(data.getvalue())
        session.ask(args.prompt)
    finally:
        engine.close()
    return 0


def _chat(args: argparse.Namespace) -> int:
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(_load(args))
    try:
        session = TerminalChat(engine, _sampling(args, engine.card.generation), args.layout)
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
        except OSError as error:
            raise InstructBlipError(
                f"Cannot read the picture {path}: {error.strerror}. Check the path."
            ) from error
        self.take_picture(data)

    def take_picture(self, data: bytes) -> None:
        """Use these bytes for the turns to come."""
        from instructblip.images import prepare

        self.use_picture(prepare(data).data)

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

"""``python -m instructblip infer``: one answer, or many, without a conversation.

Pictures are taken as LAVIS takes them (alpha dropped, EXIF ignored). There are two ways to an
answer. LAVIS's own generation (five beams unless told otherwise) is what its users compare with,
so it is the default for weights that are prompted as LAVIS prompts them. Others, the embedded
model among them, answer through the engine with the sampling of their properties.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from instructblip.arguments import (
    add_flag,
    add_model_flags,
    add_sampling_flags,
    load_model,
    sampling,
)
from instructblip.batch import Record, Results, ask_all, json_line, not_done
from instructblip.engine.base import Engine, Request, SamplingParams
from instructblip.errors import BadParameter, BadRequest, InstructBlipError
from instructblip.images import note_text, open_as_lavis
from instructblip.paths import as_file
from instructblip.rows import BadRow, Row, is_list, read_rows
from instructblip.texts import known_encoding

if TYPE_CHECKING:
    from PIL import Image

    from instructblip.model import InstructBlip
    from instructblip.properties import Properties

Show = Callable[[str], None]

ENGINE_FLAGS = ("max_new_tokens", "top_k")
LAVIS_FLAGS = ("use_nucleus_sampling", "num_beams", "max_length", "min_length", "length_penalty")
SHARED_FLAGS = ("temperature", "top_p", "repetition_penalty", "seed")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``infer``."""
    add_flag(
        parser, "img_path", required=True, nargs="+", action="extend", metavar="X",
        help="pictures, folders of pictures, or lists: .csv or .jsonl with img_path and prompt",
    )  # fmt: skip
    parser.add_argument("--encoding", help="of the lists, such as gb18030; told by them otherwise")
    parser.add_argument("--prompt", help="the question or instruction; for lists, where none is")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each answer")
    parser.add_argument(
        "--out", metavar="FILE", help="write the answers to FILE (.jsonl or .csv), or go on with it"
    )
    add_model_flags(parser)
    parser.add_argument(
        "--lavis", action=argparse.BooleanOptionalAction,
        help="LAVIS's generation (default for the official weights), or the engine's",
    )  # fmt: skip
    add_sampling_flags(parser.add_argument_group("sampling (the first four: both ways)"))
    lavis = parser.add_argument_group("LAVIS's generation, with LAVIS's defaults")
    add_flag(lavis, "use_nucleus_sampling", action="store_const", const=True)
    add_flag(lavis, "num_beams", type=int, help="5 unless given; 1 is greedy")
    add_flag(lavis, "max_length", type=int, help="256 unless given; 255 new tokens")
    add_flag(lavis, "min_length", type=int)
    add_flag(lavis, "length_penalty", type=float)


def run(args: argparse.Namespace) -> int:
    """Ask each row and print or write its answer."""
    lavis = asked_way(args)
    check_values(args, lavis)
    encoding = known_encoding(args.encoding) if args.encoding is not None else None
    rows = read_rows(args.img_path, args.prompt, encoding, _tell)
    refuse_overwriting(args.out, args.img_path)
    one = args.out is None and is_one_picture(args.img_path)
    if one and isinstance(rows[0], BadRow):
        raise BadRequest(f"{rows[0].origin}: {rows[0].reason}")
    with ExitStack() as stack:
        results = stack.enter_context(Results(args.out)) if args.out else None
        left = not_done(rows, results.done) if results else rows
        if results:
            tell_begin(results, len(rows), len(left))
        good = [row for row in left if isinstance(row, Row)]
        bad = [row for row in left if isinstance(row, BadRow)]
        for row in bad:
            print(f"error: {row.origin}: {row.reason}", file=sys.stderr)
        failed = len(bad)
        if good:
            answers = stack.enter_context(open_answers(args, lavis))
            failed += _ask(args, answers, good, results, one)
    if results:
        tell_end(args.out, len(rows), len(rows) - failed)
    if failed:
        again = " The same command asks them again." if results else ""
        raise InstructBlipError(f"{failed} of {len(rows)} rows failed (see above).{again}")
    return 0


def _ask(
    args: argparse.Namespace,
    answers: Answers,
    rows: Sequence[Row],
    results: Results | None,
    one: bool,
) -> int:
    """Ask the rows that can be asked; → the number that failed all the same."""
    if results:
        results.require(answers.name, answers.how)

    def keep(row: Row, answer: str) -> None:
        record = Record(row.img_path, row.prompt, answer, answers.name, answers.how)
        if results:
            results.append(record)
        if args.json:
            ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
            print(json_line(record, ascii_only=ascii_only), end="", flush=True)
        elif not results and not one:
            print(f"{row.img_path}: {' '.join(answer.splitlines())}", flush=True)

    if one:
        show = None if args.json else _show
        keep(rows[0], answers.ask(rows[0], show))
        if show:
            print()
        return 0
    try:
        # On a terminal the answers themselves show how far it is.
        return ask_all(rows, answers.ask, keep, bar=bool(results) or not sys.stdout.isatty())
    except KeyboardInterrupt:
        if results is None:
            raise
        raise KeyboardInterrupt(
            f"What was answered is in {results.path}; the same command goes on from there."
        ) from None


def _tell(words: str) -> None:
    print(words, file=sys.stderr)


def _show(text: str) -> None:
    print(text, end="", flush=True)


def is_one_picture(sources: Sequence[str]) -> bool:
    """Whether one picture's file is asked about, so that its answer is printed alone."""
    path = as_file(sources[0])
    return len(sources) == 1 and not path.is_dir() and not is_list(path)


def refuse_overwriting(out: str | None, sources: Sequence[str]) -> None:
    """Raise BadRequest where the answers would go into what is asked about."""
    if out is None or not (path := Path(os.path.expanduser(out))).exists():
        return
    for source in sources:
        if path.samefile(as_file(source)):
            raise BadRequest(
                f"--out {out} is {source}, which is asked about. Name another file.",
                code="out_refused",
            )


def tell_begin(results: Results, rows: int, left: int) -> None:
    """Say on stderr what is there already."""
    if results.repaired:
        print(f"{results.path}: a line that was cut short is taken away.", file=sys.stderr)
    if told := results.form.told():
        print(
            f"{results.path} was saved by another program ({told}); it goes on so.", file=sys.stderr
        )
    if left < rows:
        print(f"{rows - left} of {rows} answers are in {results.path} already.", file=sys.stderr)


def tell_end(out: str, rows: int, answered: int) -> None:
    """Say on stderr what there is now."""
    print(f"{answered} of {rows} answers are in {out}.", file=sys.stderr)


# --- which way ------------------------------------------------------------------------------------


def asked_way(args: argparse.Namespace) -> bool | None:
    """LAVIS's generation (True), the engine's (False), or as the weights have it (None).

    Raises:
        BadParameter: flags of one way, where the other was asked for.
    """
    engine = [name for name in ENGINE_FLAGS if getattr(args, name) is not None]
    lavis = [name for name in LAVIS_FLAGS if getattr(args, name) is not None]
    if (engine or args.lavis is False) and (lavis or args.lavis):
        one = f"--{engine[0]}" if engine else "--no-lavis"
        other = f"--{lavis[0]}" if lavis else "--lavis"
        raise BadParameter(
            f"{one} belongs to the engine's generation and {other} to LAVIS's. Give one of them.",
            code="two_ways",
        )
    if lavis or args.lavis:
        return True
    return False if engine or args.lavis is False else None


def check_values(args: argparse.Namespace, lavis: bool | None) -> None:
    """Refuse a value that cannot be right before a model is loaded.

    Raises:
        BadParameter: it is out of the range of the way asked for; of both, where none was.
    """
    if lavis is not True:
        try:
            sampling(args, SamplingParams())
            return
        except BadParameter:
            if lavis is False:
                raise
    from instructblip.generation import GenerationParams

    GenerationParams(**lavis_options(args)).checked()


def lavis_options(args: argparse.Namespace) -> dict[str, Any]:
    """The given parameters of LAVIS's generation; the others keep LAVIS's defaults."""
    given = {name: getattr(args, name) for name in (*LAVIS_FLAGS, *SHARED_FLAGS)}
    return {name: value for name, value in given.items() if value is not None}


def prompted_as_lavis(properties: Properties) -> bool:
    """Whether these weights are prompted as LAVIS's authors did, which is layout ``refresh``."""
    return properties.default_layout == "refresh"


# --- the two ways -----------------------------------------------------------------------------------


class Answers(Protocol):
    """A model that is ready to answer. ``how`` tells the way and its parameters."""

    name: str
    how: str

    def ask(self, row: Row, show: Show | None = None) -> str:
        """The answer to one row; ``show`` gets its text as it comes."""


@contextmanager
def open_answers(args: argparse.Namespace, lavis: bool | None) -> Iterator[Answers]:
    """Load the model and choose the way.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded.
    """
    model = load_model(args)
    if prompted_as_lavis(model.properties) if lavis is None else lavis:
        check_values(args, True)
        yield LavisAnswers(model, lavis_options(args))
        return
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(model)
    try:
        yield EngineAnswers(engine, sampling(args, engine.card.generation))
    finally:
        engine.close()


class LavisAnswers:
    """Answers by LAVIS's generation."""

    def __init__(self, model: InstructBlip, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self.name = model.properties.name
        self.how = _told("LAVIS", options)

    def ask(self, row: Row, show: Show | None = None) -> str:
        """The answer to one row, whole: beams do not stream."""
        from instructblip.devices import as_device_error, release_memory

        try:
            texts = self._model.generate([_open(row)], [row.prompt], **self._options)
        except (RuntimeError, MemoryError) as error:
            typed = as_device_error(error)
            if typed is None:
                raise
            release_memory(self._model.device)
            raise typed from error
        answer = str(texts[0])
        if show:
            show(answer)
        return answer


class EngineAnswers:
    """Answers by the engine, one token after the other."""

    def __init__(self, engine: Engine, params: SamplingParams) -> None:
        self._engine = engine
        self._params = params
        self.name = engine.card.name
        plain = SamplingParams()
        changed = {k: v for k, v in asdict(params).items() if v != getattr(plain, k)}
        self.how = _told("engine", changed)

    def ask(self, row: Row, show: Show | None = None) -> str:
        """The answer to one row, streamed."""
        self._engine.register_picture(row.img_path, _png(_open(row)))
        stream = self._engine.submit(Request("infer", row.prompt, row.img_path, (), self._params))
        pieces: list[str] = []
        try:
            for delta in stream:
                pieces.append(delta.text)
                if show:
                    show(delta.text)
        except BaseException:
            stream.cancel()
            raise
        if delta.error is not None:
            raise delta.error
        return "".join(pieces)


def _told(way: str, values: dict[str, Any]) -> str:
    return " ".join([way, *(f"{name}={value}" for name, value in sorted(values.items()))])


def _open(row: Row) -> Image.Image:
    """A row's picture as LAVIS takes it; what its user should know goes to stderr."""

    def tell(code: str) -> None:
        tqdm.write(f"note: {row.origin}: {note_text(code)}", file=sys.stderr)

    return open_as_lavis(row.img_path, tell)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()

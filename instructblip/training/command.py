"""``python -m instructblip train-embedded``: train the embedded model on, or from nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from instructblip.errors import InstructBlipError

LONGEST = 60.0  # minutes of a chunk: what a stop can cost, and how often the schedule warms up


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``train-embedded``."""
    parser.add_argument(
        "--work", type=Path, default=Path("training"), help="folder of the training"
    )
    parser.add_argument("--minutes", type=float, default=50, help="of this chunk, 60 at most")
    parser.add_argument(
        "--steps", type=int,
        help="as many steps, however long they take, in place of the minutes (those of the ViT "
        "too); what comes out does not hang on the machine's speed then",
    )  # fmt: skip
    parser.add_argument(
        "--start", default="embedded",
        help="'embedded' goes on from the shipped weights, 'scratch' begins anew, or a folder; "
        "only read when --work holds no checkpoint yet",
    )  # fmt: skip
    parser.add_argument(
        "--vision-minutes", type=float, default=0, help="first train the ViT alone (from scratch)"
    )
    parser.add_argument(
        "--lookup-minutes", type=float, default=0, help="mostly look-up questions in these minutes"
    )
    parser.add_argument("--peak", type=float, default=1.2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--photos", type=Path, help="folder of photographs to learn to refuse")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one")
    parser.add_argument("--pictures", type=int, default=40, help="scenes a step")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes")
    parser.add_argument("--export", type=Path, help="also write the model here at the end")


def run(args: argparse.Namespace) -> int:
    """Train a chunk, write the model and the plot."""
    if not 0 < args.minutes <= LONGEST or not 0 <= args.vision_minutes <= LONGEST:
        raise InstructBlipError(
            f"--minutes takes more than 0 and at most {LONGEST:g}: call the command again for "
            "more, it goes on where it stopped."
        )
    if args.steps is not None and args.steps < 1:
        raise InstructBlipError(f"--steps {args.steps} is not allowed: 1 is the least.")
    if args.photos is not None and not args.photos.is_dir():
        raise InstructBlipError(f"--photos {args.photos} is no folder.")
    from instructblip.checkpoints import EMBEDDED
    from instructblip.training.budget import Budget
    from instructblip.training.log import plot
    from instructblip.training.loop import Plan, Workshop, train_joint
    from instructblip.training.vision import train_vision

    starts = {"embedded": EMBEDDED, "scratch": None}
    shop = Workshop(args.work, starts.get(args.start, Path(args.start)))
    if args.vision_minutes:
        train_vision(
            shop.vision, Budget(args.vision_minutes, args.steps), seed=args.seed,
            photos=args.photos, log=shop.log, device=args.device,
        )  # fmt: skip
    plan = Plan(
        args.minutes, args.steps, args.lookup_minutes, peak=args.peak, seed=args.seed, photos=args.photos,
        device=args.device, pictures=args.pictures, workers=args.workers,
    )  # fmt: skip
    train_joint(shop, plan)
    target = args.export or args.work / "model"
    shop.export(target)
    print(f"The model is in {target}: python -m instructblip eval --model {target}")
    plot(shop.log, args.work / "loss.png")
    print(f"The plot is {args.work / 'loss.png'}")
    return 0

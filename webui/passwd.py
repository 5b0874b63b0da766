"""``bash launch.sh passwd FILE NAME``: make or change a login in a file of hashes, or remove it."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from instructblip.errors import BadParameter, InstructBlipError
from webui.authfile import LONGEST_PASSWORD, made_hash, write_account


def main(argv: Sequence[str] | None = None) -> int:
    """Ask for a password and write its hash; an error of ours is one sentence, exit code 2."""
    given = _parser().parse_args(argv)
    path = Path(given.file)
    try:
        hashed = None if given.remove else made_hash(_asked())
        was_there = write_account(path, given.name, hashed)
        if given.remove and not was_there:
            raise BadParameter(f"{path} has no login called {given.name!r}.", code="auth_file")
    except InstructBlipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    done = "removed from" if given.remove else "changed in" if was_there else "added to"
    print(f"{given.name} was {done} {path}. Start the page with --auth-file {path}; "
          "a server that runs with it has noticed.")  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bash launch.sh passwd",
        description="Make, change or remove a login in a file for --auth-file. The password is "
        "asked for twice, or read as one line where the input is no terminal. The file holds "
        "argon2id hashes (RFC 9106: 3 passes over 64 MiB), never passwords.",
    )
    made.add_argument("file", metavar="FILE", help="the file of logins; made if it is not there")
    made.add_argument("name", metavar="NAME", help="the login's name")
    made.add_argument("--remove", action="store_true", help="remove the login; its sessions end")
    return made


def _asked() -> str:
    """The password.

    Raises:
        BadParameter: it is empty or too long, or the two are not the same.
    """
    if sys.stdin.isatty():
        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("Once more: ")
        except EOFError:
            password = again = ""
        if password != again:
            raise BadParameter("The two are not the same; nothing was changed.", code="auth_file")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or len(password.encode("utf-8", "surrogateescape")) > LONGEST_PASSWORD:
        raise BadParameter(
            f"A password has 1 to {LONGEST_PASSWORD} bytes; nothing was changed.", code="auth_file"
        )
    return password


if __name__ == "__main__":
    sys.exit(main())

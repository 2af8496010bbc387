"""The command line: ``quorate`` and ``python -m quorate``.

Every command takes ``--json`` and then prints JSON on standard output, errors included. The exit status is 0 when it
succeeded, 1 when the operation failed, 2 on wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from quorate.cli.error_text import shell_words
from quorate.cli.output import forgive
from quorate.cli.parser import build
from quorate.errors import InvalidArgument, QuorateError
from quorate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of this process by default.

    Returns
    -------
    int
        The exit status.
    """
    forgive()
    as_json = "--json" in (sys.argv if argv is None else argv)
    try:
        arguments = build().parse_args(argv)
        settings = Settings(arguments)
        for warning in settings.doubts():
            print(f"quorate: warning: {warning}", file=sys.stderr)
        code: int = arguments.run(arguments, settings)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except QuorateError as error:
        _complain(error, as_json=as_json)
        return USAGE if isinstance(error, InvalidArgument) else FAILED
    return code


def _complain(error: QuorateError, *, as_json: bool) -> None:
    message = shell_words(str(error))
    if as_json:
        print(json.dumps({**error.to_dict(), "message": message}))
    print(f"quorate: {type(error).__name__}: {message}", file=sys.stderr)

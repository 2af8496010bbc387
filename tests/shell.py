"""Run commands as a user's shell does."""

import os
import signal
import subprocess
import sys


def default_signals():
    """Handle signals as a program does that a terminal starts; for `preexec_fn`.

    Under nohup the tests ignore SIGHUP, and in a shell's background jobs SIGINT, and so would their children.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def run(*arguments, endpoints=None, stdin="", check=0, **environment):
    """Run a command; return its output, or its errors if there is no output."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("QUORATE_")}
    if endpoints is not None:
        given["QUORATE_ENDPOINTS"] = endpoints
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "quorate",
            *(each if isinstance(each, bytes) else str(each) for each in arguments),
        ],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        env={**given, **environment},
    )
    assert done.returncode == check, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr if check and not done.stdout else done.stdout

"""start - where the launcher of every program begins

The launcher (bin/, one file under every program's name) runs

    python -I -B -c 'from courierchain.start import program; program()' "$0" "$@"

so that neither the environment nor the user's directory chooses what is imported (CVE-47). The
program's exit status is the process's; nothing is left to flush, and nothing is waited for.
"""

from __future__ import annotations

import os
import sys
from time import monotonic, sleep

from courierchain import handover, log, programs
from courierchain.request import RECORD

WRITER_TIME = 1.0  # seconds for a foreign program's writing child to end


def program() -> None:
    argv = sys.argv[1:]
    real = os.path.realpath(argv[0])
    programs.directory = os.path.dirname(real)
    name, real_name = os.path.basename(argv[0]), os.path.basename(real)
    entry = programs.ENTRIES.get(name) or programs.ENTRIES.get(real_name)
    if entry is None:
        log.err(f"{name}: not the name of one of our programs ({', '.join(programs.ENTRIES)})")
        os._exit(1)
    reap_writer()
    try:
        main = handover.load(entry)
    except ImportError as why:
        log.err(f"{name}: cannot be loaded: {why}")
        os._exit(1)
    os._exit(handover.run(main, argv, dict(os.environ)))


def reap_writer() -> None:
    """Wait for the child that a foreign program has left behind to write descriptor 3, if any.

    A record fits into the pipe, so the child ends by itself. Another one is not waited for; nor is
    any without a record: the children of a listener that has executed itself are its sessions.
    """
    try:
        os.fstat(RECORD)
    except OSError:
        return
    deadline = monotonic() + WRITER_TIME
    try:
        while os.waitpid(-1, os.WNOHANG)[0] or monotonic() < deadline:
            sleep(0.001)
    except ChildProcessError:
        pass

"""cyrusjournal - what one session writes into the log in Cyrus's words: POP3_DIALECT=cyrus

See courierchain.cyruslines for the lines. Those about trouble are `journal`'s.
"""

from __future__ import annotations

import os

from courierchain import cyruslines, log
from courierpop3d.journal import Journal


class CyrusJournal(Journal):
    __slots__ = ("_env",)

    def __init__(self, env: dict[str, str]):
        super().__init__(env)
        self._env = env

    def begin(self) -> None:
        log.info(cyruslines.login(self._env))

    def login(self) -> None:
        pass  # `begin` has said it

    def refused(self, text: bytes) -> None:
        log.info(os.fsdecode(text))
        log.info(cyruslines.NO_COUNTS)

    def end(self, event: str, *, sent: int, time: int, **counts: int) -> None:
        log.info(cyruslines.usage(self._env))
        log.info(cyruslines.counts(**counts))

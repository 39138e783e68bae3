"""The sweeper deletes what was kept for long enough (store.upkeep.retention). It runs in every
worker and in the API, so that one of them does it."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store.artifacts import ArtifactStore, StorageError
from store.database import Database
from store.upkeep.keeping import Keeping
from store.upkeep.retention import sweep

log = structlog.get_logger("sweeper")


class Sweeper(threading.Thread):
    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        keeping: Keeping,
        every_seconds: float = 3600.0,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._database, self._artifacts, self._keeping = database, artifacts, keeping
        self._every = every_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        while True:
            try:
                if swept := sweep(self._database, self._artifacts, self._keeping):
                    log.info("deleted what was kept for long enough", **swept)
            except (OSError, SQLAlchemyError, StorageError):
                log.exception("this round of deleting failed")
            if self._stopped.wait(self._every):
                return

    def stop(self) -> None:
        self._stopped.set()

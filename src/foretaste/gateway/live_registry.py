"""The triggers that all workers know: kept in the database, so that one worker's find protects the others' requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from threading import Lock

from foretaste.gateway.records.store import Store
from foretaste.guards.neo import Registry
from foretaste.guards.neo.registry import same
from foretaste.guards.trigger import Trigger


class LiveRegistry:
    """What is in force now: the triggers that fire, those that must not, and the inputs that a person released.

    Safe to use from several threads: what is in force is exchanged as a whole, never changed.

    Attributes:
        active: the triggers that fire.
        passed: fingerprints of the inputs that a person released.
        dropped: triggers found here that were one too many.

    Args:
        store: the database.
        most: triggers that may fire at a time, ≥ 1.
    """

    def __init__(self, store: Store, most: int) -> None:
        self.active = Registry()
        self.passed: frozenset[str] = frozenset()
        self.dropped = 0
        self._released: tuple[Trigger, ...] = ()
        self._version = -1
        self._store, self._most, self._lock = store, most, Lock()

    def is_released(self, trigger: Trigger) -> bool:
        """Return whether a person released this trigger, or another reconstruction of it."""
        return any(same(released, trigger) for released in self._released)

    def refresh(self) -> tuple[Trigger, ...]:
        """Take up what is in force now; return the triggers that have come.

        Raises:
            StoreError: the database cannot be read.
        """
        if self._store.version() == self._version:
            return ()
        with self._lock:
            snapshot = self._store.snapshot()
            if snapshot.version <= self._version:
                return ()
            here = {trigger.id for trigger in self.active}
            active = Registry()
            active.keep(snapshot.active)
            self.active, self.passed, self._released = active, snapshot.passed, snapshot.released
            self._version = snapshot.version
            return tuple(trigger for trigger in active if trigger.id not in here)

    def publish(
        self, found: Collection[Trigger], replaced: Mapping[str, str], source: str = "search"
    ) -> Mapping[str, str]:
        """Put new triggers in force for all workers, those but that are released or one too many.

        Args:
            found: the triggers.
            replaced: by the ids of triggers in force, the ids of better pictures of them among ``found`` or in force.
            source: where they come from: "search", "rule" or "file".

        Returns:
            By the ids of triggers that were found by another worker, too, the id of the one in force.

        Raises:
            StoreError: the database cannot be written.
        """
        wanted = [trigger for trigger in found if not self.is_released(trigger)]
        if not wanted and not replaced:
            return {}
        published = self._store.publish(wanted, replaced, source, self._most)
        self.dropped += published.dropped
        return published.stands_for

"""The log line about a registry that clients ask for and the configuration does not name.

Always true here: a registry is told of once in ``EVERY`` seconds, however often it is asked for; at most ``CAPACITY``
are remembered, and while that many have been told of lately no other is.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("p2pdist.mirror")

EVERY = 60.0
CAPACITY = 64


class UnconfiguredLog:
    """See the module's rules; times are monotonic seconds."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def refused(self, registry: str, now: float) -> None:
        """A request for ``registry`` was refused."""
        self._told = {name: at for name, at in self._told.items() if now - at < EVERY}
        if registry in self._told or len(self._told) >= CAPACITY:
            return
        self._told[registry] = now
        logger.warning(
            "refused: registry %s is not configured here: "
            'add [registries."%s"] to the configuration to have it mirrored (told once a minute)',
            registry,
            registry,
        )

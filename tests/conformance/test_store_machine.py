"""The random walk of store_machine.py, on the store in memory and the one on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from p2pdist.store.disk import DiskStore
from p2pdist.store.port import Store
from p2pdist.testing.memory_store import MemoryStore
from tests.conformance.store_machine import QUOTA, StoreMachine

calm = {"deadline": None, "suppress_health_check": list(HealthCheck)}


class MemoryMachine(StoreMachine):
    async def open_store(self) -> Store:
        return MemoryStore(QUOTA, self.clock)


class DiskMachine(StoreMachine):
    persistent = True

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        super().__init__()

    async def open_store(self) -> Store:
        return await DiskStore.open_dir(Path(self.directory.name), QUOTA, self.clock)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=40, **calm)
TestDiskMachine = DiskMachine.TestCase
TestDiskMachine.settings = settings(max_examples=8, stateful_step_count=25, **calm)

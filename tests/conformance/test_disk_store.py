from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pdist.store.disk import DiskStore
from p2pdist.store.port import Store
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import MakeStore, StoreConformance


class TestDiskStore(StoreConformance):
    @pytest.fixture
    async def make(self, clock: ManualClock, tmp_path: Path) -> AsyncIterator[MakeStore]:
        opened: list[DiskStore] = []

        async def make(quota: int) -> Store:
            opened.append(await DiskStore.open_dir(tmp_path / "data", quota, clock))
            return opened[-1]

        yield make
        for store in opened:
            await store.close()

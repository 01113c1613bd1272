from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pdist.clock import SystemClock
from p2pdist.store.containerd import ContainerdContent
from p2pdist.store.disk import DiskStore
from p2pdist.store.port import Store
from p2pdist.store.seeding import SeedingStore
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import MakeStore, StoreConformance


class TestSeedingStore(StoreConformance):
    """A store beside a content store that is empty is the store itself."""

    @pytest.fixture
    async def make(self, clock: ManualClock, tmp_path: Path) -> AsyncIterator[MakeStore]:
        opened: list[Store] = []

        async def make(quota: int) -> Store:
            own = await DiskStore.open_dir(tmp_path / "data", quota, clock)
            content = ContainerdContent(tmp_path / "content", tmp_path / "marks", SystemClock())
            store = await SeedingStore.open_beside(own, content, lambda registry: True, guarded=False)
            await content.look()
            opened.append(store)
            return store

        yield make
        for store in opened:
            await store.close()

import pytest

from p2pdist.store.port import Store
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.memory_store import MemoryStore
from tests.conformance.store import MakeStore, StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def make(self, clock: ManualClock) -> MakeStore:
        async def make(quota: int) -> Store:
            return MemoryStore(quota, clock)

        return make

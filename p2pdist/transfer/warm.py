"""Images that this host fetches because somebody asked for it to have them: here, or from another agent.

Rules:
- An image is fetched once however many ask. At most ``MAX_RUNNING`` are fetched at once, ``MAX_WAITING`` wait, and each has
  ``MAX_SECONDS``; who comes on top is told to come back.
- This host's own configuration decides: a registry that is not configured here is refused, and with ``accepts`` false so
  is every wish of another agent.
- A warm-up goes on when whoever asked leaves. How it ended is remembered for ``REMEMBERED`` seconds.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from p2pdist.clock import Clock
from p2pdist.errors import BusyError, DeniedError, NotFoundError, P2PDistError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.platforms import parse_platform
from p2pdist.oci.reference import Reference
from p2pdist.peers.warm_port import Order
from p2pdist.transfer.pull import BlobProgress, ImageDone, ImageFound, ImagePuller
from p2pdist.upstream.port import Upstream
from p2pdist.wire.warm import MAX_MESSAGE, WarmState, WarmStatus

logger = logging.getLogger(__name__)

MAX_RUNNING = 2
MAX_WAITING = 16
MAX_SECONDS = 3600.0
REMEMBERED = 600.0


@dataclass(slots=True)
class _Job:
    order: Order
    reference: Reference
    platform: Platform
    status: WarmStatus
    ended_at: float = 0.0


class WarmJobs:
    """See the module's rules. ``tasks`` owns the fetches."""

    def __init__(
        self,
        puller: ImagePuller,
        upstream: Upstream,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        own_platform: Platform,
        *,
        accepts: bool = True,
    ) -> None:
        self._puller = puller
        self._upstream = upstream
        self._clock = clock
        self._tasks = tasks
        self._own_platform = own_platform
        self._accepts = accepts
        self._jobs: dict[Order, _Job] = {}
        self._slots = asyncio.Semaphore(MAX_RUNNING)

    def ordered(self, order: Order) -> WarmStatus:
        """Another agent asks. Raises DeniedError, BusyError, InvalidInputError."""
        if not self._accepts:
            raise DeniedError("this host does not accept warm-ups (peer.accept_warm_up = false)")
        return self.start(order)

    def start(self, order: Order) -> WarmStatus:
        """Begin, or join what is under way. Raises as ``ordered``."""
        self._forget()
        job = self._jobs.get(order)
        if job is not None and not job.status.ended:
            return job.status
        reference = Reference.parse(order.reference)
        platform = parse_platform(order.platform) if order.platform else self._own_platform
        if not self._upstream.allows(reference.repository.registry):
            raise DeniedError(f"registry {reference.repository.registry} is not configured on this host")
        if sum(not each.status.ended for each in self._jobs.values()) >= MAX_RUNNING + MAX_WAITING:
            raise BusyError("too many warm-ups wait on this host already", 10.0)
        job = _Job(order, reference, platform, WarmStatus(WarmState.WAITING))
        self._jobs[order] = job
        self._tasks.create_task(self._run(job))
        return job.status

    def status(self, order: Order) -> WarmStatus:
        """How it goes; raises NotFoundError for what was not asked for, or longer ago."""
        job = self._jobs.get(order)
        if job is None:
            raise NotFoundError(f"this host knows of no warm-up of {order.reference}")
        return job.status

    def _forget(self) -> None:
        before = self._clock.now() - REMEMBERED
        for order, job in list(self._jobs.items()):
            if job.status.ended and job.ended_at < before:
                del self._jobs[order]
        ended = [order for order, job in self._jobs.items() if job.status.ended]
        for order in ended[:-MAX_WAITING]:
            del self._jobs[order]

    async def _run(self, job: _Job) -> None:
        try:
            async with self._slots:
                job.status = replace(job.status, state=WarmState.RUNNING)
                async with asyncio.timeout(MAX_SECONDS):
                    await self._fetch(job)
        except TimeoutError:
            self._fail(job, f"not there after {MAX_SECONDS:.0f} s")
        except P2PDistError as error:
            self._fail(job, str(error))
        except Exception as error:
            logger.exception("warming %s failed in an unforeseen way", job.reference)
            self._fail(job, f"internal error: {type(error).__name__}")
        job.ended_at = self._clock.now()

    def _fail(self, job: _Job, message: str) -> None:
        logger.warning("could not warm %s: %s", job.reference, message)
        job.status = replace(job.status, state=WarmState.FAILED, message=message[:MAX_MESSAGE])

    async def _fetch(self, job: _Job) -> None:
        received: dict[Digest, int] = {}
        moved: dict[Digest, dict[str, int]] = {}
        async for event in self._puller.pull(job.reference, job.platform, strict=bool(job.order.platform)):
            if isinstance(event, ImageFound):
                size = sum(blob.size for blob in event.blobs)
                job.status = replace(job.status, size=size, digest=str(event.digest))
            elif isinstance(event, BlobProgress):
                received[event.digest], moved[event.digest] = event.received, event.moved
                total = sum(received.values())
                job.status = replace(job.status, received=total, moved=_sum(moved))
            elif isinstance(event, ImageDone):
                job.status = WarmStatus(
                    WarmState.DONE, event.size, event.size, event.moved, str(event.digest)
                )
                logger.info("warmed %s", job.reference)


def _sum(parts: dict[Digest, dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts.values():
        for source, count in part.items():
            total[source] = total.get(source, 0) + count
    return total

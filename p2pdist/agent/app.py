"""The agent as a whole: every part built once, in one place, owned by one task group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from p2pdist import __version__
from p2pdist.agent.admin_token import make_admin_token
from p2pdist.agent.backend import Backend, UseCases, own_platform
from p2pdist.agent.cluster import Cluster, join_cluster
from p2pdist.agent.diagnostics import Diagnostics
from p2pdist.agent.hooks import CountTransfers
from p2pdist.agent.identity import load_peer_id
from p2pdist.agent.image_answers import ImageAnswers
from p2pdist.agent.overview import Overview
from p2pdist.agent.seeding import beside_containerd
from p2pdist.agent.sources import ImportCommands, WarmCommands
from p2pdist.agent.tracing import traced, tracing_to
from p2pdist.api.admin import BAD_REQUEST, AdminPart, AdminSettings, build_admin_app
from p2pdist.api.admin_images import add_image_routes
from p2pdist.api.admin_import import ImportRoutes, ImportSettings
from p2pdist.api.admin_warm import WarmRoutes, WarmSettings
from p2pdist.api.dashboard.routes import Dashboard
from p2pdist.api.diagnostics import add_diagnostics
from p2pdist.api.registry import build_registry_app
from p2pdist.api.server import Listener, ListenerSettings
from p2pdist.api.tracing import RequestTracer
from p2pdist.clock import Clock, SystemClock
from p2pdist.config.model import Config
from p2pdist.config.secrets import read_cluster_key
from p2pdist.config.upstream import upstream_settings
from p2pdist.records import PeerId
from p2pdist.store.disk import DiskStore
from p2pdist.store.port import Store
from p2pdist.swarm.peer_health import PeerHealth
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.announce import Announcer
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.context import TransferContext, TransferPolicy
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.transfer.host_counts import HostCounts
from p2pdist.transfer.importing import ImageImporter
from p2pdist.transfer.limits import TokenBucket
from p2pdist.transfer.manifests import ManifestService
from p2pdist.transfer.mirror import PullThroughMirror
from p2pdist.transfer.pull import ImagePuller
from p2pdist.transfer.warm import WarmJobs
from p2pdist.transfer.warm_everywhere import ClusterWarmer, OwnHost
from p2pdist.upstream.port import Upstream
from p2pdist.upstream.registry_client import RegistryClient

logger = logging.getLogger("p2pdist.agent")


@dataclass(frozen=True, slots=True)
class Running:
    """A started agent: where it listens, for logs and tests."""

    mirror: Listener
    admin: Listener
    listeners: dict[str, str]


@asynccontextmanager
async def run_parts(config: Config) -> AsyncIterator[Running]:
    """Start everything; leaving the context drains and stops it. Raises ConfigError and StoreError on the way in."""
    clock = SystemClock()
    key = read_cluster_key(config)
    metrics = Metrics(config.registries, __version__)
    disk = await DiskStore.open_dir(config.agent.data_dir, config.store.max_size, clock)
    store: Store = disk
    try:
        store, seeding = await beside_containerd(config, disk, clock)
        peer = load_peer_id(config.agent.data_dir)
        async with (
            tracing_to(config) as tracing,
            RegistryClient(
                upstream_settings(config),
                clock=clock,
                on_response=metrics.upstream_response,
                on_received=lambda _, size: metrics.received("upstream", size),
                on_request=tracing.http_request if tracing else None,
                known_size=store.known_size,
            ) as upstream,
            _task_group() as links,
            join_cluster(config, key, peer, store, metrics, clock, links) as cluster,
            _task_group() as tasks,
        ):
            asked, peers, hooks = traced(tracing, upstream, cluster.peers, CountTransfers(metrics))
            context = _context(config, store, replace(cluster, peers=peers), asked, hooks, peer, clock)
            cases = _use_cases(context, cluster, tasks)
            backend = Backend(config, peer, cluster, cases, metrics)
            backend.seeding = seeding
            counts = HostCounts(context.discovery, clock, context.policy.shares)
            overview = Overview(backend, context, counts, metrics)
            parts: list[AdminPart] = [
                Dashboard(overview),
                partial(add_image_routes, backend=ImageAnswers(store, counts)),
                partial(add_diagnostics, backend=Diagnostics(config, key, backend)),
                *_command_parts(config, peer, disk, cluster, cases, tasks),
            ]
            async with _listeners(config, cluster, cases, backend, metrics, parts, tracing) as running:
                tasks.create_task(cases.announcer.run())
                tasks.create_task(overview.run())
                if seeding is not None:
                    tasks.create_task(seeding.run(cases.announcer))
                yield running
    finally:
        await store.close()


class _Stop(Exception):  # noqa: N818  (no error: it ends the task group)
    """Raised inside a task group to cancel its tasks."""


@asynccontextmanager
async def _task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose tasks are cancelled, not waited for, when the body ends."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            raise _Stop
    except* _Stop:
        pass


def _context(
    config: Config,
    store: Store,
    cluster: Cluster,
    upstream: Upstream,
    hooks: TransferHooks,
    peer: PeerId,
    clock: Clock,
) -> TransferContext:
    shared = {name for name, registry in config.registries.items() if registry.share}
    policy = TransferPolicy(
        zone=config.agent.zone,
        tag_ttl=config.tags.ttl,
        tag_stale=config.tags.stale_if_upstream_down,
        shares=shared.__contains__,
    )
    return TransferContext(
        store=store,
        discovery=cluster.discovery,
        peers=cluster.peers,
        upstream=upstream,
        clock=clock,
        health=PeerHealth(peer.raw),
        policy=policy,
        hooks=hooks,
        download=TokenBucket(config.limits.download, clock),
        upstream_limit=TokenBucket(config.limits.upstream, clock),
    )


def _use_cases(context: TransferContext, cluster: Cluster, tasks: asyncio.TaskGroup) -> UseCases:
    announcer = Announcer(context.store, context.discovery, context.clock, context.policy)
    blobs = BlobService(context, tasks, announcer.committed, cluster.hub)
    if cluster.arriving is not None:
        cluster.arriving.find = blobs.arriving
    manifests = ManifestService(context, tasks, announcer.committed)
    puller = ImagePuller(manifests, blobs, context.store, context.clock)
    return UseCases(context, blobs, manifests, puller, announcer)


def _command_parts(
    config: Config, peer: PeerId, disk: Store, cluster: Cluster, cases: UseCases, tasks: asyncio.TaskGroup
) -> list[AdminPart]:
    """Commands that are not for every user of the host."""
    token = make_admin_token(config.agent.data_dir)
    context = cases.context
    importer = ImageImporter(context, cases.announcer.committed, disk)
    jobs = WarmJobs(
        cases.puller,
        context.upstream,
        context.clock,
        tasks,
        own_platform(),
        accepts=config.peer.accept_warm_up,
    )
    if cluster.door is not None:
        cluster.door.desk = jobs
    own = OwnHost(peer, config.agent.name, config.agent.zone)
    warmer = ClusterWarmer(
        own, jobs, cases.manifests, context.discovery, cluster.commands, context.clock, tasks
    )
    return [
        ImportRoutes(ImportCommands(importer), ImportSettings(token)),
        WarmRoutes(WarmCommands(warmer), WarmSettings(token)),
    ]


@asynccontextmanager
async def _listeners(
    config: Config,
    cluster: Cluster,
    cases: UseCases,
    backend: Backend,
    metrics: Metrics,
    parts: list[AdminPart],
    tracer: RequestTracer | None,
) -> AsyncIterator[Running]:
    mirror = PullThroughMirror(cases.context, cases.blobs, cases.manifests)
    front = Listener(
        build_registry_app(mirror, metrics, tracer=tracer),
        ListenerSettings("mirror.listen", max_connections=config.mirror.max_connections),
    )
    admin = Listener(
        build_admin_app(backend, AdminSettings((config.agent.name, *config.admin.names)), parts),
        ListenerSettings("admin.listen", max_connections=128, bad_request=BAD_REQUEST),
    )
    await admin.start(config.admin.listen.host, config.admin.listen.port)
    try:
        await front.start(config.mirror.listen.host, config.mirror.listen.port)
        try:
            names = {"mirror": _address(front), "admin": _address(admin)}
            if cluster.own is not None:
                names["peer"] = str(cluster.own.endpoints[0])
            backend.ready(names)
            yield Running(front, admin, names)
        finally:
            backend.draining()
            await front.close(config.agent.drain_timeout)
    finally:
        await admin.close()


def _address(listener: Listener) -> str:
    host, port = listener.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

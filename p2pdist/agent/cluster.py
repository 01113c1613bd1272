"""This agent's side of the cluster: discovery, the peer client and the peer listener; or their absence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from p2pdist import __version__
from p2pdist.agent.hooks import CountPeerClient, CountPeerServer
from p2pdist.agent.identity import outgoing_address
from p2pdist.api.flow_source import PartialBlob, Partials
from p2pdist.api.peer import PeerServerSettings, build_peer_app
from p2pdist.api.peer_listener import PeerListener
from p2pdist.api.server import explain_bind_failure
from p2pdist.api.warm import WarmDoor
from p2pdist.clock import Clock
from p2pdist.config.model import Config, PeerConfig
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.discovery.port import Discovery, NoDiscovery
from p2pdist.discovery.settings import DiscoverySettings
from p2pdist.errors import ConfigError
from p2pdist.oci.digest import Digest
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.port import NoPeers, Peers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.swarm_links import HttpSwarmLinks
from p2pdist.peers.tls import PeerTls
from p2pdist.peers.warm_client import HttpWarmPeers
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.telemetry.metrics import Metrics
from p2pdist.transfer.limits import TokenBucket
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.wire.http_auth import HttpAuth
from p2pdist.wire.keys import ClusterKey
from p2pdist.wire.warm import Member


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the rest of the agent needs of the cluster. ``node`` is None in single-host mode."""

    discovery: Discovery
    peers: Peers
    node: DiscoveryNode | None = None
    own: Provider | None = None
    hub: SwarmHub | None = None
    arriving: Arriving | None = None
    door: WarmDoor | None = None
    commands: HttpWarmPeers | None = None


class Arriving:
    """Finds blobs that are still arriving; knows none until the use cases are built and put in ``find``."""

    def __init__(self) -> None:
        self.find: Partials | None = None

    def __call__(self, digest: Digest) -> PartialBlob | None:
        return self.find(digest) if self.find else None


@asynccontextmanager
async def join_cluster(
    config: Config,
    key: ClusterKey | None,
    peer: PeerId,
    store: Store,
    metrics: Metrics,
    clock: Clock,
    tasks: asyncio.TaskGroup,
) -> AsyncIterator[Cluster]:
    """Listen and join; leaving the context withdraws and closes. Raises ConfigError for addresses and files.

    ``tasks`` owns the links to other agents; it outlives this context.
    """
    if key is None:
        yield Cluster(NoDiscovery(), NoPeers())
        return
    auth = HttpAuth(key.derive("peer-http"), peer)
    tls = _tls(config.peer)
    client = PeerClientSettings(ssl=tls.client_context() if tls else None)
    async with HttpPeers(client, auth, clock, CountPeerClient(metrics)) as peers:
        hub, arriving, door = SwarmHub(store), Arriving(), WarmDoor()
        pace = TokenBucket(config.limits.upload, clock).take if config.limits.upload else None
        settings = PeerServerSettings(
            config.agent.name, config.agent.zone, __version__, max_uploads=config.peer.max_uploads
        )
        links = HttpSwarmLinks(peers, auth, tasks, hub)
        app = build_peer_app(
            store, auth, clock, settings, CountPeerServer(metrics), pace, arriving, hub, door, links
        )
        listener = await _listen(config, app, tls)
        try:
            own = _own(config, peer, listener.port)
            hub.connect(links, own)
            node = await _start_discovery(config, key, peer, listener.port, clock)
            try:
                door.members = lambda: [Member(each.peer, each.endpoint) for each in node.contacts()]
                yield Cluster(node, peers, node, own, hub, arriving, door, HttpWarmPeers(peers))
            finally:
                await node.close()
        finally:
            await listener.close()


def _tls(peer: PeerConfig) -> PeerTls | None:
    if peer.tls_cert_file and peer.tls_key_file and peer.tls_ca_file:
        return PeerTls(peer.tls_cert_file, peer.tls_key_file, peer.tls_ca_file)
    return None


async def _listen(config: Config, app: web.Application, tls: PeerTls | None) -> PeerListener:
    listener = PeerListener(app)
    address = config.peer.listen
    try:
        await listener.start(address.host, address.port, tls.server_context() if tls else None)
    except OSError as error:
        raise ConfigError(explain_bind_failure("peer.listen", address.host, address.port, error)) from error
    return listener


async def _start_discovery(
    config: Config, key: ClusterKey, peer: PeerId, port: int, clock: Clock
) -> DiscoveryNode:
    settings = DiscoverySettings(
        peer=peer,
        key=key.derive("dht"),
        listen_host=config.peer.listen.host,
        listen_port=port,
        advertise=config.peer.advertise,
        bootstrap=config.peer.bootstrap,
        zone=config.agent.zone,
        snapshot=config.agent.data_dir / "dht-contacts.json",
    )
    node = DiscoveryNode(settings, clock)
    try:
        await node.start()
    except OSError as error:
        host = config.peer.listen.host
        raise ConfigError(explain_bind_failure("peer.listen", host, port, error, udp=True)) from error
    return node


def _own(config: Config, peer: PeerId, port: int) -> Provider:
    """How others reach this agent, for the swarm's greetings."""
    host = outgoing_address(config.peer.listen.host, (_host(each) for each in config.peer.bootstrap))
    endpoint = Endpoint(host, port)
    advertised = config.peer.advertise
    if advertised:
        name, _, number = advertised.rpartition(":")
        endpoint = Endpoint(name.strip("[]"), int(number))
    return Provider(peer, (endpoint,), config.agent.zone)


def _host(bootstrap: str) -> str:
    return bootstrap.rpartition(":")[0].strip("[]")

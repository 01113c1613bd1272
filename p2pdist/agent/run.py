"""``p2pdist agent``: the process around the agent: the loop, signals, logs, systemd."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys

import uvloop

from p2pdist import __version__
from p2pdist.agent.app import Running, run_parts
from p2pdist.agent.systemd import Notifier
from p2pdist.config.model import Config
from p2pdist.telemetry.logs import set_up_logging
from p2pdist.telemetry.recent import keep_recent_lines

logger = logging.getLogger("p2pdist.agent")


def run_agent(config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises ConfigError and StoreError when it cannot start."""
    set_up_logging(config.agent.log_level, config.agent.log_format)
    keep_recent_lines()
    for warning in config.warnings:
        logger.warning("configuration: %s", warning)
    _raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(config))
        except BaseExceptionGroup as group:
            raise _first(group) from group
    return 0


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _explain_hangup)
    with Notifier.from_env() as notifier:
        async with run_parts(config) as running:
            _tell(config, running)
            notifier.ready(f"mirror on {config.mirror.listen}")
            watchdog = asyncio.create_task(_feed(notifier))
            await stop.wait()
            watchdog.cancel()
            logger.info("stopping: no new pulls, those in progress get %.0f s", config.agent.drain_timeout)
            notifier.stopping("draining")
    logger.info("stopped")


async def _feed(notifier: Notifier) -> None:
    while notifier.watchdog:
        notifier.alive()
        await asyncio.sleep(notifier.watchdog / 3)


def _explain_hangup() -> None:
    logger.warning("SIGHUP: the configuration is read at start only; restart the agent to apply a change")


def _tell(config: Config, running: Running) -> None:
    listeners = ", ".join(f"{name} {address}" for name, address in running.listeners.items())
    logger.info("p2pdist %s serves: %s; data in %s", __version__, listeners, config.agent.data_dir)
    if "peer" not in running.listeners:
        logger.info("single-host mode: no cluster key, so no peers (see peer.cluster_key_file)")
    elif config.peer.insecure_open_cluster:
        logger.warning("insecure_open_cluster: anyone who reaches the peer port can read and write")


def _raise_open_files() -> None:
    """Every client, peer and blob is a file descriptor: take as many as the host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 20), hard))
        except (OSError, ValueError) as error:
            print(f"open files stay limited to {soft}: {error}", file=sys.stderr)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

"""``p2pdist cluster``: what all agents of one cluster share."""

from __future__ import annotations

import click

from p2pdist.wire.keys import ClusterKey


@click.group()
def cluster() -> None:
    """What all agents of one cluster share."""


@cluster.command(
    epilog="""\b
Example:
  (umask 077; p2pdist cluster key > /etc/p2pdist/cluster.key)
\b
Copy the file to every host, and name it in each configuration: [peer] cluster_key_file."""
)
def key() -> None:
    """Print a new cluster key.

    Whoever has it can read the cluster's blobs and write its records; whoever has it not can do neither.
    """
    click.echo(ClusterKey.generate().text())

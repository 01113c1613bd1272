#!/bin/sh
# The init container: makes the agent's data directory on the node, and points the node's containerd at the agent, by
# p2pdist setup. Twice the same changes nothing, and a hosts.toml that somebody else wrote is left alone. With the
# argument --remove: what containerd had before (../remove).
# HOST: where the node's files are mounted; CERTS_D: its certs.d, as the node names it; DATA_DIR: the agent's data
# directory; OWNER: its user and group.
set -eu

if [ "${1-}" != --remove ]; then
  mkdir -p "$DATA_DIR"
  if [ "$(stat -c %u:%g "$DATA_DIR")" != "$OWNER" ]; then
    chown "$OWNER" "$DATA_DIR"
    chmod 0750 "$DATA_DIR"
  fi
fi

status=0
p2pdist setup containerd --root "$HOST" --certs-dir "$CERTS_D" "$@" || status=$?
# A file that was left alone (1) keeps one registry's pulls from the agent, and is no reason not to start it.
if [ "$status" -eq 1 ]; then
  echo "node-setup: not all of it could be done, as said above; the agent is started all the same" >&2
elif [ "$status" -ne 0 ]; then
  exit "$status"
fi

#!/bin/sh
# The init container: makes the agent's data directory on the node, and points the node's containerd at the agent.
# Twice the same changes nothing. A hosts.toml that somebody else wrote is left alone.
# CERTS_D: the node's certs.d, as mounted here; DATA_DIR: the agent's data directory; OWNER: its user and group.
set -eu

mkdir -p "$DATA_DIR"
if [ "$(stat -c %u:%g "$DATA_DIR")" != "$OWNER" ]; then
  chown "$OWNER" "$DATA_DIR"
  chmod 0750 "$DATA_DIR"
fi

mark='# Written by p2pdist'
file="$CERTS_D/_default/hosts.toml"
if [ -e "$file" ] && ! grep -q "^$mark" "$file"; then
  echo "node-setup: $file is not from p2pdist and stays as it is: containerd on this node does not use the agent" >&2
  exit 0
fi
mkdir -p "$CERTS_D/_default"
new="$CERTS_D/_default/.hosts.toml.$$"
trap 'rm -f "$new"' EXIT
cat >"$new" <<TOML
$mark; removed by hand. When nothing listens there, containerd pulls from the registry itself.
[host."http://127.0.0.1:5050"]
  capabilities = ["pull", "resolve"]
TOML
if cmp -s "$new" "$file"; then
  echo "node-setup: $file is as it should be"
else
  chmod 0644 "$new"
  mv "$new" "$file"
  echo "node-setup: wrote $file"
fi

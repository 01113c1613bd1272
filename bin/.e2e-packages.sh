#!/usr/bin/env bash
# Installs the Debian packages that tests drive (tests/e2e, and the dashboard's), where they are missing; needs root. The tests call it when CI is set.
set -euo pipefail
packages=(
  busybox-static buildah ca-certificates chromium conmon containerd curl docker.io docker-registry iproute2 jq nftables openssh-client
  openssh-server podman prometheus runc skopeo systemd systemd-container uidmap util-linux
)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "e2e packages: all installed" >&2
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "e2e packages: ${missing[*]} are missing, and only root can install them: sudo $0" >&2
  exit 1
fi
command -v apt-get >/dev/null || { echo "e2e packages: no apt-get here; install by hand: ${missing[*]}" >&2; exit 1; }
echo "e2e packages: installing ${missing[*]}" >&2
# No daemon of these packages is to start: the tests run their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"

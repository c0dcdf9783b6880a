#!/usr/bin/env bash
# Installs NVIDIA's container toolkit on hosts with Debian or Ubuntu, over SSH, so that containers get GPUs:
#   scripts/install_nvidia_container_toolkit.sh [--restart] [user@]HOST[:PORT]...
# As root, or by sudo; Docker and NVIDIA's driver must be there. A second run changes nothing. Docker must be
# restarted once: where containers run that this would stop, nothing is restarted without --restart.
# SWEEPFW_NVIDIA_REPO: where the packages are, instead of NVIDIA's own address (for a mirror of it).
set -euo pipefail
. "$(dirname "$0")/over_ssh"

script() {
  cat <<'END'
repository=$2 restart=$3
hook=nvidia-container-runtime-hook
only_debian
become_root

nvidia-smi -L >/dev/null 2>&1 || fail "no NVIDIA driver answers (nvidia-smi -L): install the driver and reboot first"
docker_answers || fail "Docker does not answer: scripts/install_docker.sh $host installs it"

add_repository() {
  command -v curl >/dev/null || apt install -y --no-install-recommends curl ca-certificates
  local key=/etc/apt/keyrings/nvidia-container-toolkit.asc list=/etc/apt/sources.list.d/nvidia-container-toolkit.list
  root install -d -m 755 /etc/apt/keyrings
  local found
  found=$(curl -fsSL --retry 3 "$repository/gpgkey") || fail "cannot fetch $repository/gpgkey; SWEEPFW_NVIDIA_REPO names a mirror"
  echo "$found" | root tee $key >/dev/null
  echo "deb [signed-by=$key] $repository/stable/deb/\$(ARCH) /" | root tee $list >/dev/null
}

# Docker looks for the hook when it starts: was it there then?
docker_knows() {
  local pid started
  root docker info --format '{{json .Runtimes}}' | grep '"nvidia"' >/dev/null || return 1
  pid=$(pgrep -o -x dockerd) || return 0 # somewhere else; it knows the runtime
  started=$(($(date +%s) - $(ps -o etimes= -p "$pid")))
  [ "$started" -ge "$(stat -L -c %Z "$(command -v $hook)")" ]
}

if command -v nvidia-ctk >/dev/null && command -v $hook >/dev/null; then
  say "the toolkit is there"
else
  say "installing the NVIDIA container toolkit"
  apt_update
  if ! known_to_apt nvidia-container-toolkit; then
    add_repository
    apt_update
  fi
  apt install -y --no-install-recommends nvidia-container-toolkit
fi

if docker_knows; then
  say "Docker knows it"
  exit
fi
if ! root docker info --format '{{json .Runtimes}}' | grep '"nvidia"' >/dev/null; then
  root nvidia-ctk runtime configure --runtime=docker >/dev/null 2>&1 || fail "nvidia-ctk runtime configure --runtime=docker failed"
fi
running=$(root docker ps --format '{{.Names}}' | tr '\n' ' ')
kept=$(root docker info --format '{{.LiveRestoreEnabled}}')
if [ -n "$running" ] && [ "$kept" != true ] && [ "$restart" != yes ]; then
  fail "the toolkit is installed, but Docker must be restarted to see it, which would stop: ${running% }; run this again with --restart, or restart Docker when they have ended"
fi
if [ -n "$running" ] && [ "$kept" != true ]; then say "restarting Docker, which stops: ${running% }"; else say "restarting Docker"; fi
docker_service restart
docker_knows || fail "Docker was restarted and does not know the runtime nvidia; look at /etc/docker/daemon.json"
say "containers get GPUs"
END
}

restart=no
if [ "${1:-}" = --restart ]; then
  restart=yes
  shift
fi
[ $# -gt 0 ] || die "usage: scripts/install_nvidia_container_toolkit.sh [--restart] [user@]HOST[:PORT]..."
repository=${SWEEPFW_NVIDIA_REPO:-https://nvidia.github.io/libnvidia-container}
for host; do parse_host "$host"; done
for host; do script | over_ssh "$host" "${repository%/}" $restart; done

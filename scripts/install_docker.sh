#!/usr/bin/env bash
# Installs Docker on hosts with Debian or Ubuntu, over SSH: scripts/install_docker.sh [user@]HOST[:PORT]...
# As root, or by sudo. What is there already stays as it is; a second run changes nothing.
# Packages are the distribution's, or Docker's own where the host's apt knows them.
set -euo pipefail
. "$(dirname "$0")/over_ssh"

script() {
  cat <<'END'
only_debian
become_root

case $(docker --version 2>&1 || true) in *odman*) fail "its docker command is Podman's; remove podman-docker first" ;; esac
if docker_answers; then
  say "Docker $(root docker version --format '{{.Server.Version}}') is there and answers"
else
  if ! command -v dockerd >/dev/null; then
    say "installing Docker"
    apt_update
    if known_to_apt docker-ce; then
      apt install -y docker-ce docker-ce-cli containerd.io docker-buildx-plugin
    else
      packages=(docker.io)
      for package in docker-cli docker-buildx; do
        if known_to_apt $package; then packages+=("$package"); fi
      done
      apt install -y --no-install-recommends "${packages[@]}" ca-certificates iptables
    fi
  fi
  docker_answers || docker_service start
  say "Docker $(root docker version --format '{{.Server.Version}}') runs"
fi

user=$(id -un)
if [ "$user" != root ] && ! getent group docker | cut -d: -f4 | tr , '\n' | grep -x "$user" >/dev/null; then
  root usermod -aG docker "$user"
  say "$user is in the group docker now, with rights like root's; a login from now on has them (a shared SSH connection must be closed first: ssh -O exit)"
fi
END
}

[ $# -gt 0 ] || die "usage: scripts/install_docker.sh [user@]HOST[:PORT]..."
for host; do parse_host "$host"; done
for host; do script | over_ssh "$host"; done

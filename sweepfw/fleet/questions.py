"""What is asked of a host: one script for all of it, since each round trip costs; `facts` reads the answers.

It changes nothing, and needs no more than a POSIX shell: what is missing there leaves an empty section.
"""

from __future__ import annotations

from collections.abc import Iterable

from sweepfw.core.command import Cmd, cmd

# Sections begin with a line "@@MARK NAME". The mark is drawn anew each time, so that nothing on the host can
# pretend to be a section.
SCRIPT = r"""
say() { printf '\n@@%s %s\n' "$mark" "$1"; }
soon() { if command -v timeout >/dev/null; then timeout 30 "$@"; else "$@"; fi; }
there() { p=$1; while [ ! -e "$p" ] && [ "$p" != / ]; do p=$(dirname "$p"); done; printf '%s\n' "$p"; }

main() {
mark=$1 dir=$2 stem=$3; shift 3
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin
case $dir in "~") dir=$HOME;; "~/"*) dir=$HOME/${dir#"~/"};; esac
say clock; date +%s.%N
say who; id -u; id -g; id -un; id -gn; id -G; printf '%s\n' "$HOME"
say machine; cat /etc/machine-id || cat /var/lib/dbus/machine-id
say system; uname -n; uname -m; uname -sr; nproc
say memory; grep -E '^Mem(Total|Available):' /proc/meminfo
say release; cat /etc/os-release
say home; stat -f -c %T "$HOME"
say dir; printf '%s\n' "$dir"; df -Pk "$(there "$dir")" | tail -n 1
say quota; command -v quota >/dev/null && soon quota -w -p | tail -n +3
say folders; ls -A "$dir"
say readme; id8=$(cut -c1-8 /etc/machine-id); cat "$dir/$stem-$id8/README"
say keys; grep -F ' sweepfw:' "$HOME/.ssh/authorized_keys"
say hostkeys; cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f1,2
say selinux; command -v getenforce >/dev/null && getenforce
say nvidia; for device in /sys/bus/pci/devices/*; do
    case $(cat "$device/vendor")$(cat "$device/class") in 0x10de0x03*) echo "$device";; esac; done
say driver; command -v nvidia-smi &&
    soon nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1
say gpus; command -v nvidia-smi >/dev/null &&
    soon nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used --format=csv,noheader,nounits
say toolkit; command -v nvidia-container-runtime nvidia-container-runtime-hook nvidia-ctk
say mounts; for path in "$@"; do
    case $path in "~/"*) real=$HOME/${path#"~/"};; *) real=$path;; esac
    if [ -e "$real" ]; then printf 'yes %s\n' "$path"; else printf 'no %s\n' "$path"; fi; done
say command; command -v docker || return 0
say info; soon docker info --format '{{json .}}' 2>&1
say buildx; soon docker buildx version
owner='{{.Label "sweepfw.deployment"}}' ours=label=sweepfw.deployment
labels="$owner"'|{{.Label "sweepfw.role"}}|{{.Label "sweepfw.config"}}'
say containers
soon docker ps -a --no-trunc --filter "$ours" --format "{{.Names}}|{{.State}}|{{.Status}}|$labels|{{.Image}}"
say volumes; soon docker volume ls --filter "$ours" --format "{{.Name}}|$owner"
say networks; soon docker network ls --filter "$ours" --format "{{.Name}}|$owner"
say images; soon docker images --format '{{.Repository}}:{{.Tag}}'
root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
say disk; [ -n "$root" ] && df -Pk "$(there "$root")" | tail -n 1
say end
}
main "$@" </dev/null 2>/dev/null
"""

# From the head's host: whether each worker's sshd answers there, and with which keys. The comments on stderr
# tell of those that answer but have no key of these kinds. Each kind is a connection without a login, and
# sshd turns away who makes many of them (PerSourcePenalties): so nearly always it is one.
REACH = r"""
main() {
PATH=$PATH:/usr/local/bin:/usr/bin:/bin
for place in "$@"; do
    host=${place% *} port=${place##* }
    printf 'name %s %s\n' "$host" "$(getent ahosts "$host" 2>/dev/null | cut -d' ' -f1 | sort | head -n 1)"
done
if command -v ssh-keyscan >/dev/null; then
    for place in "$@"; do (
        host=${place% *} port=${place##* }
        said=$(ssh-keyscan -T 8 -t ed25519 -p "$port" "$host" 2>&1)
        case $said in
        *" ssh-ed25519 "*) ;;
        *SSH-*) said=$(ssh-keyscan -T 8 -t ecdsa,rsa -p "$port" "$host" 2>&1) ;;
        esac
        printf '%s\n' "$said" | sed "s/^/scan $port /"
    ) & done; wait
    return
fi
for place in "$@"; do (
    host=${place% *} port=${place##* }
    line=$(timeout 8 bash -c 'exec 3<>"/dev/tcp/$0/$1" && IFS= read -r -t 6 line <&3 && echo "$line"' \
        "$host" "$port" 2>&1 | tail -n 1)
    printf 'bare %s %s %s\n' "$port" "$host" "$line"
) & done; wait
}
main "$@" </dev/null
"""


def look(mark: str, remote_dir: str, stem: str, mounts: Iterable[str]) -> Cmd:
    """The command that SCRIPT is the input of. `stem`: the name of the deployment's folder, without the
    machine's id. `mounts`: paths on the host that are looked for."""
    return cmd("sh", "-s", "--", mark, remote_dir, stem, *mounts)


def reach(places: Iterable[tuple[str, int]]) -> Cmd:
    """The command that REACH is the input of."""
    return cmd("sh", "-s", "--", *(f"{address} {port}" for address, port in places))

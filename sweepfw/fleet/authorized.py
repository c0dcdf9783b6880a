"""The one line of ours in a worker host's authorized_keys, and how it gets there and away."""

from __future__ import annotations

import re

from sweepfw.core.command import Cmd, cmd, shown
from sweepfw.core.deployment import SETTINGS, TUNNEL_UID

# Everything else in the file stays as it is, also what has no newline at its end; a link stays a link; the
# file is replaced as a whole, with its mode, and is never there half written. Hosts that share a home take
# turns: a folder is made by one of them only, also on NFS. One that has been there for 10 s was left by
# somebody who was killed, or who stands still: that one begins anew when it wakes.
_SCRIPT = r"""
set -eu
umask 077
tag=$1 line=$2
folder=$HOME/.ssh lock=$HOME/.ssh/.sweepfw.lock new= own=none
seen() { stat -c '%i %y' "$lock" 2>/dev/null || true; }
mine() { [ "$(seen)" = "$own" ]; }
leave() {
    if [ -n "$new" ]; then rm -f "$new"; fi
    if mine; then rmdir "$lock" "$@" 2>/dev/null || true; fi
}
trap leave EXIT
while :; do
    file=$HOME/.ssh/authorized_keys tries=0 before=
    while :; do
        if [ -z "$line" ] && [ ! -e "$file" ]; then exit 0; fi
        mkdir -p "$folder"
        if mkdir "$lock" 2>/dev/null; then break; fi
        now=$(seen)
        if [ "$now" != "$before" ]; then tries=0; fi # another has it by now
        before=$now tries=$((tries + 1))
        if [ $tries -gt 50 ]; then
            # Of many who see that it is time, one looks once more: by now it may be another's.
            if mkdir "$lock.old" 2>/dev/null; then
                if [ "$(seen)" = "$before" ]; then rmdir "$lock" 2>/dev/null || true; fi
                rmdir "$lock.old"
            fi
            find "$lock.old" -prune -mmin +1 -exec rmdir {} + 2>/dev/null || true
        fi
        sleep 0.2
    done
    own=$(seen)
    if [ ! -e "$file" ]; then
        [ -n "$line" ] || exit 0
        : >>"$file"
    fi
    file=$(readlink -f "$file")
    rm -f "$file".sweepfw.?????? # of one that was killed
    new=$(mktemp "$file.sweepfw.XXXXXX")
    grep -v -e " $tag\$" "$file" >"$new" || [ $? -eq 1 ]
    if [ -n "$line" ]; then printf '%s\n' "$line" >>"$new"; fi
    if cmp -s "$new" "$file"; then exit 0; fi
    if mine && [ -e "$new" ]; then break; fi # else what was read may be old
    rm -f "$new"
done
if [ ! -s "$new" ]; then
    rm -f "$HOME/.ssh/authorized_keys" "$file"
    leave "$folder"
    exit 0
fi
chmod "$(stat -c %a "$file")" "$new"
mv -f "$new" "$file"
if command -v restorecon >/dev/null; then restorecon "$file"; fi
"""


def tag(uid: str, machine_id: str) -> str:
    """The comment that our line ends with. Hosts may share a home: each has a line of its own there."""
    return f"sweepfw:{uid}:{machine_id[:8]}"


def line(public_key: str, docker: str, container: str, tag: str) -> str:
    """What lets the head's key reach the sshd inside the worker's container, and nothing else: no shell, no
    forwarding, no other command."""
    sshd = ("/usr/sbin/sshd", "-i", "-f", f"{SETTINGS}/sshd_config")
    inner = shown([docker, "exec", "-i", "-u", f"{TUNNEL_UID}:{TUNNEL_UID}", container, *sshd])
    assert '"' not in inner and "\\" not in inner  # neither in a path of docker's nor in a name of ours
    return f'restrict,command="{inner}" {public_key} {tag}'


def put(tag: str, line: str) -> Cmd:
    """Have this line, once, instead of any other with the tag."""
    assert re.fullmatch(r"[A-Za-z0-9:-]+", tag) and line.endswith(f" {tag}")
    return cmd("sh", "-c", _SCRIPT, "sh", tag, line)


def remove(tag: str) -> Cmd:
    """Have no line with the tag."""
    assert re.fullmatch(r"[A-Za-z0-9:-]+", tag)
    return cmd("sh", "-c", _SCRIPT, "sh", tag, "")

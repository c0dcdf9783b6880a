"""What other people have on a host, for whoever tidies up too much; and all that can be seen there."""

from __future__ import annotations

from lab import Lab

# What others have on the hosts: a container with its volume and network, lines in authorized_keys, a file
# beside ours; and of another deployment a container that runs and one that does not, with volume and image.
OTHERS = r"""
set -eu
docker network create others-net >/dev/null
docker volume create others-data >/dev/null
docker run -d --name others --network others-net -v others-data:/data \
    sweepfw-lab/base:latest sleep 86400 >/dev/null
docker tag sweepfw-lab/base:latest sweepfw:other
docker volume create --label sweepfw.deployment=0123ab sweepfw-t-0123ab-worker >/dev/null
docker run -d --name sweepfw-t-0123ab-worker --label sweepfw.deployment=0123ab --label sweepfw.role=worker \
    sweepfw:other sleep 86400 >/dev/null
docker create --name sweepfw-t-0123ab-head --label sweepfw.deployment=0123ab --label sweepfw.role=head \
    sweepfw:other true >/dev/null
mkdir -p ~/.sweepfw/other-0123ab-01234567
echo keep >~/.sweepfw/other-0123ab-01234567/README
key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJ"
echo "$key me@home" >>~/.ssh/authorized_keys
echo "$key sweepfw:0123ab:01234567" >>~/.ssh/authorized_keys
"""
AWAY = r"""
docker rm -f others sweepfw-t-0123ab-worker sweepfw-t-0123ab-head
docker volume rm others-data sweepfw-t-0123ab-worker
docker network rm others-net
docker rmi sweepfw:other
rm -r ~/.sweepfw/other-0123ab-01234567
rmdir ~/.sweepfw
sed -i '/ me@home$/d; / sweepfw:0123ab:/d' ~/.ssh/authorized_keys
"""
INVENTORY = r"""
docker ps -a --format 'container {{.Names}} {{.State}}' | sort
docker volume ls --format 'volume {{.Name}}' | sort
docker network ls --format 'network {{.Name}}' | sort
docker image ls --format 'image {{.Repository}}:{{.Tag}}' | sort
find ~ -mindepth 1 | sort
sed 's/^/key /' ~/.ssh/authorized_keys
stat -c 'mode %n %a %U' ~/.ssh ~/.ssh/authorized_keys
ls -d /tmp/* /dev/shm/* /run/user/*/* 2>/dev/null || true
ss -Hltn | awk '{print "listens", $4}' | sort
"""


def move_in(lab: Lab) -> None:
    """Others have things on every host."""
    for host in lab.hosts:
        host.run(["sh", "-c", OTHERS], user="lab")


def move_out(lab: Lab) -> None:
    for host in lab.hosts:
        host.run(["sh", "-c", AWAY], user="lab", check=False)


def inventory(lab: Lab) -> dict[str, str]:
    """Host -> what is there, as the deployment's user sees it."""
    return {host.name: host.run(["sh", "-c", INVENTORY], user="lab").stdout for host in lab.hosts}

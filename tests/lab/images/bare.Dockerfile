# A machine that answers to SSH and has no Docker.
ARG BASE
FROM $BASE
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      openssh-server sudo iproute2 iptables procps curl >/dev/null \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
COPY sshd.conf /etc/ssh/sshd_config.d/lab.conf
COPY init-functions /usr/lib/lsb/init-functions.d/99-lab
COPY lab-host /usr/local/sbin/
CMD ["lab-host"]

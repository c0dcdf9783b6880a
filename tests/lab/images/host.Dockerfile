# A machine that answers to SSH and has Docker.
ARG BARE
FROM $BARE
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      docker.io docker-cli docker-buildx >/dev/null \
 && rm -rf /var/lib/apt/lists/*
COPY make-gpus nvidia-smi nvidia-runtime nvidia-hook /usr/local/lib/lab/
VOLUME /var/lib/docker

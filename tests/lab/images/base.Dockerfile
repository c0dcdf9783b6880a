# What a user's base image might be: Debian with python3. $DEBIAN is a bare Debian, made by debootstrap.
# trust/ holds what this machine needs to reach the network and a stock Debian lacks; it may be empty.
ARG DEBIAN
FROM $DEBIAN
COPY trust/ /
RUN update-ca-certificates --fresh >/dev/null && echo 'Acquire::Retries "5";' >/etc/apt/apt.conf.d/80retries
CMD ["bash"]

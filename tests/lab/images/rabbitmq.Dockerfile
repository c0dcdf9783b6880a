# Stands for the official image rabbitmq:4: the same account, and its programs on the PATH for any account.
ARG BASE
FROM $BASE
RUN groupadd -r -g 999 rabbitmq && useradd -r -u 999 -g rabbitmq -d /var/lib/rabbitmq -s /usr/sbin/nologin rabbitmq \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends rabbitmq-server >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/lib/rabbitmq/.erlang.cookie \
 && chmod 1777 /var/lib/rabbitmq /etc/rabbitmq /var/log/rabbitmq
ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/rabbitmq
CMD ["rabbitmq-server"]

ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# Debian's HAProxy: its security updates come with every build. Python is here for the health check.
FROM ${PYTHON_IMAGE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    --mount=type=tmpfs,target=/var/log \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then set -- -o Acquire::https::CAInfo=/run/secrets/ca_bundle; fi \
    && apt-get "$@" update \
    && apt-get "$@" install -y --no-install-recommends haproxy
# Modes are set here: a clone made under umask 077 must not yield an image that only root can read.
COPY deploy/images/gateway/ /etc/haproxy/
RUN chmod -R a+rX /etc/haproxy && haproxy -c -f /etc/haproxy/haproxy.cfg
# By number: whoever runs it may choose another, and none needs an entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000
# Finishes what it is asked; SIGTERM would cut it off.
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

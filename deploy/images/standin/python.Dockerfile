# Stands in for the official python:*-slim-bookworm where no container registry is reachable.
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE}

RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv tzdata \
    && ln -s python3 /usr/bin/python \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*

ENV LANG=C.UTF-8

CMD ["python3"]

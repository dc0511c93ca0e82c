# Stands in for the official postgres:*-bookworm where no container registry is reachable.
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE}

ENV LANG=en_US.utf8 \
    PGDATA=/var/lib/postgresql/data \
    PATH=/usr/lib/postgresql/15/bin:$PATH

# Before the packages, which would take whatever uid is free: volumes are owned by number.
RUN groupadd --system --gid 999 postgres \
    && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres

# The collation of the official image; the package that makes it is not kept.
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends locales \
    && localedef --no-archive -i en_US -f UTF-8 en_US.UTF-8 \
    && apt-get purge -y locales \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*

# libnss-wrapper: initdb wants a name for its uid, and an arbitrary --user has none.
RUN mkdir /etc/postgresql-common \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold \
        libnss-wrapper postgresql-15 tzdata \
    && sed -i "s/^#listen_addresses = 'localhost'/listen_addresses = '*'/" \
        /usr/share/postgresql/15/postgresql.conf.sample \
    && grep -q "^listen_addresses = '\*'" /usr/share/postgresql/15/postgresql.conf.sample \
    && mkdir -p "$PGDATA" /docker-entrypoint-initdb.d \
    && chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql \
    && chmod 1777 "$PGDATA" \
    && chmod 3777 /var/run/postgresql \
    && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*

COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/local/bin/docker-entrypoint.sh

VOLUME /var/lib/postgresql/data
EXPOSE 5432
# Fast shutdown: sessions are ended, no crash recovery at the next start. SIGTERM would wait for the last client.
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]

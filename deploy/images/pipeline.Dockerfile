ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS tools
COPY deploy/images/tools.lock /locks/
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi \
    && python -m venv /opt/tools \
    && /opt/tools/bin/pip install --disable-pip-version-check --require-hashes -r /locks/tools.lock

FROM tools AS packages
COPY deploy/images/pipeline.lock /locks/
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export SSL_CERT_FILE=/run/secrets/ca_bundle; fi \
    && python -m venv --without-pip /opt/venv \
    && /opt/tools/bin/uv pip sync --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
        --require-hashes /locks/pipeline.lock \
    && rm /opt/venv/.lock

# Modes are set here: a clone made under umask 077 must not yield an image that only root can read.
FROM packages AS source
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/dagster/app
WORKDIR /opt/dagster/app
COPY backend/ backend/
COPY deploy/ deploy/
COPY dbt/ dbt/
COPY deploy/pipeline/dagster.yaml deploy/pipeline/workspace.yaml /opt/dagster/dagster_home/
# The project, parsed once, which connects to nothing: Dagster reads its assets from it, and dbt goes on from it in every
# build whose profile is the same. So the profile's variables are those of the daemon in phases 1 and 2.
RUN DBT_TARGET=postgres DUCKDB_PATH=/tmp/dbt_build.duckdb \
    SOURCE_HOST=postgres SOURCE_PORT=5432 SOURCE_DB=finance SOURCE_USER=analytics_reader \
    dbt parse --project-dir dbt --profiles-dir dbt --target-path /opt/dagster/dbt_target --log-path /tmp/dbt_logs \
    && python -m compileall -q backend deploy \
    && chmod -R a+rX /opt/dagster

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/dagster/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DAGSTER_HOME=/opt/dagster/dagster_home \
    DBT_TARGET_PATH=/opt/dagster/dbt_target
WORKDIR /opt/dagster/app
COPY --from=packages /opt/venv /opt/venv
COPY --from=source /opt/dagster /opt/dagster
# By number: whoever runs it may choose another, and none needs an entry in /etc/passwd.
USER 10001:10001
EXPOSE 3000
CMD ["python", "-m", "deploy.pipeline.entrypoint", "daemon"]

ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS tools
COPY deploy/images/tools.lock /locks/
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi \
    && python -m venv /opt/tools \
    && /opt/tools/bin/pip install --disable-pip-version-check --require-hashes -r /locks/tools.lock

FROM tools AS packages
COPY deploy/images/backend.lock /locks/
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export SSL_CERT_FILE=/run/secrets/ca_bundle; fi \
    && python -m venv --without-pip /opt/venv \
    && /opt/tools/bin/uv pip sync --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
        --require-hashes /locks/backend.lock \
    && rm /opt/venv/.lock

# Modes are set here: a clone made under umask 077 must not yield an image that only root can read.
FROM ${PYTHON_IMAGE} AS source
COPY backend/ /app/backend/
RUN chmod -R a+rX /app && python -m compileall -q /app

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY --from=source /app /app
# By number: whoever runs it may choose another, and none needs an entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "backend.server", "--host", "0.0.0.0"]

#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml: exact versions with hashes, and no address of any registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

compile() {
    .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --upgrade \
        pyproject.toml "$@"
}

compile --all-extras --group dev --output-file requirements.lock
compile --extra backend --constraint requirements.lock --output-file deploy/images/backend.lock
compile --extra pipeline --constraint requirements.lock --output-file deploy/images/pipeline.lock
compile --group bench --constraint requirements.lock --output-file tests/bench/peers.lock
{
    echo "# What builds the images and stays out of them: uv as requirements.lock has it, apart so that the layer is kept"
    echo "# while the other packages move."
    awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock
} >deploy/images/tools.lock

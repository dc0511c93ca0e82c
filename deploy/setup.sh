#!/usr/bin/env bash
# Makes this host ready to run and test the stack. Each step looks first and does nothing where all is there.
# Usage: deploy/setup.sh [venv|secrets|engine|compose|images|browser|wrk|bench]...   (default: the first five in order)
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source deploy/setup/common.sh
source deploy/setup/bundle.sh
source deploy/setup/venv.sh
source deploy/setup/secrets.sh
source deploy/setup/engine.sh
source deploy/setup/compose.sh
source deploy/setup/images.sh
source deploy/setup/browser.sh
source deploy/setup/bench.sh

if [[ $# == 0 ]]; then
    set -- venv secrets engine compose images
fi
for step in "$@"; do
    case $step in
        venv) set_up_venv ;;
        secrets) set_up_secrets ;;
        engine) set_up_engine ;;
        compose) set_up_compose ;;
        images) set_up_images ;;
        browser) set_up_browser ;;
        wrk) set_up_wrk ;;
        bench) set_up_bench ;;
        *) die "there is no step '$step'" "use one or more of: venv secrets engine compose images browser wrk bench" ;;
    esac
done

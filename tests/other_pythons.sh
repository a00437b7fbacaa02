#!/usr/bin/env bash
# Runs the fast layers of the tests, and those where an interpreter may differ, under every CPython >= 3.12 on this
# machine but that of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version_of() { "$1" -c 'import platform, sys; print(platform.python_implementation(), *sys.version_info[:2])' 2>/dev/null; }

own=$(version_of .venv/bin/python)
declare -A found=()
for python in $(compgen -c | grep -Ex 'python3\.[0-9]+' | sort -u) ~/.pyenv/versions/*/bin/python3 /opt/python/*/bin/python3; do
    version=$(version_of "$python") || continue # a shim of a version that is not installed
    [[ $version =~ ^CPython\ 3\ 1[2-9]$ && $version != "$own" ]] && found[$version]=$python
done
if [[ ${#found[@]} -eq 0 ]]; then
    echo "no other CPython from 3.12 on was found: nothing to run"
    exit 0
fi
venv_of() { echo "build/venv-${1// /-}"; }

install() {
    local venv
    venv=$(venv_of "$1")
    [[ ! -e $venv/.installed || pyproject.toml -nt $venv/.installed || requirements/dev.txt -nt $venv/.installed ]] || return 0
    "${found[$1]}" -m venv --clear "$venv" &&
        "$venv/bin/python" -m pip install --quiet --require-hashes --requirement requirements/dev.txt &&
        "$venv/bin/python" -m pip install --quiet --no-deps --editable . &&
        touch "$venv/.installed"
}

installing=()
for version in "${!found[@]}"; do
    install "$version" &
    installing+=($!)
done
for pid in "${installing[@]}"; do wait "$pid"; done

# The state machine is left out: it judges the scripts by the server's key space, which no interpreter changes.
for version in "${!found[@]}"; do
    echo "+ fast layers under $version (${found[$version]})"
    "$(venv_of "$version")/bin/python" -m pytest tests/unit tests/scripts tests/flow/test_hostile_processors.py \
        tests/flow/test_operations.py tests/flow/test_callbacks.py tests/flow/test_lifecycle.py \
        --ignore=tests/scripts/test_state_machine.py -n "${JOBS:-3}" --dist worksteal -q
done

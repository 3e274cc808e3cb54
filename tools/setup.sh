#!/bin/sh
# Create .venv/ with Python 3.10 and the exact versions of constraints.txt.
set -eu

is_310() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3.10 "$(pyenv prefix 2>/dev/null || true)/bin/python" python3 python; do
        if is_310 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

if ! is_310 .venv/bin/python; then
    rm -rf .venv
    python=$(find_python)
    if [ -n "$python" ]; then
        "$python" -m venv .venv
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --seed --python 3.10 .venv
    else
        echo "setup: no Python 3.10 found: put python3.10 on the path, or install it with pyenv" \
             "(pyenv install 3.10), or install uv, which fetches one" >&2
        exit 1
    fi
fi
echo "setup: installing into .venv (about 6 GB with torch; a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable '.[dev]'

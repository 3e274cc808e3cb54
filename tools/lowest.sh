#!/bin/sh
# Create build/lowest/ with the lowest versions that pyproject.toml allows; see tools/lowest.py.
set -eu
lowest=build/lowest
mkdir -p build
.venv/bin/python tools/lowest.py > "$lowest.txt"
if cmp -s "$lowest.txt" "$lowest/installed.txt"; then
    exit
fi
rm -rf "$lowest"
.venv/bin/python -m venv "$lowest"
echo "test-lowest: installing into $lowest (about 6 GB with torch; some minutes)"
"$lowest/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$lowest.txt" --editable '.[dev]'
cp "$lowest.txt" "$lowest/installed.txt"

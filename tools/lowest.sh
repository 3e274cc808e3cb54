#!/bin/sh
# Create build/lowest/ with the lowest versions that pyproject.toml allows; see tools/lowest.py.
# The versions are those for the Python of .venv/ (or $VENV).
set -eu
python=${VENV:-.venv}/bin/python
lowest=build/lowest
mkdir -p build
"$python" tools/lowest.py > "$lowest.txt"
if cmp -s "$lowest.txt" "$lowest/installed.txt"; then
    exit
fi
rm -rf "$lowest"
VENV=$lowest CONSTRAINTS=$lowest.txt PYTHON=$python sh tools/setup.sh
cp "$lowest.txt" "$lowest/installed.txt"

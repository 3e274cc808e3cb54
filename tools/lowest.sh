#!/bin/sh
# Create build/lowest/ with the lowest versions that pyproject.toml allows; see tools/lowest.py.
# The versions are those for the Python of .venv/ (or $VENV).
set -eu
python=${VENV:-.venv}/bin/python
lowest=build/lowest
mkdir -p build
"$python" tools/lowest.py > "$lowest.txt"
case $(head -n 1 "$lowest.txt") in
    *3.10|*3.11) ;;
    *)
        echo "test-lowest: the lowest versions exist for Python 3.10 and 3.11 only: PYTHON=3.11" >&2
        exit 1;;
esac
if cmp -s "$lowest.txt" "$lowest/installed.txt"; then
    exit
fi
rm -rf "$lowest"
VENV=$lowest CONSTRAINTS=$lowest.txt PYTHON=$python sh tools/setup.sh
cp "$lowest.txt" "$lowest/installed.txt"

#!/bin/sh
# Create .venv/ (or $VENV) with the exact versions of constraints.txt.
#
# PYTHON is a version (3.12) or a program; without it the newest supported Python that is found.
# EXTRAS are those of pyproject.toml that are installed, `dev` by default; CONSTRAINTS is another file.
set -eu
venv=${VENV:-.venv}
wanted=${PYTHON:-}
constraints=${CONSTRAINTS:-constraints.txt}
supported="3.13 3.12 3.11 3.10"

version_of() {  # the x.y of a program, where it is a Python that can make environments
    "$1" -c 'import ensurepip, venv, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() {  # a program of that version: on the path, or of pyenv
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python \
                     python3 python; do
        if [ "$(version_of "$candidate")" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
}

is_supported() {
    case " $supported " in *" $1 "*) [ -n "$1" ];; *) false;; esac
}

case $wanted in
    "")
        versions=$supported;;
    [0-9]*)
        versions=$wanted;;
    *)
        versions=$(version_of "$wanted");;
esac
for version in ${versions:-none}; do
    if ! is_supported "$version"; then
        echo "setup: PYTHON=$wanted is not one of Python $supported" >&2
        exit 1
    fi
done

# An environment that is there stays, but where another Python is wanted or it lacks pip.
there=none
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    there=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
fi
case " $versions " in
    *" $there "*) ;;
    *)
        if [ -d "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
            echo "setup: $venv is there, and no environment of Python: choose another VENV" >&2
            exit 1
        fi
        python=
        for version in $versions; do
            python=$(find_python "$version")
            case $wanted in ""|[0-9]*) ;; *) python=$wanted;; esac
            if [ -n "$python" ]; then
                break
            fi
        done
        if [ -n "$python" ]; then
            "$python" -m venv --clear "$venv"
        elif command -v uv >/dev/null 2>&1; then
            uv venv --quiet --clear --seed --python "${versions%% *}" "$venv"
        else
            echo "setup: found none of Python $versions: put one on the path (python3.13, say), or" \
                 "install it with pyenv, or install uv, which fetches one" >&2
            exit 1
        fi;;
esac
python=$venv/bin/python

install() {  # what pip says of Lava's pins is no news; it is shown where pip fails
    if ! said=$("$python" -m pip install --quiet --disable-pip-version-check "$@" 2>&1); then
        echo "$said" >&2
        exit 1
    fi
}

# Of the builds of torch that pip finds it prefers one for CPUs, which takes a third of the disk.
found=$("$python" -m pip install --quiet --dry-run --ignore-installed --no-deps --report - \
            --constraint "$constraints" torch 2>/dev/null || true)
torch=$(echo "$found" | sed -n 's/%2B/+/; s/^ *"url": ".*\/torch-\([^/-]*\)-.*/\1/p' | head -n 1)
case $torch in
    "") build="torch of $constraints";;
    *+cpu) build="torch $torch (about 2 GB)";;
    *) build="torch $torch (about 6 GB on Linux: this build brings CUDA)";;
esac
echo "setup: $venv with $("$python" -V), $build; some minutes"

install --constraint "$constraints" --editable ".[${EXTRAS:-dev}]"
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    # Lava's own pins end with Python 3.10; what it imports has just been installed.
    install --no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0
fi

# Lava's own tests, 110 MB, lie where they would be imported as `tests`. Of them our tests read
# networks and recordings, which are kept elsewhere.
theirs=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests
if [ -d "$theirs/lava/lib/dl/netx" ]; then
    rm -rf "$venv/share/lava-dl"
    mkdir -p "$venv/share/lava-dl"
    mv "$theirs/lava/lib/dl/netx" "$venv/share/lava-dl/netx"
fi
rm -rf "$theirs"

#!/bin/sh
# Build sdist and wheel into dist/, and try each in an empty environment.
#
# Nothing is published: what is in dist/ afterwards can be uploaded. The tree must be clean, and the
# newest heading of CHANGELOG.md must name the version of pyproject.toml.
set -eu
venv=${VENV:-.venv}
python=$venv/bin/python

if [ -n "$(git status --porcelain)" ]; then
    echo "release: the working tree has changes that are not committed" >&2
    exit 1
fi
version=$("$python" -c '
import sys
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
newest=$(sed -n 's/^## \[*\([0-9][0-9.a-z]*\)\]*.*/\1/p' CHANGELOG.md | head -n 1)
if [ "$newest" != "$version" ]; then
    echo "release: CHANGELOG.md begins with version $newest, pyproject.toml has $version" >&2
    exit 1
fi

rm -rf dist build/release
"$python" -m build --outdir dist .
# The wheel is built from the sdist, so a file that either lacks is found here. The links in esl_lava
# become folders.
"$python" - <<'END'
import glob
import subprocess
import zipfile

links = {"esl_lava/export": "export/", "esl_lava/hw_configs": "hw_configs/"}
tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
expected = set()
for file in tracked.stdout.splitlines():
    if file.startswith("esl_lava/") and file not in links:
        expected.add(file)
    if file.startswith(tuple(links.values())):
        expected.add(f"esl_lava/{file}")
(wheel,) = glob.glob("dist/*.whl")
files = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("esl_lava/")}
if files != expected:
    raise SystemExit(
        f"release: {wheel} lacks {sorted(expected - files)} and has {sorted(files - expected)} "
        "beyond the tracked files"
    )
END
for file in dist/*.tar.gz dist/*.whl; do
    echo "release: trying $file in an empty environment"
    empty=build/release/$(basename "$file")
    "$python" -m venv --clear "$empty"
    "$empty/bin/pip" install --quiet --disable-pip-version-check \
        --constraint constraints.txt "$file"
    # From another folder: the package must be the installed one.
    (
        cd "$empty"
        test "$(bin/python -c 'import esl_lava; print(esl_lava.__version__)')" = "$version"
        bin/esl --version
        bin/esl devices --json > devices.json
        bin/esl reproduce table1 --counts-only > table1.txt
        bin/python -c 'import esl_lava; assert "site-packages" in esl_lava.__file__'
        bin/python -c 'import esl_lava; esl_lava.lower'
    )
done
ls -l dist
echo "release: $version is in dist/"

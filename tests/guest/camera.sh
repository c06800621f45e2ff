#!/bin/bash
# camera.sh PYTHON ROOT [OPTION...]: tests cameras and sound cards, as root in a guest with vivid and snd-aloop.
# PYTHON is the interpreter, ROOT the folder with the package and the tests, OPTION an option of pytest.
set -u
cd "$2" || exit 1
PYTHONPATH=$2 PYTHONDONTWRITEBYTECODE=1 exec "$1" -m pytest -p no:cacheprovider -p no:hypothesispytest -o addopts= -sv --noconftest \
    --import-mode=importlib tests/guest/check_sources.py "${@:3}"

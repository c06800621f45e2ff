#!/bin/bash
# Cameras and sound cards for real: run as root in a guest that has vivid and snd-aloop.
# Usage: camera.sh PYTHON ROOT [OPTION...], the interpreter, the folder that holds package and tests, options of pytest.
set -u
cd "$2" || exit 1
PYTHONPATH=$2 PYTHONDONTWRITEBYTECODE=1 exec "$1" -m pytest -p no:cacheprovider -p no:hypothesispytest -o addopts= -sv --noconftest \
    --import-mode=importlib tests/guest/check_sources.py "${@:3}"

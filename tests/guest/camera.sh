#!/bin/bash
# A camera (vivid) and a sound card (snd-aloop) as perceiverd meets them: run as root in a guest that has both drivers.
# Usage: camera.sh PYTHON ROOT, the program's interpreter and the folder that holds its package and its tests.
set -u
python=$1 root=$2
export PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1
exec "$python" "$root/tests/guest/check_devices.py"

#!/bin/bash
# run.sh [nspawn] [uml]: builds the package, boots a guest of each kind (both if none is named), installs the package
# there as an operator would, and runs the tests. Needs root. nspawn takes three minutes, uml more, and its kernel ten
# minutes once. If something is missing, the script says so and skips.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
[ "$(id -u)" = 0 ] || { echo "test-guest: skipped, it needs root" >&2; exit 0; }
VENV=$(realpath "${VENV:-.venv}")
here=tests/guest
need() { # need PACKAGE PROGRAM: install the package if the program is missing, or skip
    command -v "$2" >/dev/null || [ -x "$2" ] || DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
        --no-install-recommends "$1" >/dev/null 2>&1 || { echo "test-guest: skipped, $1 is missing" >&2; exit 0; }
}
need dbus dbus-daemon
need alsa-utils aplay
# The service uses the system's Python, which takes torch and other dependencies from the tests' environment. So both
# must have the same version.
version='import sys; print("%d.%d" % sys.version_info[:2])'
if [ "$(/usr/bin/python3 -c "$version" 2>/dev/null)" != "$("$VENV/bin/python" -c "$version")" ]; then
    echo "test-guest: skipped, /usr/bin/python3 and $VENV have different versions" >&2
    exit 0
fi
folder=$(mktemp -d /tmp/perceiverd-guest.XXXXXX)
echo "test-guest: the guests write to $folder while they run"
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
"$VENV/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" .
mkdir "$folder/src"
cp -r Makefile README.md ARCHITECTURE.md CHANGELOG.md SECURITY.md LICENSE docs pyproject.toml configs perceiverd systemd tests "$folder/src"
ln -s "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$folder/deps"
# A dependency of an extra brings a backport of pathlib. On PYTHONPATH it would hide the standard library's.
rm -f "$folder/deps/pathlib.py"
cat >"$folder/start" <<'SH'
#!/bin/sh
modprobe -a vivid snd-aloop 2>/dev/null && udevadm settle -t 30
journalctl --follow --lines=0 --output=short-monotonic >journal 2>&1 &
cd src
export PYTHONPATH=/srv/deps PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# A container shares this machine's kernel and has no cameras or sound cards.
[ -e /dev/video0 ] && checks=$(ls tests/guest/check_*.py) || checks=tests/guest/check_service.py
exec /usr/bin/python3 -m pytest -p no:cacheprovider -v -x --durations=0 --timeout=1200 $checks
SH
chmod 755 "$folder/start"
for kind in ${*:-nspawn uml}; do
    case $kind in
    nspawn) need systemd-container systemd-nspawn ;;
    uml) need udev /lib/systemd/systemd-udevd && need kmod modprobe && $here/kernel.sh ;;
    esac
    echo "test-guest: $kind"
    # If this machine cannot boot a guest at all, the tests cannot run; this is no fault of the package.
    mkdir -p "$folder/probe" && printf '#!/bin/sh\nexit 0\n' >"$folder/probe/start" && chmod 755 "$folder/probe/start"
    if ! $here/boot.sh "$kind" "$folder/probe" 300 2>"$folder/probe/why"; then
        echo "test-guest: $kind skipped, no guest boots here: $(tail -n 3 "$folder/probe/why" | tr '\n' ' ')" >&2
        continue
    fi
    $here/boot.sh "$kind" "$folder" "${GUEST_LIMIT:-2400}"
done

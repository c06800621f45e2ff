#!/bin/bash
# run.sh [nspawn] [uml]: builds the package, boots a guest of each kind (both, where none is named), installs it there as
# an operator would, and tries it. Needs root. Three minutes for nspawn, more for uml, and ten for its kernel, once. Where
# something that it needs is missing it is skipped, and says so.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
[ "$(id -u)" = 0 ] || { echo "test-guest: skipped, it needs root" >&2; exit 0; }
VENV=$(realpath "${VENV:-.venv}")
here=tests/guest
need() { # the programs that a package brings
    command -v "$2" >/dev/null || [ -x "$2" ] || DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
        --no-install-recommends "$1" >/dev/null 2>&1 || { echo "test-guest: skipped, $1 is missing" >&2; exit 0; }
}
need dbus dbus-daemon
need alsa-utils aplay
# The service's Python is the system's, which borrows torch and the like from the tests': they must be of one version.
version='import sys; print("%d.%d" % sys.version_info[:2])'
if [ "$(/usr/bin/python3 -c "$version" 2>/dev/null)" != "$("$VENV/bin/python" -c "$version")" ]; then
    echo "test-guest: skipped, /usr/bin/python3 is another version than $VENV's" >&2
    exit 0
fi
folder=$(mktemp -d /tmp/perceiverd-guest.XXXXXX)
echo "test-guest: what the guests write is in $folder for as long as they run"
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
"$VENV/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" .
mkdir "$folder/src"
cp -r Makefile README.md ARCHITECTURE.md CHANGELOG.md SECURITY.md LICENSE docs pyproject.toml configs perceiverd systemd tests "$folder/src"
ln -s "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$folder/deps"
cat >"$folder/start" <<'SH'
#!/bin/sh
modprobe -a vivid snd-aloop 2>/dev/null && udevadm settle -t 30
journalctl --follow --lines=0 --output=short-monotonic >journal 2>&1 &
cd src
export PYTHONPATH=/srv/deps PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# A container shares this machine's kernel and has no cameras or sound cards of its own.
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
    # What this machine does not let a guest do is no fault of ours.
    mkdir -p "$folder/probe" && printf '#!/bin/sh\nexit 0\n' >"$folder/probe/start" && chmod 755 "$folder/probe/start"
    if ! $here/boot.sh "$kind" "$folder/probe" 300 2>"$folder/probe/why"; then
        echo "test-guest: $kind skipped, no guest comes up here: $(tail -n 3 "$folder/probe/why" | tr '\n' ' ')" >&2
        continue
    fi
    $here/boot.sh "$kind" "$folder" "${GUEST_LIMIT:-2400}"
done

#!/bin/bash
# boot.sh nspawn|uml FOLDER SECONDS
#
# Boots systemd as process 1 over a copy of this machine's root folder that is thrown away at the end, runs
# FOLDER/start in it as root and ends with its exit status. In there FOLDER is /guest, writable, FOLDER/deps, where it is
# a link to a folder, is /srv/deps, and /tmp is empty. What FOLDER/start prints is printed here.
#
#   nspawn  a container on this machine's kernel: both cores, no devices
#   uml     a kernel of its own that runs as a program (kernel.sh builds it): one core, a camera and a sound card
set -euo pipefail
kind=$1 folder=$(realpath "$2") limit=$3
here=$(dirname "$(realpath "$0")")
# All that is mounted here ends with this process.
if [ -z "${GUEST_APART:-}" ]; then exec env GUEST_APART=1 unshare --mount --propagation private "$0" "$@"; fi

# What a machine of its own needs none of, and what would wait for hardware.
QUIET="systemd-networkd systemd-resolved systemd-timesyncd systemd-pstore systemd-random-seed systemd-update-utmp
    e2scrub_reap postgresql console-getty getty@tty1 mosquitto prometheus"

# Makes ROOT, a writable view of this machine's root folder, into one that boots into nothing but guest.service. With
# .dockerenv systemd would take it for a container, which has no devices of its own.
dress() {
    cat <<SH
units=\$ROOT/etc/systemd/system
for unit in $(echo $QUIET); do ln -sf /dev/null "\$units/\$unit.service"; done
rm -rf "\$units/timers.target.wants" "\$ROOT/var/log/journal" "\$ROOT/var/tmp"/* "\$ROOT/.dockerenv"
: >"\$ROOT/etc/fstab"; echo guest >"\$ROOT/etc/hostname"
echo 00112233445566778899aabbccddeeff >"\$ROOT/etc/machine-id"
mkdir -p "\$ROOT/guest" "\$ROOT/srv/deps"
printf '%s\n' '[Unit]' 'Requires=basic.target' 'After=basic.target dbus.socket' >"\$units/guest.target"
ln -sf guest.target "\$units/default.target"
mkdir -p "\$units/guest.target.wants"; ln -sf ../guest.service "\$units/guest.target.wants/"
printf '%s\n' '[Unit]' 'After=basic.target dbus.socket' "SuccessAction=$1" "FailureAction=$1" \
    '[Service]' 'Type=oneshot' 'TimeoutStartSec=infinity' 'WorkingDirectory=/guest' \
    'StandardOutput=append:/guest/said' 'StandardError=append:/guest/said' \
    'ExecStart=/bin/sh -c "/guest/start; echo \$\$? >/guest/status; sync"' >"\$units/guest.service"
SH
}

rm -f "$folder/status"; : >"$folder/said"
boot="systemd.unit=guest.target systemd.show_status=no"
tail -n +1 -f --pid=$$ "$folder/said" & printer=$!
case $kind in
nspawn)
    work=$(mktemp -d /tmp/guest.XXXXXX)
    mount -t tmpfs -o mode=755 guest "$work"
    mkdir "$work/upper" "$work/work" "$work/root"
    mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" guest "$work/root"
    ROOT=$work/root sh -euc "$(dress exit-force)"
    binds=(--bind="$folder:/guest")
    [ ! -L "$folder/deps" ] || binds+=(--bind-ro="$(realpath "$folder/deps"):/srv/deps")
    # --keep-unit and --register=no: there may be no systemd outside to ask.
    timeout --kill-after=10 "$limit" systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$work/root" \
        "${binds[@]}" --resolv-conf=off --console=pipe $boot </dev/null >"$folder/console" 2>&1 || true
    umount "$work/root" "$work" && rmdir "$work"
    # Without systemd outside, nobody else removes the control groups that it leaves.
    for group in /sys/fs/cgroup/*/payload /sys/fs/cgroup/payload; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    ;;
uml)
    kernel=${GUEST_KERNEL:-/var/cache/perceiverd-guest}
    version=$(ls "$kernel/lib/modules")
    {
        echo '#!/bin/sh'
        echo 'set -e; mount -t proc proc /proc; mount -t tmpfs -o mode=755,size=80% guest /mnt'
        echo 'mkdir /mnt/upper /mnt/work /mnt/root; ROOT=/mnt/root'
        echo 'mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work guest $ROOT'
        dress poweroff-force
        echo "mkdir -p \$ROOT/lib/modules/$version; mount --bind $kernel/lib/modules/$version \$ROOT/lib/modules/$version"
        echo "mount -t hostfs -o $folder guest \$ROOT/guest"
        [ ! -L "$folder/deps" ] || echo "mount --bind $(realpath "$folder/deps") \$ROOT/srv/deps"
        echo 'mount -t tmpfs -o mode=1777 tmp $ROOT/tmp; umount /proc; cd $ROOT; mkdir -p .old; pivot_root . .old'
        echo "exec chroot . /bin/sh -c 'umount -l /.old; exec /lib/systemd/systemd'"
    } >"$folder/init"
    chmod +x "$folder/init"
    # The options of vivid are those of a webcam: one node, for pictures.
    # The guest's clock must not jump between two cores' times: it stays on one.
    timeout --kill-after=10 "$limit" taskset -c "$(($(nproc) - 1))" "$kernel/linux" "mem=${GUEST_MEM:-4G}" \
        rootfstype=hostfs rootflags=/ ro "init=$folder/init" con=null con0=null,fd:3 ssl=null quiet $boot \
        vivid.n_devs=1 vivid.node_types=0x1 </dev/null 3>"$folder/console" >>"$folder/console" 2>&1 || true
    ;;
*) echo "boot.sh nspawn|uml FOLDER SECONDS" >&2; exit 64 ;;
esac
sleep 0.5
kill "$printer" 2>/dev/null || true
if [ ! -s "$folder/status" ]; then
    echo "the guest ended, or was ended after $limit s, without a word; the last of its console:" >&2
    tail -n 20 "$folder/console" >&2
    exit 70
fi
exit "$(cat "$folder/status")"

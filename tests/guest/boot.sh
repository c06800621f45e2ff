#!/bin/bash
# boot.sh nspawn|uml FOLDER SECONDS
#
# Boots systemd as process 1 on a temporary copy of this machine's root folder, runs FOLDER/start there as root, and
# exits with its status. In the guest, FOLDER is /guest and writable; FOLDER/deps, if it is a link to a folder, is
# /srv/deps; /tmp is empty. This script prints what FOLDER/start prints.
#
#   nspawn  a container on this machine's kernel: all cores, no devices
#   uml     a kernel that runs as a program (kernel.sh builds it): one core, a camera and a sound card
set -euo pipefail
kind=$1 folder=$(realpath "$2") limit=$3
here=$(dirname "$(realpath "$0")")
# All mounts below end with this process.
if [ -z "${GUEST_APART:-}" ]; then exec env GUEST_APART=1 unshare --mount --propagation private "$0" "$@"; fi

# Services that a guest does not need, or that would wait for hardware.
UNUSED="systemd-networkd systemd-resolved systemd-timesyncd systemd-pstore systemd-random-seed systemd-update-utmp
    e2scrub_reap postgresql console-getty getty@tty1 mosquitto prometheus"

# Changes ROOT, a writable view of this machine's root folder, so that it boots guest.service and nothing else. Removes
# .dockerenv, because systemd would recognise a container and set up no devices.
prepare() {
    cat <<SH
units=\$ROOT/etc/systemd/system
for unit in $(echo $UNUSED); do ln -sf /dev/null "\$units/\$unit.service"; done
rm -rf "\$units/timers.target.wants" "\$ROOT/var/log/journal" "\$ROOT/var/tmp"/* "\$ROOT/.dockerenv"
: >"\$ROOT/etc/fstab"; echo guest >"\$ROOT/etc/hostname"
echo 00112233445566778899aabbccddeeff >"\$ROOT/etc/machine-id"
mkdir -p "\$ROOT/guest" "\$ROOT/srv/deps"
printf '%s\n' '[Unit]' 'Requires=basic.target' 'After=basic.target dbus.socket' >"\$units/guest.target"
ln -sf guest.target "\$units/default.target"
mkdir -p "\$units/guest.target.wants"; ln -sf ../guest.service "\$units/guest.target.wants/"
printf '%s\n' '[Unit]' 'After=basic.target dbus.socket' "SuccessAction=$1" "FailureAction=$1" \
    '[Service]' 'Type=oneshot' 'TimeoutStartSec=infinity' 'WorkingDirectory=/guest' \
    'StandardOutput=append:/guest/output' 'StandardError=append:/guest/output' \
    'ExecStart=/bin/sh -c "/guest/start; echo \$\$? >/guest/status; sync"' >"\$units/guest.service"
SH
}

rm -f "$folder/status"; : >"$folder/output"
boot="systemd.unit=guest.target systemd.show_status=no"
tail -n +1 -f --pid=$$ "$folder/output" & printer=$!
case $kind in
nspawn)
    work=$(mktemp -d /tmp/guest.XXXXXX)
    mount -t tmpfs -o mode=755 guest "$work"
    mkdir "$work/upper" "$work/work" "$work/root"
    mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" guest "$work/root"
    ROOT=$work/root sh -euc "$(prepare exit-force)"
    binds=(--bind="$folder:/guest")
    [ ! -L "$folder/deps" ] || binds+=(--bind-ro="$(realpath "$folder/deps"):/srv/deps")
    # --keep-unit and --register=no: outside of the guest there may be no systemd.
    timeout --kill-after=10 "$limit" systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$work/root" \
        "${binds[@]}" --resolv-conf=off --console=pipe $boot </dev/null >"$folder/console" 2>&1 || true
    umount "$work/root" "$work" && rmdir "$work"
    # Without systemd outside, nothing else removes the control groups that the guest leaves.
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
        prepare poweroff-force
        echo "mkdir -p \$ROOT/lib/modules/$version; mount --bind $kernel/lib/modules/$version \$ROOT/lib/modules/$version"
        echo "mount -t hostfs -o $folder guest \$ROOT/guest"
        [ ! -L "$folder/deps" ] || echo "mount --bind $(realpath "$folder/deps") \$ROOT/srv/deps"
        echo 'mount -t tmpfs -o mode=1777 tmp $ROOT/tmp; umount /proc; cd $ROOT; mkdir -p .old; pivot_root . .old'
        echo "exec chroot . /bin/sh -c 'umount -l /.old; exec /lib/systemd/systemd'"
    } >"$folder/init"
    chmod +x "$folder/init"
    # With these options, vivid is like a webcam: one node, for video.
    # The guest stays on one core, so that its clock does not jump between the times of two cores.
    timeout --kill-after=10 "$limit" taskset -c "$(($(nproc) - 1))" "$kernel/linux" "mem=${GUEST_MEM:-4G}" \
        rootfstype=hostfs rootflags=/ ro "init=$folder/init" con=null con0=null,fd:3 ssl=null quiet $boot \
        vivid.n_devs=1 vivid.node_types=0x1 </dev/null 3>"$folder/console" >>"$folder/console" 2>&1 || true
    ;;
*) echo "boot.sh nspawn|uml FOLDER SECONDS" >&2; exit 64 ;;
esac
sleep 0.5
kill "$printer" 2>/dev/null || true
if [ ! -s "$folder/status" ]; then
    echo "the guest ended without a status, or did not end within $limit s; the end of its console:" >&2
    tail -n 20 "$folder/console" >&2
    exit 70
fi
exit "$(cat "$folder/status")"

#!/bin/bash
# kernel.sh: builds a Linux kernel that runs as a program (user-mode Linux), with a camera (vivid) and a sound card
# (snd-aloop), from Debian's source package. Takes about ten minutes on two cores, once. It goes to the folder
#
#   GUEST_KERNEL (/var/cache/perceiverd-guest)   linux, lib/modules/VERSION; an existing kernel is kept
set -euo pipefail
keep=${GUEST_KERNEL:-/var/cache/perceiverd-guest} source=linux-source-6.1
[ ! -x "$keep/linux" ] || exit 0
missing=()
for package in bc bison flex gcc kmod make xz-utils; do
    dpkg-query -W -f='${Status}' $package 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
apt-get update -qq
[ ${#missing[@]} = 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
echo "test-guest: building a kernel from $source, for $keep"
mkdir -p "$(dirname "$keep")"
work=$(mktemp -d "$keep.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq -o APT::Sandbox::User=root $source
dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards --to-stdout '*/linux-source-*.tar.xz' >source.tar.xz
mkdir tree built
# Leave out the largest parts that this kernel does not need.
tar -xJf source.tar.xz -C tree --strip-components=1 --exclude='*/drivers/gpu/drm/amd/*.[ch]' --exclude='*/Documentation/*/*' \
    --exclude='*/tools/testing'
rm ./*.deb source.tar.xz
# The menus of this architecture exclude sound, although it works. A clock of 100 Hz is too coarse for sound.
sed -i 's/^if !UML$/if SOUND/' tree/sound/Kconfig
sed -i '/^config HZ$/,/default/s/default 100/default 250/' tree/arch/um/Kconfig
cat >wanted <<'OPTIONS'
# Basics: processes, files of the host, terminals, random numbers.
64BIT EXPERT PRINTK BUG MULTIUSER SYSCTL PROC_SYSCTL PROC_FS SYSFS TTY UNIX98_PTYS BLOCK BINFMT_ELF BINFMT_SCRIPT FUTEX
POSIX_TIMERS HIGH_RES_TIMERS NO_HZ_IDLE HOSTFS NULL_CHAN STDERR_CONSOLE HW_RANDOM UML_RANDOM TMPFS TMPFS_POSIX_ACL
TMPFS_XATTR DEVTMPFS DEVTMPFS_MOUNT OVERLAY_FS SHMEM SYSVIPC POSIX_MQUEUE AIO ADVISE_SYSCALLS MEMBARRIER KCMP
FILE_LOCKING KALLSYMS MODULES MODULE_UNLOAD MODULE_FORCE_UNLOAD
# What systemd needs, also to confine a unit.
EPOLL SIGNALFD TIMERFD EVENTFD INOTIFY_USER FHANDLE AUTOFS_FS CGROUPS MEMCG CGROUP_SCHED FAIR_GROUP_SCHED CFS_BANDWIDTH
CGROUP_PIDS CGROUP_FREEZER CGROUP_DEVICE CGROUP_CPUACCT CGROUP_BPF BPF_SYSCALL NAMESPACES UTS_NS IPC_NS USER_NS PID_NS
NET_NS SECCOMP SECCOMP_FILTER
# Sockets.
NET UNIX INET PACKET
# A bus: the test camera needs DMA, and DMA needs a bus.
PCI VIRTIO_MENU VIRTIO_UML UML_PCI_OVER_VIRTIO
# Cameras and sound cards.
MEDIA_SUPPORT MEDIA_CAMERA_SUPPORT MEDIA_TEST_SUPPORT MEDIA_CONTROLLER VIDEO_DEV V4L_TEST_DRIVERS
FB SOUND SND SND_PROC_FS SND_DRIVERS SND_HRTIMER SND_VERBOSE_PROCFS
OPTIONS
{
    grep -v '^#' wanted | xargs -n1 printf 'CONFIG_%s=y\n'
    printf '%s\n' CONFIG_DEBUG_INFO_NONE=y CONFIG_MEDIA_SUPPORT_FILTER=n CONFIG_MEDIA_SUBDRV_AUTOSELECT=n \
        CONFIG_VIDEO_VIVID=m CONFIG_VIDEO_VIVID_MAX_DEVS=8 CONFIG_SND_ALOOP=m \
        CONFIG_UML_PCI_OVER_VIRTIO_DEVICE_ID=1234
} >options
make -s -C tree ARCH=um O="$work/built" KCONFIG_ALLCONFIG="$work/options" allnoconfig >config.log 2>&1
for driver in VIDEO_VIVID SND_ALOOP; do
    grep -q "^CONFIG_$driver=m" built/.config || { echo "test-guest: $source cannot be built with $driver" >&2; exit 1; }
done
[ "${1:-}" != --configure ] || { cp built/.config /tmp/guest-kernel.config; exit 0; }
make -C tree ARCH=um O="$work/built" -j"$(nproc)" linux modules >build.log 2>&1 || { tail -n 20 build.log >&2; exit 1; }
make -s -C tree ARCH=um O="$work/built" INSTALL_MOD_PATH="$work/out" modules_install >>build.log 2>&1
cp built/linux out/
rm -f out/lib/modules/*/{build,source}
chmod 755 "$work/out"
rm -rf "$keep"
mv "$work/out" "$keep"

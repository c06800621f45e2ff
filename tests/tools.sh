#!/bin/sh
# tools.sh: installs the Debian packages that tests use, as far as it may; names the rest. Changes nothing else.
#
# Each line is a check and the packages that make it pass. Without them the tests that need them are skipped.
# mosquitto, prometheus and pulseaudio bring services: on a machine where systemd would start them, only a person installs them.
set -u
missing='' services=''
need() { # need CHECK PACKAGE...
    check=$1; shift
    sh -c "$check" >/dev/null 2>&1 || missing="$missing $*"
}
serves() {
    check=$1; shift
    sh -c "$check" >/dev/null 2>&1 || services="$services $*"
}
PATH=$PATH:/usr/sbin:/sbin
need 'command -v ip' iproute2
need 'command -v cc' gcc libc6-dev
need 'echo "#include <zmq.h>" | cc -E -' libzmq3-dev
need 'command -v fluidsynth' fluidsynth
need 'command -v espeak-ng' espeak-ng
need 'command -v flite' flite
need 'command -v ffmpeg' ffmpeg
need 'command -v chromium' chromium
need 'command -v systemd-analyze' systemd
need "/usr/bin/python3 -c 'import gi; gi.require_version(\"GstRtspServer\", \"1.0\")'" \
    gir1.2-gst-rtsp-server-1.0 python3-gst-1.0 python3-gi gstreamer1.0-libav gstreamer1.0-plugins-base \
    gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
need 'ls /usr/lib/*/libportaudio.so.2' libportaudio2
serves 'command -v mosquitto' mosquitto
serves 'command -v promtool' prometheus
serves 'command -v pulseaudio && command -v pactl && command -v arecord && ls /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so' \
    pulseaudio pulseaudio-utils libasound2-plugins alsa-utils
[ -d /run/systemd/system ] || { missing="$missing $services"; services=''; }
install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 - these are words
    install $missing >/dev/null 2>&1 || services="$missing $services"
fi
[ -z "$services" ] || echo "some tests will be skipped; for all of them: apt-get install$services"

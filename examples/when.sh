#!/bin/sh
# Runs a command each time an event of a label begins:
#
#   examples/when.sh ipc:///run/perceiverd/labels Doorbell mpv --no-video ding.ogg
#
# The command receives the message, one line of JSON, on its standard input.

set -eu
endpoint=$1 label=$2
shift 2

perceiverd watch "$endpoint" --json | while IFS= read -r line; do
    case $line in
    *'"repeated":true'*) ;; # the event began before this program subscribed
    *'"continues":"'*) ;;   # the event continues one that reached the maximum duration
    '{"type":"event",'*'"kind":"begin"'*"\"name\":\"$label\""*) printf '%s\n' "$line" | "$@" || true ;;
    esac
done

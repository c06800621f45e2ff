#!/bin/sh
# Runs a command each time that a label's event begins:
#
#   examples/when.sh ipc:///run/perceiverd/labels Doorbell mpv --no-video ding.ogg
#
# The message, a line of JSON, is on the command's standard input.

set -eu
endpoint=$1 label=$2
shift 2

perceiverd watch "$endpoint" --json | while IFS= read -r line; do
    case $line in
    *'"repeated":true'*) ;; # it began before we came
    *'"continues":"'*) ;;   # it was cut at its longest duration, and goes on
    '{"type":"event",'*'"kind":"begin"'*"\"name\":\"$label\""*) printf '%s\n' "$line" | "$@" || true ;;
    esac
done

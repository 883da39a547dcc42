#!/bin/sh
# A command for the tests: the first line of the input says what to do.
read -r what rest
case "$what" in
fail) echo "first words" >&2; echo "no such thing" >&2; exit 7 ;;
silent) exit 5 ;;
crash) kill -SEGV $$ ;;
much) exec head -c 5000000 /dev/zero ;;
deaf) exec <&-; echo deaf ;;
environment) echo "$SKEP_INVOCATION $SKEP_TIMEOUT_MS $FROM_MANIFEST" ;;
leaves) sleep 1000 >/dev/null 2>&1 & echo $! ;;
escapes) setsid sh -c 'sleep 1000 </dev/null >/dev/null 2>&1 & echo $!' ;;
alive) if kill -0 "$rest" 2>/dev/null; then echo yes; else echo no; fi ;;
holds) sleep 1000 & echo "held" ;;
wait) echo "waiting" >&2; exec sleep 1000 ;;
wait-deep) echo "waiting" >&2; sleep 1000 & echo "child $!" >&2; wait ;;
noise) echo "waiting" >&2; exec cat /dev/zero >&2 ;;
meet)
    mkdir "$MEETING/$$"
    while [ "$(find "$MEETING" -mindepth 1 | wc -l)" -lt 4 ]; do sleep 0.01; done
    echo met ;;
*) echo "$what" ;;
esac

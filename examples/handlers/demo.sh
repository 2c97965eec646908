#!/bin/sh
# The handler of `make demo`: pretends to send a mail. A handler is any program: the body comes on standard input,
# what else there is to know in WARREND_* variables, and the exit code says how it went:
#   0 done    65 never try again    any other: try again later
# It notes each run in $JOURNAL, so that the demo can compare it with what warrend says.
set -eu

body=$(cat)

# finish WORD CODE: notes the run and ends it. One short line in one write: the lines of parallel runs never mix.
finish() {
    printf '%s %s %s\n' "$1" "$WARREND_KEY" "$WARREND_ATTEMPT" >>"$JOURNAL"
    exit "$2"
}

sleep 0.05 # the mail server thinks

case $body in
*"server is busy"*)
    if [ "$WARREND_ATTEMPT" -eq 1 ]; then
        echo "the mail server is busy" >&2
        finish failed 75
    fi
    ;;
*"server is down"*)
    echo "the mail server is down" >&2
    finish failed 75
    ;;
*"no such address"*)
    echo "there is no such address" >&2
    finish rejected 65
    ;;
esac
finish sent 0

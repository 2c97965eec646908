#!/bin/bash
# A warrend worker in bash: shows how little the protocol asks. It needs nothing but bash.
#
#     [jobs.mails.handler]
#     worker = ["/opt/mails/worker.sh"]
#     batch = 1
#
# warrend starts it, writes one JSON line with a task to descriptor 3, and reads one JSON line with its result from
# descriptor 4. What is printed goes to warrend's log and disturbs nothing.
#
# Be honest with it: bash cannot read JSON. This one leaves `batch` at 1, cuts the id out of the request, which begins
# with it, and hands the whole line to handle(). A handler that needs the body in shell is better off as a `command`,
# which gets the body on its standard input; or use jq here.
set -u

# Your work: $1 is the request, {"id":7,"tasks":[{"key":"..","attempt":1,"body":"..", ...}]}. The exit status is that of a
# `command`: 0 done, 65 never again, any other try again. Its standard output is the log.
handle() {
    case $1 in
    *'\"fail\":\"dead\"'*) return 65 ;;
    *'\"fail\":\"retry\"'*) return 75 ;;
    esac
}

# TERM ends it: between two tasks at once, during one when that is finished. bash runs a trap only then.
trap 'exit 0' TERM

echo '{"warrend":1}' >&4
# `read` fails when warrend closes descriptor 3.
while IFS= read -r line <&3; do
    id=${line#'{"id":'}
    id=${id%%,*}
    status=done
    # The descriptors are not for what it starts.
    handle "$line" 3<&- 4>&- || case $? in
    65) status=dead ;;
    *) status=retry ;;
    esac
    printf '{"id":%s,"results":[{"status":"%s"}]}\n' "$id" "$status" >&4
done

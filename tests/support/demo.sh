#!/usr/bin/env bash
# `make demo`: warrend at work, from an empty queue to the last dead letter. The binary is built already.
#
# On the private node it works in a virtual host of its own, which goes when it ends. On a broker of yours
# (WARREND_AMQP_URL) it does so too where it can reach the management API; else it uses the URL's own virtual host, and
# says what it leaves there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/url.sh
. "$here/url.sh"
root=$(cd "$here/../.." && pwd)
broker=$here/broker.sh
warrend=${CARGO_TARGET_DIR:-$root/target}/debug/warrend
config=$root/config/demo.toml

# The load, and with it what must come of it.
urgent=60 bulk=90 resent=10 busy=8 down=2 unknown=4 metrics=5000
sent=$((urgent + bulk + resent + busy))
dead=$((down + unknown))
duplicates=$((2 * resent))
retried=$((busy + 2 * down))
settle_seconds=90

folder='' vhost='' daemon='' node_is_ours=no

say() {
    printf '%s\n' "$*"
}

headline() {
    printf '\n=== %s\n\n' "$*"
}

fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

# Ends what was started, in the opposite order, however the demo ends.
clean_up() {
    local code=$?
    trap '' INT TERM HUP
    if [ -n "$daemon" ] && kill -TERM "$daemon" 2>/dev/null; then
        wait "$daemon" || true
    fi
    if [ "$code" -ne 0 ] && [ -s "$folder/log" ]; then
        say "--- the end of warrend's log ($folder/log)" >&2
        tail -n 20 "$folder/log" >&2
    fi
    if [ -n "$vhost" ]; then
        management DELETE "/api/vhosts/$vhost" >/dev/null || true
    fi
    if [ "$node_is_ours" = yes ]; then
        # The exported URL would mean a broker that is not ours.
        env -u WARREND_AMQP_URL "$broker" stop
    fi
    if [ "$code" -eq 0 ] && [ -n "$folder" ]; then
        rm -rf "$folder"
    fi
}

# A virtual host of this run. The URL that leads into it goes to the daemon and to `warrend publish`.
make_vhost() {
    local url name
    url=$("$broker" url)
    url_parse "$url"
    if [ -z "${WARREND_AMQP_URL:-}" ]; then
        eval "$("$broker" env)"
        url_management=$WARREND_TEST_MANAGEMENT_URL
    fi
    name=warrend-demo-$$-$(date +%s)
    case $(management PUT "/api/vhosts/$name" || true) in
    2??)
        vhost=$name
        url=$(url_with_vhost "$url" "$name")
        ;;
    *)
        say "No virtual host can be made through $url_management (WARREND_MANAGEMENT_URL), so the one of your URL is"
        say "used. The queues demo.* go an hour after the demo, but demo.emails.dead stays, and warrend.delay.*."
        ;;
    esac
    export WARREND_AMQP_URL=$url
}

run() {
    "$warrend" -c "$config" "$@"
}

# publish TEXT ARGUMENTS...: a message with that body.
publish() {
    local text=$1
    shift
    printf '%s' "$text" | run publish "$@" - >/dev/null
}

# counter JOB NAME: a number of `status --json`. A job's plain numbers stand before its nested objects.
counter() {
    run status --json 2>/dev/null | tr -d ' \n' | sed -n "s/.*\"$1\":{[^{}]*\"$2\":\\([0-9]*\\).*/\\1/p"
}

show_status() {
    # 1 means degraded, which dead letters or a retry may be.
    run status || [ $? -eq 1 ]
}

# until_true SECONDS WHAT COMMAND...: polls.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        kill -0 "$daemon" 2>/dev/null || fail "warrend ended early"
        [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $what"
        sleep 0.2
    done
}

# Both jobs run: their queues are declared and consumed.
running() {
    local status
    status=$(run status --json 2>/dev/null | tr -d ' \n')
    [[ $status == *'"emails":{"state":"running"'* && $status == *'"metrics":{"state":"running"'* ]]
}

# Dead letters in the broker's queue. On a virtual host that is not ours there may be older ones.
all_dead_letters_lie_there() {
    [ -z "$vhost" ] || run status --json 2>/dev/null | tr -d ' \n' |
        grep -q "\"dead_letter\":{\"queue\":\"demo.emails.dead\",\"ready\":${dead}[,}]"
}

all_settled() {
    [ "$(counter emails "done")" = "$sent" ] && [ "$(counter emails dead)" = "$dead" ] &&
        [ "$(counter emails duplicates)" = "$duplicates" ] && [ "$(counter metrics "done")" = "$metrics" ] &&
        all_dead_letters_lie_there
}

publish_load() {
    local n
    for n in 1 5 9; do
        publish "a mail of priority $n" demo.emails.urgent --priority "$n" --count $((urgent / 3))
    done
    publish "a newsletter" demo.emails.bulk --count "$bulk"
    publish "a measurement" demo.metrics --count "$metrics"
    # --count appends -1, -2 ... to the id: three times the same ids.
    for n in 1 2 3; do
        publish "an order, confirmed" demo.emails.bulk --id "order-$$" --count "$resent"
    done
    publish "the server is busy" demo.emails.urgent --id "busy-$$" --count "$busy"
    publish "the server is down" demo.emails.bulk --id "down-$$" --count "$down"
    publish "no such address" demo.emails.bulk --id "nobody-$$" --count "$unknown"
}

# same WHAT EXPECTED FOUND
same() {
    [ "$2" = "$3" ] || fail "$1: expected $2, found ${3:-nothing}"
}

judge() {
    local journal=$WARREND_DEMO_DIR/journal
    same "mails sent, in the handler's journal" "$sent" "$(grep -c '^sent ' "$journal")"
    same "mails sent twice, in the handler's journal" 0 "$(grep '^sent ' "$journal" | cut -d' ' -f2 | sort | uniq -d | wc -l)"
    same "attempts that failed, in the handler's journal" $((busy + 3 * down)) "$(grep -c '^failed ' "$journal")"
    same "rejected for good, in the handler's journal" "$unknown" "$(grep -c '^rejected ' "$journal")"
    same "retries that warrend counted" "$retried" "$(counter emails retried)"
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ -x "$warrend" ] || fail "no binary at $warrend: run \`make demo\`"

headline "1. A RabbitMQ"
if [ -z "${WARREND_AMQP_URL:-}" ] && ! "$broker" status >/dev/null; then
    node_is_ours=yes
    say "Starting a private node (about 10 s) ..."
fi
"$broker" start
make_vhost
folder=$(mktemp -d "${TMPDIR:-/tmp}/warrend-demo.XXXXXX")
export WARREND_DEMO_DIR=$folder WARREND_DEMO_HANDLER=$root/examples/handlers/demo.sh

headline "2. warrend run, with config/demo.toml"
run check
"$warrend" -c "$config" run >"$folder/log" 2>&1 &
daemon=$!
until_true 30 "warrend runs its jobs" running
say "It runs as process $daemon, has declared its queues and consumes them."

headline "3. A mixed load, published with warrend publish"
say "$urgent urgent mails of three priorities, $bulk newsletters, $resent orders sent three times each,"
say "$busy mails that fail once, $down that fail each time, $unknown to addresses that do not exist, $metrics measurements."
publish_load

headline "4. warrend status, while it works"
show_status
until_true "$settle_seconds" "every message is settled" all_settled

headline "5. warrend status, when all is settled"
show_status
judge

headline "6. SIGTERM: it finishes what runs, acknowledges, and goes"
kill -TERM "$daemon"
code=0
wait "$daemon" || code=$?
daemon=''
same "the exit code of warrend" 0 "$code"
say "It ended with exit code 0."

headline "What you saw"
say "$sent mails were sent, each exactly once: the handler's own journal and warrend agree."
say "$duplicates messages were duplicates by their message id: recorded as done before, acknowledged, not run again."
say "$retried times an attempt failed and the message came back after a delay; $busy of those mails went out the second time."
say "$dead messages failed for good: $unknown that the handler rejected, $down after three attempts. They lie in the queue"
say "demo.emails.dead, each with the reason in its headers."
say "$metrics measurements were recorded and acknowledged in batches."

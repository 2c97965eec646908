#!/usr/bin/env bash
# A private RabbitMQ node for the demo, the tests and the benchmark, from Debian's rabbitmq-server package.
#
#   broker.sh start    starts it, or does nothing where it runs; returns once it serves AMQP and the management API
#   broker.sh stop     stops it and its epmd; its data stays
#   broker.sh kill     ends it with SIGKILL, as a crash would; start brings it back with its data
#   broker.sh freeze   stops all its processes where they are (SIGSTOP): it neither answers nor hangs up; thaw lets them go on
#   broker.sh alarm    has it believe that memory is short, so that it blocks publishers; no-alarm ends that
#   broker.sh disk-alarm   the same with the disk; no-disk-alarm ends that
#   broker.sh eval X   has it evaluate the Erlang expression X, and prints the value
#   broker.sh reread   has it read the files of its certificates again
#   broker.sh status   says whether it runs; exit 0 or 1
#   broker.sh url      prints its AMQP URL
#   broker.sh env      prints `export ...` lines for the tests
#
# The node shares nothing with a broker of the system: it has its own name, its own ports, its own epmd, its own
# cookie, and everything it writes lies below one folder. It listens on loopback only. It runs as the calling user: the
# wrapper in /usr/sbin would switch to the user `rabbitmq` and the system's folders, so it is not used.
#
# A file extra.conf in its folder is appended to its configuration, with @TLS_PORT@ replaced by its fifth port, and a file
# extra_plugins names plugins to enable, one a line.
#
#   WARREND_AMQP_URL         a broker that runs already: no node is started, this one is used
#   WARREND_MANAGEMENT_URL   its management API; http://HOST:15672 by default
#   WARREND_BROKER_DIR       the node's folder; $CARGO_TARGET_DIR/broker by default
#   WARREND_BROKER_NAME      what the node is called, before @localhost; warrend by default
#   WARREND_BROKER_JOIN      the folder of another private node, which runs: with its first start this one becomes a
#                            member of that one's cluster. The two must have different names
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/support/url.sh
. "$here/url.sh"

server=/usr/lib/rabbitmq/bin/rabbitmq-server
control=/usr/lib/rabbitmq/bin/rabbitmqctl
start_seconds=90
# Share of the memory above which the node blocks publishers: RabbitMQ's own default.
watermark=0.4
# Free space below which it does. A developer's disk is often nearly full, and a blocked publisher looks like a hanging test.
free_space=64MB
full_milliseconds=5000
stop_seconds=30

folder=${WARREND_BROKER_DIR:-${CARGO_TARGET_DIR:-$here/../../target}/broker}
node_name=${WARREND_BROKER_NAME:-warrend}
# Whose epmd and cookie the node uses: its own, or those of the cluster's first one. Set in `main`.
lead=

fail() {
    printf 'broker.sh: %s\n' "$*" >&2
    exit 1
}

# ours PID: whether that process belongs to this node. Process ids are reused, so a pid file alone proves nothing;
# the node's folder in the process's environment does.
ours() {
    [ -n "$1" ] && [ -r "/proc/$1/environ" ] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$1/environ" | grep -qxF "WARREND_PRIVATE_NODE=$folder"
}

# running NAME: prints the pid in NAME.pid if it is ours and alive; a stale pid file is removed.
running() {
    local pid=''
    [ -e "$folder/$1.pid" ] || return 1
    read -r pid <"$folder/$1.pid" || true
    if ours "$pid"; then
        printf '%s\n' "$pid"
    else
        rm -f "$folder/$1.pid"
        return 1
    fi
}

free_port() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Five ports in a row: AMQP, management, distribution, epmd, AMQP over TLS. Kept between starts, so that a client finds a restarted
# node again; chosen anew only when something else took them. They lie below the range that the kernel gives to
# outgoing connections (32768 and up), so none of those takes one while the node is down. The epmd holds the five for
# its node from here on: of two nodes that choose at the same time, one finds its port taken.
choose_ports() {
    local first port
    for first in $(cat "$folder/port" 2>/dev/null) $(seq 25700 10 26690); do
        for port in "$first" $((first + 1)) $((first + 2)) $((first + 3)) $((first + 4)); do
            # Our own epmd survives a killed node.
            if ! free_port "$port" && ! epmd_listens "$port"; then
                continue 2
            fi
        done
        printf '%s\n' "$first" >"$folder/port"
        read_ports
        write_config
        if start_epmd; then
            return
        fi
    done
    fail "no five free ports in a row between 25700 and 26699 on 127.0.0.1"
}

# epmd_listens PORT: whether our epmd is what listens there, by the socket's inode.
epmd_listens() {
    local pid inode
    pid=$(running epmd) || return 1
    inode=$(awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "0A" { print $10 }' /proc/net/tcp)
    [ -n "$inode" ] && readlink "/proc/$pid"/fd/* 2>/dev/null | grep -qxF "socket:[$inode]"
}

# The node's own epmd. In a member of a cluster it only holds the ports: the nodes find each other by that of the first.
start_epmd() {
    if ! running epmd >/dev/null; then
        launch epmd epmd -address 127.0.0.1 -port "$epmd"
    fi
    until epmd_listens "$epmd"; do
        running epmd >/dev/null || return 1
        sleep 0.02
    done
}

read_ports() {
    amqp=$(cat "$folder/port" 2>/dev/null) || fail "the private node was never started: run \`make broker-start\`"
    http=$((amqp + 1)) dist=$((amqp + 2)) epmd=$((amqp + 3)) tls=$((amqp + 4)) names=$epmd
    if [ "$lead" != "$folder" ]; then
        names=$(cat "$lead/port" 2>/dev/null) || fail "the node of $lead was never started"
        names=$((names + 3))
    fi
}

write_config() {
    mkdir -p "$folder"/{data,log,home,config,schema}
    chmod 700 "$folder/home"
    printf '[rabbitmq_management%s].\n' "$(sed 's/^/,/' "$folder/extra_plugins" 2>/dev/null)" >"$folder/enabled_plugins"
    : >"$folder/rabbitmq-env.conf"
    # Names are looked up here and not in /etc/hosts, which a container may lack.
    printf '{host, {127,0,0,1}, ["localhost", "%s"]}.\n{lookup, [file, native]}.\n' \
        "$(cat /proc/sys/kernel/hostname)" >"$folder/inetrc"
    cat >"$folder/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp
management.tcp.ip = 127.0.0.1
management.tcp.port = $http
disk_free_limit.absolute = $free_space
vm_memory_high_watermark.relative = $watermark
# Tests look at connections and queues through the management API; 5 s would be a long wait.
collect_statistics_interval = 1000
log.console = false
log.file.level = warning
CONF
    if [ -e "$folder/extra.conf" ]; then
        sed "s/@TLS_PORT@/$tls/" "$folder/extra.conf" >>"$folder/rabbitmq.conf"
    fi
    # A retry that finds its work queue full is tried again after so long; RabbitMQ's own three minutes would be a long wait.
    printf '[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, %d}]}].\n' "$full_milliseconds" \
        >"$folder/advanced.config"
    printf '%s@localhost\n' "$node_name" >"$folder/name"
    if [ "$lead" != "$folder" ]; then
        cat >>"$folder/rabbitmq.conf" <<CONF
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = $(cat "$lead/name")
CONF
    fi
}

# become COMMAND...: turns this (sub)shell into it, with the node's environment and nothing else: variables of the
# caller, such as RABBITMQ_NODENAME or NOTIFY_SOCKET, must not lead to another node.
become() {
    exec env -i \
        PATH="/usr/lib/erlang/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        LANG=C.UTF-8 \
        HOME="$lead/home" \
        WARREND_PRIVATE_NODE="$folder" \
        ERL_EPMD_ADDRESS=127.0.0.1 \
        ERL_EPMD_PORT="$names" \
        ERL_INETRC="$folder/inetrc" \
        RABBITMQ_NODENAME="$node_name@localhost" \
        RABBITMQ_CONF_ENV_FILE="$folder/rabbitmq-env.conf" \
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$folder/advanced.config" \
        RABBITMQ_GENERATED_CONFIG_DIR="$folder/config" \
        RABBITMQ_SCHEMA_DIR="$folder/schema" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$folder/data" \
        RABBITMQ_LOG_BASE="$folder/log" \
        RABBITMQ_PID_FILE="$folder/beam.pid" \
        RABBITMQ_DIST_PORT="$dist" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        "$@"
}

# launch NAME COMMAND...: starts it in a session and process group of its own, so that neither a Ctrl-C meant for
# `make` nor the end of the terminal reaches it. It notes its own pid: only then does `ours` know it.
launch() {
    local name=$1 deadline=$((SECONDS + 10))
    shift
    # The lock's descriptor must not live on in the node.
    # shellcheck disable=SC2016 # expanded by the inner shell
    (become setsid sh -c 'echo $$ >"$0" && exec "$@"' "$folder/$name.pid" "$@") \
        </dev/null >>"$folder/log/$name.out" 2>&1 9>&- &
    disown "$!" 2>/dev/null || true
    until [ -s "$folder/$name.pid" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail "the private node's processes do not start; see $folder/log/$name.out"
        sleep 0.02
    done
}

# Whether the node serves clients: the management API answers for guest, and AMQP, which the node opens last, accepts.
serving() {
    url_user=guest url_password=guest url_management=http://127.0.0.1:$http
    [ "$(management GET /api/vhosts/%2F)" = 200 ] && ! free_port "$amqp"
}

# gone PID: whether the process ended with all its threads, and with them its sockets. A zombie has ended: in a
# container without an init nobody collects it. (Its environment vanishes earlier, so `ours` would not do here.)
gone() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) || return 0
    case $state in
    '' | X*) ;;
    Z*) [ "$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -le 1 ] ;;
    *) return 1 ;;
    esac
}

# until_gone SECONDS PID...: waits for the end of all of them.
until_gone() {
    local deadline=$((SECONDS + $1)) pid
    shift
    for pid in "$@"; do
        until gone "$pid"; do
            [ "$SECONDS" -lt "$deadline" ] || return 1
            sleep 0.05
        done
    done
}

node_pids() {
    running node || true
    running beam || true
}

show_log() {
    local file
    for file in "$folder"/log/node.out "$folder"/log/epmd.out "$folder/log/$node_name@localhost.log"; do
        if [ -s "$file" ]; then
            printf -- '--- the end of %s\n' "$file" >&2
            tail -n 25 "$file" >&2
        fi
    done
}

start() {
    local deadline
    [ -x "$server" ] || fail "RabbitMQ is not installed ($server is missing): run \`make deps\`, or set WARREND_AMQP_URL"
    if running node >/dev/null; then
        read_ports
    else
        rm -f "$folder"/log/*.out "$folder/beam.pid"
        choose_ports
        launch node "$server"
    fi
    deadline=$((SECONDS + start_seconds))
    until serving; do
        if ! running node >/dev/null; then
            show_log
            end_epmd
            fail "the private node ended while it started; its log is above and in $folder/log"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            show_log
            stop
            fail "the private node was not ready within $start_seconds s; its log is above and in $folder/log"
        fi
        sleep 0.1
    done
}

# signal_node SIGNAL: to all processes of the node.
signal_node() {
    local pid
    for pid in $(node_pids); do
        kill "-$1" -- "-$pid" 2>/dev/null || kill "-$1" "$pid" || fail "cannot signal process $pid"
    done
}

# set_watermark SHARE: of the memory, above which publishers are blocked.
set_watermark() {
    running node >/dev/null || fail "the private node does not run"
    read_ports
    (become "$control" -q set_vm_memory_high_watermark "$1")
}

# set_free_space SIZE: of the disk, below which publishers are blocked.
set_free_space() {
    running node >/dev/null || fail "the private node does not run"
    read_ports
    (become "$control" -q set_disk_free_limit "$1")
}

# evaluate EXPRESSION: in the node.
evaluate() {
    running node >/dev/null || fail "the private node does not run"
    read_ports
    (become "$control" -q eval "$1")
}

reread() {
    running node >/dev/null || fail "the private node does not run"
    read_ports
    (become "$control" -q eval 'ssl:clear_pem_cache().' >/dev/null)
}

# Unless another node of the cluster is registered in it, which would not find the others again.
end_epmd() {
    local pid
    pid=$(running epmd) || return 0
    read_ports
    if (become epmd -port "$epmd" -names) 2>/dev/null | grep -q '^name '; then
        return 0
    fi
    kill -KILL "$pid" 2>/dev/null || true # it keeps nothing
    until_gone 5 "$pid" || true
    rm -f "$folder/epmd.pid"
}

kill_node() {
    local pid pids
    pids=$(node_pids)
    for pid in $pids; do
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
    # shellcheck disable=SC2086 # a list of numbers
    until_gone "$stop_seconds" $pids || fail "the private node's processes (${pids//$'\n'/ }) did not end"
    rm -f "$folder/node.pid" "$folder/beam.pid"
}

stop() {
    local pid pids
    pids=$(node_pids)
    for pid in $pids; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    # shellcheck disable=SC2086 # a list of numbers
    until_gone "$stop_seconds" $pids || true
    kill_node
    end_epmd
}

# locked COMMAND: one start or stop at a time; the lock goes with the process.
locked() {
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock -w 150 9 || fail "another start or stop of the private node is under way for too long ($folder/lock)"
    "$@"
}

print_env() {
    printf 'export WARREND_TEST_AMQP_URL=%q\nexport WARREND_TEST_MANAGEMENT_URL=%q\n' "$1" "$2"
}

external() {
    url_parse "$WARREND_AMQP_URL"
    case $1 in
    start | status) printf 'using the broker at %s:%s (WARREND_AMQP_URL)\n' "$url_host" "$url_port" ;;
    stop) ;;
    kill | freeze | thaw | alarm | no-alarm | disk-alarm | no-disk-alarm | eval | reread)
        fail "the broker of WARREND_AMQP_URL is not ours to $1"
        ;;
    url) printf '%s\n' "$WARREND_AMQP_URL" ;;
    env) print_env "$WARREND_AMQP_URL" "$url_management" ;;
    *) usage ;;
    esac
}

usage() {
    printf 'usage: broker.sh start|stop|kill|freeze|thaw|alarm|no-alarm|disk-alarm|no-disk-alarm|eval EXPRESSION|reread|status|url|env\n' >&2
    exit 2
}

main() {
    [ $# -eq 1 ] || { [ $# -eq 2 ] && [ "$1" = eval ]; } || usage
    if [ -n "${WARREND_AMQP_URL:-}" ]; then
        external "$1"
        return
    fi
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd -P)
    lead=$(cd "${WARREND_BROKER_JOIN:-$folder}" && pwd -P)
    case $1 in
    start)
        locked start
        printf 'private RabbitMQ node: 127.0.0.1:%s, management http://127.0.0.1:%s (guest/guest)\n' "$amqp" "$http"
        ;;
    stop) locked stop ;;
    kill) locked kill_node ;;
    freeze) signal_node STOP ;;
    thaw) signal_node CONT ;;
    alarm) set_watermark 0.00001 ;;
    no-alarm) set_watermark "$watermark" ;;
    disk-alarm) set_free_space 1000000GB ;;
    no-disk-alarm) set_free_space "$free_space" ;;
    eval) evaluate "$2" ;;
    reread) reread ;;
    status)
        if running node >/dev/null; then
            read_ports
            printf 'running at 127.0.0.1:%s\n' "$amqp"
        else
            printf 'not running\n'
            exit 1
        fi
        ;;
    url)
        read_ports
        printf 'amqp://guest:guest@127.0.0.1:%s/%%2f\n' "$amqp"
        ;;
    env)
        read_ports
        print_env "amqp://guest:guest@127.0.0.1:$amqp/%2f" "http://127.0.0.1:$http"
        ;;
    *) usage ;;
    esac
}

main "$@"

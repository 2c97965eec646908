#!/usr/bin/env bash
# The part of deb.sh that runs inside of the throw-away Debian, as root: `inside.sh systemd` or `inside.sh chroot`.
set -euo pipefail

mode=$1
url=$(cat /test/url)
port=${url##*:}
port=${port%%/*}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
main_file=/etc/warrend/warrend.toml
store=/var/lib/warrend
daemon=

step() {
    printf '== %s\n' "$*"
}

fail() {
    printf 'FAILED: %s\n' "$*"
    [ "$mode" = chroot ] || journalctl --no-pager -n 60 -u 'warrend*' || true
    exit 1
}

# eventually WHAT COMMAND...: it may take half a minute.
eventually() {
    local what=$1 n
    shift
    for ((n = 0; n < 300; n++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    "$@" || true
    fail "not within 30 s: $what"
}

# same WHAT IS SHOULD
same() {
    [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}

# The README says sudo; here all is root's.
sudo() {
    "$@"
}

if [ "$mode" = chroot ]; then
    # Stands for the real one: it starts and ends the daemon as the unit would, without its bounds.
    systemctl() {
        case "$*" in
        'enable --now warrend' | 'start warrend' | 'restart warrend')
            [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; }
            systemd-tmpfiles --create warrend.conf
            setpriv --reuid=warrend --regid=warrend --clear-groups warrend run &
            daemon=$!
            # systemd would be told.
            eventually "the daemon is up" is_healthy
            ;;
        'stop warrend') kill "$daemon" && wait "$daemon" && daemon= ;;
        'is-active warrend') kill -0 "$daemon" && echo active ;;
        *) fail "systemctl $*: not here" ;;
        esac
    }
fi

# is_another PID: the daemon runs, and not as that process.
is_another() {
    local now
    now=$(main_pid)
    [ "$now" != 0 ] && [ "$now" != "$1" ]
}

main_pid() {
    if [ "$mode" = chroot ]; then echo "$daemon"; else systemctl show -P MainPID warrend; fi
}

# The daemon of a configuration is up and well.
is_healthy() {
    warrend status "$@"
}

is_done() {
    [[ $(warrend explain "$@") == *done* ]]
}

# send ID: a message for the job hello, and its end.
send() {
    echo hello | warrend publish hello --id "$1" -
    eventually "$1 is handled" is_done "$1"
}

five_commands() {
    local command number=0
    cd /test
    while IFS= read -r command; do
        number=$((number + 1))
        step "$number: $command"
        case $command in
        # The last one looks; the message may still be on its way.
        *explain*) eventually "the message is handled" is_done first ;;
        esac
        eval "$command" </dev/null || fail "exit $?"
        case $command in
        *'apt install'*)
            same "the number of packages that came along" "$(dpkg-query -f '${db:Status-Status}\n' -W 'warrend*' | grep -c installed)" 1
            waits_for_a_job
            # Not a sixth command: the broker of this test is not on RabbitMQ's own port.
            sed -i "s|127.0.0.1:5672|127.0.0.1:$port|" $main_file
            ;;
        esac
    done </test/commands
    if [ "$number" -lt 3 ] || [ "$number" -gt 5 ]; then fail "the README shows $number commands"; fi
}

# What an administrator finds after the installation.
waits_for_a_job() {
    local said code=0
    said=$(warrend check 2>&1) || code=$?
    same "exit code of check" "$code" 78
    [[ $said == *'there is no job'*"add [jobs.NAME] to $main_file"* ]] || fail "check said: $said"
    [ "$mode" = systemd ] || return 0
    same "the unit" "$(systemctl is-enabled warrend)" disabled
    same "the unit" "$(systemctl is-active warrend)" inactive
}

looks_right() {
    step "users, folders and modes"
    same "owner and mode of the store" "$(stat -c '%U:%G %a' $store)" "warrend:warrend 750"
    same "those of the configuration" "$(stat -c '%U:%G %a' $main_file)" "root:root 644"
    same "those of the control socket" "$(stat -c '%U:%G %a' /run/warrend/warrend.sock)" "warrend:warrend 660"
    for file in /usr/share/man/man1/warrend.1.gz /usr/share/man/man5/warrend.toml.5.gz /usr/share/warrend/warrend.schema.json \
        /usr/share/bash-completion/completions/warrend /usr/share/zsh/vendor-completions/_warrend \
        /usr/share/fish/vendor_completions.d/warrend.fish; do
        [ -s "$file" ] || fail "$file is not there"
    done
    bash -n /usr/share/bash-completion/completions/warrend
}

# What the unit grants the daemon and its handlers.
bounds() {
    local pid most
    step "the bounds of the unit"
    pid=$(main_pid)
    same "the user" "$(stat -c %U "/proc/$pid")" warrend
    same "new privileges" "$(sed -n 's/^NoNewPrivs:\t//p' "/proc/$pid/status")" 1
    same "the system call filter" "$(sed -n 's/^Seccomp:\t//p' "/proc/$pid/status")" 2
    same "the capabilities" "$(sed -n 's/^CapBnd:\t//p' "/proc/$pid/status")" 0000000000000000
    same "the size of a core" "$(awk '/core file size/ { print $5 }' "/proc/$pid/limits")" 0
    # A container may have less to give.
    most=$(awk '/open files/ { print $5 }' /proc/1/limits)
    same "the open files" "$(awk '/open files/ { print $4 }' "/proc/$pid/limits")" "$((most < 65536 ? most : 65536))"
    cat >/etc/warrend/jobs.d/probe.toml <<'JOB'
[jobs.probe]
queue = "probe"
handler.command = ["sh", "-c", """
exec >/var/lib/warrend/probe 2>&1
for path in /etc /usr /home/x /var/log /var/tmp /tmp /var/lib/warrend; do
    if touch "$path/x" 2>/dev/null; then echo "$path"; fi
done
chown "$(id -u)" /tmp/x 2>/dev/null && echo chown
nice -n 5 true 2>/dev/null && [ "$(nice -n 5 nice 2>/dev/null)" = 5 ] && echo nice
unshare --user true 2>/dev/null && echo namespaces
true"""]
JOB
    systemctl restart warrend
    echo probe | warrend publish probe --id probe -
    eventually "the probe ended" is_done probe
    same "what a handler may do" "$(tr '\n' ' ' <$store/probe)" "/var/tmp /tmp /var/lib/warrend "
    rm /etc/warrend/jobs.d/probe.toml
}

credential() {
    step "the password as a credential"
    (umask 077 && printf 'guest\n' >/etc/warrend/amqp-password)
    sed -i -e 's|guest:guest@|guest@|' -e 's|^#password_file|password_file|' $main_file
    systemctl restart warrend
    eventually "it is healthy with the password of the credential" is_healthy
    send by-credential
    same "who may read it" "$(setpriv --reuid=nobody --clear-groups cat /run/credentials/warrend.service/amqp-password 2>/dev/null)" ""
}

faults() {
    local before
    step "a configuration with a fault ends the unit, and nothing starts it again"
    cp $main_file /test/good.toml
    echo 'nonsense = 1' >>$main_file
    if systemctl restart warrend; then fail "it started"; fi
    same "the state" "$(systemctl show -P SubState warrend) $(systemctl show -P ExecMainStatus warrend)" "failed 78"
    same "restarts" "$(systemctl show -P NRestarts warrend)" 0
    [[ $(journalctl --no-pager -u warrend) == *"unknown key"*nonsense* ]] || fail "the journal does not say why"
    cp /test/good.toml $main_file
    systemctl restart warrend
    step "a crash is followed by a start"
    before=$(main_pid)
    kill -KILL "$before"
    eventually "another one runs" is_another "$before"
    eventually "it is healthy" is_healthy
    send after-the-crash
}

instance() {
    step "a second daemon beside the first"
    mkdir -p /etc/warrend/billing
    sed -e "s|127.0.0.1:5672|127.0.0.1:$port|" -e 's|"/usr/local/bin/invoice"|"true"|' \
        /usr/share/doc/warrend/examples/instance.toml >/etc/warrend/billing/warrend.toml
    systemctl enable --now warrend@billing
    eventually "it is healthy" is_healthy -c /etc/warrend/billing/warrend.toml
    echo 1 | warrend publish -c /etc/warrend/billing/warrend.toml invoices --id invoice -
    eventually "it handles" is_done invoice -c /etc/warrend/billing/warrend.toml
    systemctl restart warrend
    eventually "the first one is healthy" is_healthy
    is_healthy -c /etc/warrend/billing/warrend.toml >/dev/null || fail "the restart of the first one hurt the second"
}

drop_in() {
    step "as the user of an application"
    install -D -m 644 /usr/share/doc/warrend/examples/systemd/account.conf /etc/systemd/system/warrend.service.d/account.conf
    systemctl daemon-reload
    systemctl restart warrend
    eventually "it is healthy" is_healthy
    same "the user" "$(stat -c %U "/proc/$(main_pid)")" www-data
    send as-another-user
    is_done first || fail "what was done before is forgotten"
    rm -r /etc/systemd/system/warrend.service.d
    systemctl daemon-reload
    systemctl restart warrend
    eventually "it is healthy as before" is_healthy
    same "the owner of the store's file" "$(stat -c %U $store/warrend.db)" warrend
}

upgrade() {
    local before sum
    step "an upgrade keeps the configuration and restarts what runs"
    before=$(main_pid)
    sum=$(cat $main_file /etc/warrend/jobs.d/hello.toml | sha256sum)
    apt-get install -y /test/new/warrend_*.deb
    same "the version" "$(dpkg-query -f '${Version}' -W warrend | sed 's/.*-//')" 2
    same "the configuration" "$(cat $main_file /etc/warrend/jobs.d/hello.toml | sha256sum)" "$sum"
    if [ "$mode" = systemd ]; then
        [ "$(main_pid)" != "$before" ] || fail "it was not restarted"
        eventually "the instance is healthy" is_healthy -c /etc/warrend/billing/warrend.toml
        same "the unit" "$(systemctl is-enabled warrend)" enabled
    else
        systemctl restart warrend
    fi
    eventually "it is healthy" is_healthy
    send after-the-upgrade
    is_done first || fail "what was done before is forgotten"
}

removal() {
    step "removal stops it, and keeps configuration and store"
    [ "$mode" = systemd ] || systemctl stop warrend
    apt-get remove -y warrend
    if pgrep_warrend; then fail "it still runs"; fi
    for file in $main_file /etc/warrend/amqp-password $store/warrend.db; do
        [ "$mode" = chroot ] || [ -e "$file" ] || fail "$file is gone"
    done
    [ ! -e /usr/bin/warrend ] || fail "the binary is still there"
    step "what is installed again goes on"
    apt-get install -y /test/new/warrend_*.deb
    systemctl start warrend
    eventually "it is healthy" is_healthy
    is_done first || fail "what was done before is forgotten"
}

pgrep_warrend() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in /usr/bin/warrend*) return 0 ;; esac
    done
    return 1
}

purge() {
    local left
    step "a purge leaves nothing but the user"
    [ "$mode" = systemd ] || systemctl stop warrend
    apt-get purge -y warrend
    if pgrep_warrend; then fail "it still runs"; fi
    getent passwd warrend >/dev/null || fail "the user is gone, and its number may go to another"
    [ "$mode" = chroot ] || rm -rf /etc/systemd/system/*.wants/warrend@*
    left=$(find / -xdev \( -path /proc -o -path /sys -o -path /test -o -path /var/log -o -path /dev \) -prune -o -name '*warrend*' -print)
    same "what is left" "$left" ""
    [ "$mode" = chroot ] || same "failed units" "$(systemctl list-units --failed --plain --no-legend 'warrend*')" ""
}

five_commands
looks_right
if [ "$mode" = systemd ]; then
    bounds
    credential
    faults
    instance
    drop_in
fi
upgrade
removal
purge
touch /test/passed

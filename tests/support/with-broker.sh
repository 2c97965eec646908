#!/usr/bin/env bash
# with-broker.sh COMMAND...: runs the command with a RabbitMQ at hand and gives back its exit code. The private node is
# started for it, and stopped afterwards unless it ran before. WARREND_AMQP_URL names a broker to use instead.
set -euo pipefail

broker=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/broker.sh

ran_before=no
if "$broker" status >/dev/null; then
    ran_before=yes
fi
finish() {
    if [ "$ran_before" = no ]; then
        "$broker" stop
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

"$broker" start >&2
# Assigned first, so that a failure is one.
exports=$("$broker" env)
eval "$exports"
# In the foreground: a Ctrl-C reaches the command too, and the traps run once it ended.
"$@"

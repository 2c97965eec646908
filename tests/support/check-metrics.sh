#!/usr/bin/env bash
# Has Prometheus' promtool judge the alert rules and run their tests, and looks whether the dashboard is JSON, where they are.
# `make check-metrics` installs promtool. Where CI is set both must be here.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# skip PROGRAM
skip() {
    if [ -n "${CI:-}" ]; then
        echo "$1 is not here, and CI is set" >&2
        exit 1
    fi
    echo "skipped: no $1"
}

if command -v promtool >/dev/null; then
    promtool check rules "$root/config/prometheus-alerts.yml"
    promtool test rules "$root/tests/prometheus/alerts.test.yml"
else
    skip promtool
fi
if command -v python3 >/dev/null; then
    echo "config/grafana-dashboard.json"
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$root/config/grafana-dashboard.json"
else
    skip python3
fi

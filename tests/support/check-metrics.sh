#!/usr/bin/env bash
# Has Prometheus' promtool judge the alert rules and run their tests, and looks whether the dashboard is JSON, where they are.
# `make check-metrics` installs them.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

if command -v promtool >/dev/null; then
    promtool check rules "$root/config/prometheus-alerts.yml"
    promtool test rules "$root/tests/prometheus/alerts.test.yml"
else
    echo "promtool is not here: the alert rules are not checked"
fi
if command -v python3 >/dev/null; then
    echo "config/grafana-dashboard.json"
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$root/config/grafana-dashboard.json"
fi

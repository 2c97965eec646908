//! The shape of `status --json` is a promise to the programs that read it: it grows, and nothing in it changes its name or type.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Status;

/// Every field there is, each with a value of its type. A new one is added here.
const WHOLE: &str = include_str!("../../tests/status.json");

/// What may be `null`; everything else always has a value.
const MAY_BE_NULL: [&str; 61] = [
    "/alerts",
    "/alerts/0/job",
    "/alerts/0/notified",
    "/alerts/0/shown",
    "/alerts/0/value",
    "/broker/host",
    "/broker/server",
    "/broker/tls",
    "/broker/vhost",
    "/findings/0/help",
    "/findings/0/job",
    "/jobs/work/concurrency",
    "/jobs/work/dead_letter/ready",
    "/jobs/work/last_error",
    "/jobs/work/last_error_ms",
    "/jobs/work/oldest_wait_ms",
    "/jobs/work/paused",
    "/jobs/work/paused/reason",
    "/jobs/work/probe_ms",
    "/jobs/work/queues/work/consumers",
    "/jobs/work/queues/work/ready",
    "/jobs/work/reason",
    "/jobs/work/run_ms/p50",
    "/jobs/work/run_ms/p95",
    "/jobs/work/run_ms/p99",
    "/jobs/work/wait_ms/p50",
    "/jobs/work/wait_ms/p95",
    "/jobs/work/wait_ms/p99",
    "/reload",
    "/reload/reason",
    "/store/bytes",
    "/store/commits",
    "/store/disk_bytes",
    "/store/free_bytes",
    "/store/last_commit_ms",
    "/store/records",
    "/store/wal_bytes",
    "/system/host/cpu_busy_s",
    "/system/host/cpus",
    "/system/host/disk_busy_s",
    "/system/host/disk_read_bytes",
    "/system/host/disk_written_bytes",
    "/system/host/load_15m",
    "/system/host/load_1m",
    "/system/host/load_5m",
    "/system/host/memory_available_bytes",
    "/system/host/memory_bytes",
    "/system/host/network_received_bytes",
    "/system/host/network_sent_bytes",
    "/system/process/children",
    "/system/process/children_cpu_s",
    "/system/process/children_memory_bytes",
    "/system/process/cpu_s",
    "/system/process/max_files",
    "/system/process/memory_bytes",
    "/system/process/open_files",
    "/system/process/read_bytes",
    "/system/process/started_s",
    "/system/process/threads",
    "/system/process/virtual_memory_bytes",
    "/system/process/written_bytes",
];

fn whole() -> Value {
    serde_json::from_str(WHOLE).expect("it is JSON")
}

/// The places of all values below this one, as RFC 6901 writes them.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(values) => values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in children {
        let place = format!("{at}/{name}");
        places(value, &place, all);
        all.push(place);
    }
}

/// A field that is missing there, or of another type, is not what comes out again.
#[test]
fn the_status_has_these_fields_and_no_others() {
    let status: Status = serde_json::from_str(WHOLE).expect("each field has its type");
    assert_eq!(
        serde_json::to_value(status).expect("it is JSON"),
        whole(),
        "a new field belongs into tests/status.json"
    );
}

#[test]
fn the_same_fields_may_be_null_as_ever() {
    let mut all = Vec::new();
    places(&whole(), "", &mut all);
    let may_be_null = |place: &&String| {
        let mut changed = whole();
        *changed.pointer_mut(place).expect("it was found there") = Value::Null;
        serde_json::from_value::<Status>(changed).is_ok()
    };
    let found: BTreeSet<&str> = all.iter().filter(may_be_null).map(String::as_str).collect();
    assert_eq!(found, BTreeSet::from(MAY_BE_NULL));
}

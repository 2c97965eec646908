use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::family::{Kind, Value};
use super::text::{full_name, sample_name};
use super::*;
use crate::broker::publisher::PublisherReport;
use crate::histogram::{AGES, BATCHES, COMMITS, Histogram, TIMES};
use crate::job::{Figures, Histograms};
use crate::report::{Alert, Broker, DeadLetter, Job, Queue, Status, Store, System};
use crate::store::StoreReport;

/// A daemon of which everything is known, with a job whose queue has an odd name.
fn alert(name: &str, job: Option<&str>, state: &str) -> Alert {
    Alert {
        name: name.to_owned(),
        when: "paused".to_owned(),
        severity: "critical".to_owned(),
        job: job.map(str::to_owned),
        state: state.to_owned(),
        since_ms: 0,
        value: None,
        shown: None,
        notified: None,
    }
}

fn look() -> Look {
    let queues = [
        ("q".to_owned(), Queue { ready: Some(7), consumers: Some(2), consumed: true }),
        ("a \"b\"\\\nc".to_owned(), Queue { ready: None, consumers: None, consumed: false }),
    ];
    let job = Job {
        state: "running".to_owned(),
        done: 5,
        dead: 2,
        dead_by_class: [("in-doubt".to_owned(), 2)].into(),
        worker_restarts: [("max_age".to_owned(), 3)].into(),
        queues: queues.into(),
        dead_letter: DeadLetter { queue: "work.dead".to_owned(), ready: Some(2) },
        ..Job::default()
    };
    let mut run = Histogram::new(&TIMES);
    run.add_time(Duration::from_millis(3));
    run.add_time(Duration::from_secs(4000));
    let empty = Histogram::new(&AGES);
    let histograms = Histograms { run: run.clone(), wait: run, age: empty, acks: Histogram::new(&BATCHES) };
    let pauses = [("operator", false), ("broken", true), ("outage", false), ("disk_full", false)];
    let silent = Job { state: "silent".to_owned(), ..Job::default() };
    Look {
        status: Status {
            schema: 1,
            version: "1.2.3".to_owned(),
            pid: 1,
            uptime_s: 1,
            state: "running".to_owned(),
            healthy: true,
            alerts: Some(vec![alert("a", None, "firing"), alert("b", Some("mail"), "ok")]),
            problems: Vec::new(),
            findings: Vec::new(),
            broker: Broker::default(),
            store: Store::default(),
            jobs: [("work".to_owned(), job), ("silent".to_owned(), silent)].into(),
            system: System::default(),
            reload: None,
        },
        jobs: [("work".to_owned(), Figures { connected: true, histograms, pauses, quoted: None })].into(),
        store: Some(StoreReport {
            path: "/x".into(),
            records: 9,
            bytes: Some(4096),
            wal_bytes: None,
            free_bytes: None,
            disk_bytes: None,
            commits: 1,
            commit_times: Histogram::new(&COMMITS),
            last_commit: None,
            problem: None,
        }),
        publisher: Some(PublisherReport { connected: true, ..PublisherReport::default() }),
        roster: true,
    }
}

#[test]
fn the_older_form_bears_the_names_of_its_samples() {
    let page = page(&look(), Form::Prometheus);
    let has = |text: &str| assert!(page.contains(text), "{text}\n{page}");
    has(
        "# HELP warrend_build_info What runs.\n# TYPE warrend_build_info gauge\nwarrend_build_info{version=\"1.2.3\"} 1\n",
    );
    has("# TYPE warrend_messages_done_total counter\nwarrend_messages_done_total{job=\"work\"} 5\n");
    has("warrend_messages_dead_total{job=\"work\",class=\"in-doubt\"} 2\n");
    has("warrend_messages_dead_total{job=\"work\",class=\"failed\"} 0\n");
    has("warrend_worker_restarts_total{job=\"work\",reason=\"max_age\"} 3\n");
    has("warrend_job_up{job=\"silent\"} 0\nwarrend_job_up{job=\"work\"} 1\n");
    has("warrend_job_paused{job=\"work\",reason=\"broken\"} 1\n");
    has("# TYPE warrend_run_seconds histogram\nwarrend_run_seconds_sum{job=\"work\"} 4000.003\n");
    has("warrend_run_seconds_count{job=\"work\"} 2\n");
    has("warrend_run_seconds_bucket{le=\"0.005\",job=\"work\"} 1\n");
    has("warrend_run_seconds_bucket{le=\"+Inf\",job=\"work\"} 2\n");
    has("warrend_store_size_bytes 4096\n");
    has("warrend_queue_consuming{job=\"work\",queue=\"a \\\"b\\\"\\\\\\nc\"} 0\n");
    assert!(!page.contains("# UNIT") && !page.contains("# EOF"), "{page}");
}

#[test]
fn open_metrics_has_units_and_an_end() {
    let page = page(&look(), Form::OpenMetrics);
    assert!(page.contains("# TYPE warrend_build info\nwarrend_build_info{version=\"1.2.3\"} 1\n"), "{page}");
    assert!(
        page.contains("# TYPE warrend_messages_done counter\nwarrend_messages_done_total{job=\"work\"} 5\n"),
        "{page}"
    );
    assert!(page.contains("# UNIT warrend_store_size_bytes bytes\n"), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn what_is_unknown_has_no_sample() {
    let mut look = look();
    let known = page(&look, Form::Prometheus);
    assert!(!known.contains("warrend_store_wal_size") && !known.contains("process_cpu"), "{known}");
    assert!(known.contains("warrend_queue_ready_messages{job=\"work\",queue=\"q\"} 7\n"));
    assert!(!known.contains("warrend_queue_ready_messages{job=\"work\",queue=\"a"), "{known}");
    assert!(!known.contains("warrend_job_connected{job=\"silent\"}"), "{known}");
    look.store = None;
    look.publisher = None;
    let known = page(&look, Form::Prometheus);
    assert!(known.contains("warrend_store_up 0\n") && !known.contains("warrend_store_commit"), "{known}");
    assert!(!known.contains("warrend_publisher"), "{known}");
}

/// Those of Prometheus' own checks that `promtool` makes where it is installed, and more.
#[test]
fn names_and_words_are_in_the_manner_of_prometheus() {
    let families = families(&look());
    let mut names = BTreeSet::new();
    for family in &families {
        let name = full_name(family);
        assert!(name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'), "{name}");
        assert!(name.starts_with("warrend_") || name.starts_with("process_"), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_info") && !name.ends_with("_count"), "{name}");
        assert!(family.help.ends_with('.') && !family.help.contains(['"', '\\', '\n']), "{name}: {}", family.help);
        assert_eq!(family.kind == Kind::Histogram, is_histogram(family), "{name}");
        for (label, _) in family.samples.iter().flat_map(|(labels, _)| labels) {
            assert!(
                ["job", "queue", "class", "reason", "version", "alert", "severity"].contains(label),
                "{name}: {label}"
            );
        }
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
}

fn is_histogram(family: &Family) -> bool {
    family.samples.iter().any(|(_, value)| matches!(value, Value::Histogram(_)))
}

/// Of this very process everything is known, so that every metric has its labels.
#[test]
fn the_document_lists_every_metric() {
    let mut look = look();
    look.status.system = crate::system::system();
    let mut table = "| Metric | Kind | Labels | |\n| --- | --- | --- | --- |\n".to_owned();
    for family in families(&look) {
        let name = sample_name(&full_name(&family), family.kind);
        let labels: BTreeMap<usize, &str> =
            family.samples.iter().flat_map(|(labels, _)| labels.iter().map(|(label, _)| *label).enumerate()).collect();
        let labels: Vec<_> = labels.into_values().map(|label| format!("`{label}`")).collect();
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(table, "| `{name}` | {kind} | {} | {} |", labels.join(", "), family.help).unwrap();
    }
    let document = include_str!("../../docs/METRICS.md");
    assert!(document.contains(&table), "docs/METRICS.md must hold this table:\n\n{table}");
}

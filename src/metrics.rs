//! The page that Prometheus reads: what the threads answered, as metrics.
//!
//! A page is made of one [`Look`] and of nothing else, so it agrees with `status` of that moment. A number that is not known has
//! no sample: a job that does not answer has `warrend_job_up` 0 and nothing else. Labels take their values from the
//! configuration and from fixed lists, never from a message. docs/METRICS.md lists all metrics, and a test compares it with these.

mod family;
mod jobs;
mod text;

use crate::panel::Look;
use crate::report::{Host, ProcessUse, Status};
use family::Family;
pub use text::Form;

/// The page, in the form that the client asked for.
pub fn page(look: &Look, form: Form) -> String {
    text::encode(families(look), form)
}

/// All metrics, those without a sample too.
fn families(look: &Look) -> Vec<Family> {
    let mut families = daemon(look);
    families.extend(publisher(look));
    families.extend(store(look));
    families.extend(jobs::families(look));
    families.extend(process(&look.status.system.process));
    families.extend(host(&look.status.system.host));
    families
}

fn daemon(look: &Look) -> Vec<Family> {
    let status = &look.status;
    vec![
        Family::info("warrend_build", "What runs.").with([("version", &*status.version)], 1_u64),
        Family::gauge("warrend_stopping", "1 while the daemon drains.").only(u64::from(status.state == "stopping")),
        Family::gauge("warrend_problems", "Problems that `warrend status` shows.").only(status.problems.len() as u64),
        alerts(status),
    ]
}

fn alerts(status: &Status) -> Family {
    let help = "1 while an alert of warrend's own fires for a job; without a job it is of the daemon.";
    status.alerts.iter().flatten().fold(Family::gauge("warrend_alert_firing", help), |family, alert| {
        let job = alert.job.as_deref().unwrap_or_default();
        let labels = [("alert", &*alert.name), ("job", job), ("severity", &*alert.severity)];
        family.with(labels, u64::from(alert.state == "firing"))
    })
}

fn publisher(look: &Look) -> Vec<Family> {
    let publisher = look.publisher.as_ref();
    vec![
        Family::gauge("warrend_publisher_connected", "1 while the connection for copies, forwards and replies stands.")
            .only(publisher.map(|publisher| u64::from(publisher.connected))),
        Family::gauge("warrend_publisher_blocked", "1 while RabbitMQ takes no messages (memory or disk alarm).")
            .only(publisher.map(|publisher| u64::from(publisher.blocked))),
        Family::counter("warrend_publisher_reconnects", "Connections that were lost and made again.")
            .only(publisher.map(|publisher| publisher.reconnects)),
        Family::gauge("warrend_publisher_unconfirmed_messages", "Messages that wait for the confirm of RabbitMQ.")
            .only(publisher.map(|publisher| publisher.unconfirmed as u64)),
    ]
}

fn store(look: &Look) -> Vec<Family> {
    let store = look.store.as_ref();
    vec![
        Family::gauge("warrend_store_up", "1 if the recorder answered; 0: it waits for the disk.")
            .only(u64::from(store.is_some())),
        Family::gauge("warrend_store_failing", "1 while it cannot commit, most often for a full disk.")
            .only(store.map(|store| u64::from(store.problem.is_some()))),
        Family::gauge("warrend_store_records", "Attempts that are remembered.")
            .only(store.and_then(|store| u64::try_from(store.records).ok())),
        Family::gauge("warrend_store_size", "The SQLite file.").bytes().only(store.and_then(|store| store.bytes)),
        Family::gauge("warrend_store_wal_size", "Its write-ahead log.")
            .bytes()
            .only(store.and_then(|store| store.wal_bytes)),
        Family::gauge("warrend_store_disk_free", "Free on the file system of the store, for users other than root.")
            .bytes()
            .only(store.and_then(|store| store.free_bytes)),
        Family::gauge("warrend_store_disk_size", "The file system of the store.")
            .bytes()
            .only(store.and_then(|store| store.disk_bytes)),
        Family::counter("warrend_store_commits", "Transactions; all jobs share them.")
            .only(store.map(|store| store.commits)),
        Family::histogram("warrend_store_commit", "What a transaction took, with the sync.")
            .seconds()
            .only(store.map(|store| &store.commit_times)),
    ]
}

/// The names that every Prometheus client gives them, and those that have none by our own prefix.
fn process(process: &ProcessUse) -> Vec<Family> {
    vec![
        Family::counter("process_cpu", "CPU time of the daemon, without its handlers.").seconds().only(process.cpu_s),
        Family::gauge("process_resident_memory", "Memory of the daemon.").bytes().only(process.memory_bytes),
        Family::gauge("process_virtual_memory", "Its address space.").bytes().only(process.virtual_memory_bytes),
        Family::gauge("process_threads", "Threads of the daemon.").only(process.threads),
        Family::gauge("process_open_fds", "File descriptors of the daemon.").only(process.open_files),
        Family::gauge("process_max_fds", "How many file descriptors it may have.").only(process.max_files),
        Family::gauge("process_start_time", "When the daemon started, since the Unix epoch.")
            .seconds()
            .only(process.started_s),
        Family::counter("warrend_process_read", "What the daemon had the disks read.").bytes().only(process.read_bytes),
        Family::counter("warrend_process_written", "What the daemon had the disks write.")
            .bytes()
            .only(process.written_bytes),
        Family::gauge("warrend_children", "Processes of handlers that live.").only(process.children),
        Family::gauge("warrend_children_resident_memory", "Their memory; what they share counts for each.")
            .bytes()
            .only(process.children_memory_bytes),
        Family::counter("warrend_children_cpu", "CPU time of handlers' processes that have ended.")
            .seconds()
            .only(process.children_cpu_s),
    ]
}

fn host(host: &Host) -> Vec<Family> {
    vec![
        Family::gauge("warrend_host_cpus", "Processors of the machine.").only(host.cpus),
        Family::counter("warrend_host_cpu_busy", "Time that the processors worked, summed over them.")
            .seconds()
            .only(host.cpu_busy_s),
        Family::gauge("warrend_host_load1", "Load average of the last minute.").only(host.load_1m),
        Family::gauge("warrend_host_load5", "Load average of the last five minutes.").only(host.load_5m),
        Family::gauge("warrend_host_load15", "Load average of the last fifteen minutes.").only(host.load_15m),
        Family::gauge("warrend_host_memory", "Memory of the machine.").bytes().only(host.memory_bytes),
        Family::gauge("warrend_host_memory_available", "Memory that programs can still have.")
            .bytes()
            .only(host.memory_available_bytes),
        Family::counter("warrend_host_network_received", "Received on all interfaces but the loopback.")
            .bytes()
            .only(host.network_received_bytes),
        Family::counter("warrend_host_network_sent", "Sent on all interfaces but the loopback.")
            .bytes()
            .only(host.network_sent_bytes),
        Family::counter("warrend_host_disk_read", "Read from the disks of the machine.")
            .bytes()
            .only(host.disk_read_bytes),
        Family::counter("warrend_host_disk_written", "Written to the disks of the machine.")
            .bytes()
            .only(host.disk_written_bytes),
        Family::counter("warrend_host_disk_busy", "Time that the disks had something to do, summed over them.")
            .seconds()
            .only(host.disk_busy_s),
    ]
}

#[cfg(test)]
mod tests;

//! What the figures were measured on.

use std::fs;

use crate::support::broker::Broker;

/// A few lines; `-` for what the machine does not say.
pub fn facts(broker: &Broker) -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let cores = std::thread::available_parallelism().map_or_else(|_| "-".to_owned(), |cores| cores.to_string());
    let memory =
        field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    let overview = broker.management().call("GET", "/api/overview", None).unwrap_or_default();
    let version = |name: &str| overview[name].as_str().unwrap_or("-").to_owned();
    format!(
        "machine   {cores} x {}, {} GiB, Linux {}\nbroker    RabbitMQ {}, Erlang {}, at {}\nstore     {} ({})",
        field(&cpuinfo, "model name").unwrap_or_else(|| "-".to_owned()),
        memory.map_or_else(|| "-".to_owned(), |kib| (kib / 1024 / 1024).to_string()),
        read("/proc/sys/kernel/osrelease").trim(),
        version("rabbitmq_version"),
        version("erlang_version"),
        broker.address(),
        env!("CARGO_TARGET_TMPDIR"),
        file_system(env!("CARGO_TARGET_TMPDIR")).unwrap_or_else(|| "-".to_owned()),
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The type of the file system with the longest mount point above `path`.
fn file_system(path: &str) -> Option<String> {
    let mounts = read("/proc/self/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(mount, _)| std::path::Path::new(path).starts_with(mount));
    above.max_by_key(|(mount, _)| mount.len()).map(|(_, kind)| kind.to_owned())
}

//! `[store]`, `[control]`, `[http]`, `[shutdown]` and `[log]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use log::LevelFilter;

use super::item::{Item, Limits};
use super::section::{Got, Section};
use super::sketch::Want;
use super::value::{LONGEST, days, millis, secs};
use super::{Control, Log, LogFormat, Shutdown, Store, Synchronous, Web};

/// Any duration above zero.
pub const ABOVE_ZERO: Limits = Limits::new(millis(1), LONGEST);
/// Any duration, zero too.
pub const ANY: Limits = Limits::new(secs(0), LONGEST);
/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last of which is zero.
const SOCKET_PATH: usize = 107;

/// Notes where the greatest of two durations is below the first.
pub fn at_least(
    section: &Section<'_>,
    (max_name, max): (&str, &Got<std::time::Duration>),
    (initial_name, initial): (&str, &Got<std::time::Duration>),
) {
    let Some(place) = max.at.or(initial.at) else {
        return;
    };
    if max.both(initial) && max.value < initial.value {
        let show = super::value::show_duration;
        section.reader().error(
            place,
            format!("`{max_name}` is below `{initial_name}`"),
            format!("`{initial_name}` is \"{}\", `{max_name}` is \"{}\"", show(initial.value), show(max.value)),
        );
    }
}

/// Reads `[store]`.
pub fn store(section: &Section<'_>) -> Store {
    let modes = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
    Store {
        path: section.get("path", PathBuf::from("/var/lib/warrend/warrend.db"), |item| item.path()).value,
        synchronous: section.get("synchronous", Synchronous::Full, |item| item.choice(&modes)).value,
        retention: section.get("retention", days(14), |item| item.duration(ABOVE_ZERO)).value,
    }
}

/// Reads `[control]`.
pub fn control(section: &Section<'_>) -> Control {
    Control { socket: section.get("socket", PathBuf::from("/run/warrend/warrend.sock"), socket).value }
}

fn socket(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH {
        let message = format!("the path of the socket has {length} bytes");
        return item.error(message, format!("a Unix socket's path has at most {SOCKET_PATH}; choose a shorter one"));
    }
    Some(path)
}

/// Reads `[http]`.
pub fn http(section: &Section<'_>) -> Web {
    let listen = section.get("listen", None, |item| address(item).map(Some));
    if let (Some(place), Some(address)) = (listen.at, listen.value)
        && !address.ip().is_loopback()
    {
        let message = "metrics and status are open to whoever reaches this address: there is neither TLS nor a login";
        let help = "listen on 127.0.0.1 or [::1], or let nobody but Prometheus and a proxy reach it";
        section.reader().warn(place, message, help);
    }
    Web { listen: listen.value }
}

fn address(item: Item<'_>) -> Option<SocketAddr> {
    item.want(Want::Form("^(([0-9]{1,3}\\.){3}[0-9]{1,3}|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$"));
    let text = item.filled_text()?;
    let mend = "write an IP address and a port: \"127.0.0.1:9419\", \"[::1]:9419\"";
    match text.value.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => item.error("`listen` has no port", mend),
        Ok(address) => Some(address),
        Err(_) => item.error(format!("\"{}\" is no address to listen on", text.shown()), mend),
    }
}

/// Reads `[shutdown]`.
pub fn shutdown(section: &Section<'_>) -> Shutdown {
    Shutdown { timeout: section.get("timeout", secs(25), |item| item.duration(ANY)).value }
}

/// Reads `[log]`.
pub fn log(section: &Section<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
    let levels = [
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
    ];
    Log {
        format: section.get("format", LogFormat::Text, |item| item.choice(&formats)).value,
        level: section.get("level", LevelFilter::Info, |item| item.choice(&levels)).value,
    }
}

//! Which hosts are this machine: what goes to them crosses no network.

use std::net::IpAddr;

/// Whether a host of a URL is this machine: a loopback address, or a name that stands for one everywhere (RFC 6761).
pub fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_and_nothing_else_is() {
        for host in ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        assert!(is_this_machine("::ffff:127.0.0.1"));
        for host in ["localhost.example.org", "notlocalhost", "10.0.0.1", "::", "0.0.0.0", "128.0.0.1", "rabbit"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}

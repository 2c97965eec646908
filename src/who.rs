//! Who asks: a user as the kernel knows him.
//!
//! What is absent: who became root, and by what login. `/proc/PID/loginuid` knows, but the service does not see the processes
//! of others (`ProtectProc=`), and what a client said of itself would prove nothing; sudo keeps a log of its own.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::socket_peercred;

/// The target, for the log, of what people did and what it changed. Each line of it is told: who holds the audit trail against
/// the log misses none, and a list is whole. It cannot be many: people are slow.
pub const ACTS: &str = "warrend::acts";

/// Somebody who did something. Printed, it is the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user's name, or `uid N` where the machine knows none.
    pub name: String,
    /// The user's number; none where it is the daemon itself.
    pub uid: Option<u32>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Who {
    /// The daemon, which decides by itself.
    pub fn daemon() -> Self {
        Self { name: "warrend".to_owned(), uid: None }
    }

    /// Whoever sent a signal, which does not say.
    pub fn signal(name: &str) -> Self {
        Self { name: name.to_owned(), uid: None }
    }

    /// Who runs this process.
    pub fn here() -> Self {
        Self::user(rustix::process::getuid().as_raw())
    }

    /// Who is at the other end. The kernel noted it when the socket was connected.
    pub fn peer(client: &UnixStream) -> io::Result<Self> {
        socket_peercred(client).map(|peer| Self::user(peer.uid.as_raw())).map_err(io::Error::from)
    }

    fn user(uid: u32) -> Self {
        Self { name: named(uid, &std::fs::read_to_string("/etc/passwd").unwrap_or_default()), uid: Some(uid) }
    }
}

/// A user of this machine. Those of a directory service are not in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the group that the user logs in with.
    pub gid: u32,
}

/// The users of a passwd(5). A line that is none is left out.
pub fn accounts(passwd: &str) -> impl Iterator<Item = Account> {
    passwd.lines().filter_map(|line| {
        // name:password:uid:gid:…
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?.to_owned(), fields.next()?);
        Some(Account { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}

/// The name of a user; one of a directory service stays a number.
fn named(uid: u32, passwd: &str) -> String {
    accounts(passwd).find(|account| account.uid == uid).map_or_else(|| format!("uid {uid}"), |account| account.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_where_the_machine_knows_one() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!([0, 1000, 7].map(|uid| named(uid, users)), ["root", "anna", "uid 7"]);
        assert_eq!(named(0, ""), "uid 0");
    }

    #[test]
    fn the_peer_of_a_socket_of_our_own_is_ourselves() {
        let (_client, server) = UnixStream::pair().unwrap();
        assert_eq!(Who::peer(&server).unwrap(), Who::here());
    }
}

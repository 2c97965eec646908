//! Who the daemon runs as, and what the owner, the group and the mode of a file let him do with it. ACLs are not looked at.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::unit::Unit;
use crate::who;

/// Read and write: what a file of the store takes.
pub const USE: u32 = 0o6;
/// Write and search: what it takes to make a file in a folder.
pub const MAKE: u32 = 0o3;

/// Owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Owned {
    /// Of what is there.
    pub fn of(metadata: &Metadata) -> Self {
        Self { user: metadata.uid(), group: metadata.gid(), mode: metadata.permissions().mode() & 0o7777 }
    }
}

/// A user with all of his groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// User id.
    pub user: u32,
    /// Group ids, in no order.
    pub groups: Vec<u32>,
}

impl Runner {
    /// This process.
    pub fn here() -> Self {
        let own = rustix::process::getegid().as_raw();
        let others = rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw);
        Self { user: rustix::process::geteuid().as_raw(), groups: others.chain([own]).collect() }
    }

    /// The user of a unit; `None` where the files of this machine do not know him. `root`: `/`.
    pub fn of(root: &Path, unit: &Unit) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let name = unit.user().unwrap_or("root");
        let number = name.parse().ok();
        // A machine without the file has a root all the same.
        let known = who::accounts(&read("etc/passwd")).find(|it| it.name == name || Some(it.uid) == number);
        let (user, login) = match known {
            Some(account) => (account.uid, account.gid),
            None if name == "root" => (0, 0),
            None => return None,
        };
        let file = read("etc/group");
        // name:password:gid:member,member
        let listed = file.lines().filter_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
            [group, _, gid, members] => Some((group, gid.parse::<u32>().ok()?, members)),
            _ => None,
        });
        let listed: Vec<_> = listed.collect();
        let id = |group: &str| {
            let named = listed.iter().find(|(name, ..)| *name == group).map(|(_, gid, _)| *gid);
            named.or_else(|| group.parse().ok())
        };
        let own = unit.group().and_then(id).unwrap_or(login);
        let given = unit.supplementary_groups().into_iter().filter_map(id);
        let member = |(_, gid, members): &(&str, u32, &str)| members.split(',').any(|it| it == name).then_some(*gid);
        let groups = listed.iter().filter_map(member).chain(given).chain([own]).collect();
        Some(Self { user, groups })
    }

    /// Whether he has all of these rights ([`USE`], [`MAKE`]): those of the owner, of the group or of all others, whichever he
    /// is first (path_resolution(7)).
    pub fn may(&self, rights: u32, owned: Owned) -> bool {
        let shift = match owned {
            _ if self.user == 0 => return true,
            Owned { user, .. } if user == self.user => 6,
            Owned { group, .. } if self.groups.contains(&group) => 3,
            Owned { .. } => 0,
        };
        (owned.mode >> shift) & rights == rights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_decides() {
        let check = |user: u32, groups: &[u32], mode: u32, expect: bool| {
            let runner = Runner { user, groups: groups.to_vec() };
            assert_eq!(runner.may(USE, Owned { user: 7, group: 70, mode }), expect, "{user} {groups:?} {mode:o}");
        };
        check(7, &[], 0o600, true);
        check(7, &[70], 0o460, false);
        check(8, &[1, 70], 0o660, true);
        check(8, &[70], 0o646, false);
        check(8, &[1], 0o666, true);
        check(8, &[1], 0o660, false);
        check(0, &[], 0o000, true);
        let folder = Owned { user: 7, group: 70, mode: 0o2770 };
        assert!(Runner { user: 8, groups: vec![70] }.may(MAKE, folder));
        assert!(!Runner { user: 8, groups: vec![70] }.may(MAKE, Owned { mode: 0o2760, ..folder }));
    }

    #[test]
    fn the_user_of_a_unit_has_his_groups() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/passwd", "root:x:0:0::/root:/bin/sh\nanna:x:997:990::/:/bin/sh\n");
        write("etc/group", "root:x:0:\nanna:x:990:\ndata:x:50:bert,anna\nlog:x:51:annabel\nmore:x:52:\n");
        let check = |settings: &str, expect: Option<(u32, &[u32])>| {
            write("lib/systemd/system/w.service", &format!("[Service]\nExecStart=/usr/bin/warrend run\n{settings}"));
            let unit = Unit::find(root.path(), Path::new(crate::config::DEFAULT_PATH)).unwrap();
            let runner = expect.map(|(user, groups)| Runner { user, groups: groups.to_vec() });
            assert_eq!(Runner::of(root.path(), &unit), runner, "{settings}");
        };
        check("User=anna", Some((997, &[50, 990])));
        check("User=997\nGroup=log", Some((997, &[51])));
        check("User=anna\nSupplementaryGroups=log\nSupplementaryGroups=\nSupplementaryGroups=more 8", {
            Some((997, &[50, 52, 8, 990]))
        });
        check("User=nobody-here", None);
        check("", Some((0, &[0])));
    }
}

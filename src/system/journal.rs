//! Whether systemd's journal reads what we write to stderr.

/// systemd sets `JOURNAL_STREAM` to the device and the inode of the stream that it made (systemd.exec(5)). A program whose stderr
/// was led elsewhere afterwards inherits the variable too, so both are compared.
pub fn reads_stderr() -> bool {
    let Some(said) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(rustix::stdio::stderr()).is_ok_and(|stat| is_same(&said, stat.st_dev, stat.st_ino))
}

fn is_same(said: &str, device: u64, inode: u64) -> bool {
    said.split_once(':')
        .is_some_and(|(its_device, its_inode)| its_device.parse() == Ok(device) && its_inode.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_must_be_the_same() {
        assert!(is_same("9:4711", 9, 4711));
        for other in ["9:4712", "8:4711", "", "9", "9:", ":4711", "9:4711:1", "x:y"] {
            assert!(!is_same(other, 9, 4711), "{other}");
        }
    }
}

//! How a word has to be written so that a shell reads it as one.

/// A word as a POSIX shell reads it back, for commands that are shown to be pasted. Line ends and the like stay what they are.
pub fn word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_back() {
        let told = [
            ("01c8f0de-7", "01c8f0de-7"),
            ("--vhost=/", "--vhost=/"),
            ("/var/lib/warrend", "/var/lib/warrend"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("~", "'~'"),
            ("ü", "'ü'"),
        ];
        for (text, shown) in told {
            assert_eq!(word(text), shown);
        }
    }
}

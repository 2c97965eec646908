//! What makes two failures the same failure: the class, how the handler ended, and its last words without numbers and ids.

use crate::task::Message;

/// How the error of a handler begins; what follows the first `: ` is what it wrote to stderr.
const ENDINGS: [&str; 3] = ["exit status ", "killed by ", "no end within "];

/// Two dead letters with the same fingerprint died of the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    /// The class of the failure, or `-`.
    pub class: String,
    /// One line; numbers, hex strings, UUIDs and random ids are `#`.
    pub error: String,
}

impl Fingerprint {
    /// Of one dead letter.
    pub fn of(message: &Message) -> Self {
        Self { class: super::class(message).to_owned(), error: folded_error(super::error(message)) }
    }
}

fn folded_error(error: &str) -> String {
    let last_line = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(fold);
    if !ENDINGS.iter().any(|ending| error.starts_with(ending)) {
        return last_line(error).unwrap_or_default();
    }
    // The exit code or signal tells failures apart, so it stays.
    match error.split_once(": ") {
        Some((ending, said)) => last_line(said).map_or_else(|| ending.to_owned(), |said| format!("{ending}: {said}")),
        None => error.to_owned(),
    }
}

/// Replaces what differs from one message to the next.
fn fold(line: &str) -> String {
    let mut folded = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if !first.is_ascii_alphanumeric() {
            folded.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if rest.get(..36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()) {
            folded.push('#');
            rest = &rest[36..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        fold_word(&rest[..end], &mut folded);
        rest = &rest[end..];
    }
    folded
}

fn fold_word(word: &str, folded: &mut String) {
    let digits = word.bytes().any(|byte| byte.is_ascii_digit());
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let runs = word.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    let runs_of_digits = runs.filter(|run| run[0].is_ascii_digit()).count();
    let is_id = digits && word.len() >= 6 && is_hex(word)
        || word.strip_prefix("0x").is_some_and(is_hex)
        || word.len() >= 8 && runs_of_digits >= 2;
    if is_id {
        folded.push('#');
        return;
    }
    for c in word.chars() {
        if !c.is_ascii_digit() {
            folded.push(c);
        } else if !folded.ends_with('#') {
            folded.push('#');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_message_to_message_is_folded() {
        let check = |error: &str, expect: &str| assert_eq!(folded_error(error), expect, "{error}");
        check("", "");
        check("exit status 1", "exit status 1");
        check("exit status 1: \n", "exit status 1");
        check("exit status 2: loading\norder 4711 not found\n", "exit status 2: order # not found");
        check("killed by SIGSEGV (signal 11): at 0x7ffe12", "killed by SIGSEGV (signal 11): at #");
        check("no end within 30s", "no end within 30s");
        check("the body has 12 bytes, and max_body allows 10", "the body has # bytes, and max_body allows #");
        check("exit status 1: user 550e8400-e29b-41d4-a716-446655440000 é", "exit status 1: user # é");
        check("exit status 1: commit deadbeef1 of facade", "exit status 1: commit # of facade");
        check("exit status 1: 10.0.0.7:5432 refused", "exit status 1: #.#.#.#:# refused");
        check("exit status 1: order ord_8fK3xQ29 at utf8", "exit status 1: order ord_# at utf#");
        check("cannot open /tmp/x-99.tmp", "cannot open /tmp/x-#.tmp");
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        assert_ne!(folded_error("exit status 1: no"), folded_error("exit status 2: no"));
    }
}

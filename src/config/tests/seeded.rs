//! Files as an administrator gets them wrong: each is refused, at the right line, and nearly each with its mend.

mod names;
mod syntax;
mod values;

use super::super::report::Level;
use super::*;

/// What is wrong, the file, the place of the first error, its message, and the begin of its mend. `{broker}`, `{mail}` and
/// `{command}` stand for lines that are right; other files follow after a line with three dashes and their name.
type Seed = [&'static str; 5];

const BROKER: &str = "[broker]\nurls = [\"amqp://127.0.0.1\"]\n";
const MAIL: &str = "[jobs.mail]\nqueue = \"mail\"\n";
const COMMAND: &str = "[jobs.mail.handler]\ncommand = [\"/bin/mail\"]\n";

fn folder(text: &str) -> Folder {
    let text = text.replace("{broker}", BROKER).replace("{mail}", MAIL).replace("{command}", COMMAND);
    let mut files = text.split("\n--- ");
    let main = Folder::new(files.next().expect("a split gives something"));
    files.fold(main, |folder, file| {
        let (name, text) = file.split_once('\n').expect("a name and a text");
        folder.with(name, text)
    })
}

#[test]
fn each_is_refused_at_its_line_and_mended() {
    let mut mended = 0;
    let seeds = [&names::SEEDS[..], &syntax::SEEDS, &values::SEEDS].concat();
    for [what, text, place, message, mend] in &seeds {
        let report = folder(text).faulty();
        let error = report.entries.iter().position(|entry| entry.level == Level::Error).expect("it is refused");
        assert_eq!(outline(&report)[error], format!("{place} {message}"), "{what}\n{text}");
        let help = report.entries[error].help.as_deref().unwrap_or_default();
        assert!(help.starts_with(mend) && mend.is_empty() == help.is_empty(), "{what}: {help}");
        mended += usize::from(!help.is_empty());
        assert!(!report.to_string().contains("hun"), "no password is told\n{report}");
    }
    assert!(seeds.len() >= 60 && mended >= 50, "{mended} of {} are mended", seeds.len());
}

#[test]
fn a_file_in_another_encoding_is_told_with_the_command_that_converts_it() {
    let folder = folder("");
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(BROKER.bytes().flat_map(|byte| [byte, 0])).collect();
    for (bytes, place, mend) in [
        (utf16.as_slice(), "1:1", "iconv -f UTF-16 -t UTF-8"),
        (&b"# f\xfcr die Post\n[broker]\n"[..], "1:4", "iconv -f LATIN1 -t UTF-8"),
    ] {
        folder.write("warrend.toml", bytes);
        let report = folder.faulty();
        assert_eq!(outline(&report), [format!("{place} this file is not UTF-8")]);
        assert!(report.entries[0].help.as_deref().unwrap_or_default().contains(mend), "{report}");
    }
}

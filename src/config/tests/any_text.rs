//! No text makes the loader panic.

use proptest::prelude::*;

use super::Folder;

proptest! {
    #[test]
    fn any_text_gives_a_result(text in ".*\n.*\n.*") {
        drop(Folder::new(&text).load().map_err(|report| report.render(false)));
    }

    #[test]
    fn any_bytes_give_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = Folder::new("");
        folder.write("warrend.toml", &bytes);
        drop(folder.load().map_err(|report| report.render(true)));
    }

    /// Pieces of TOML in any order come nearer to what people write than any text does.
    #[test]
    fn any_mixture_gives_a_result(pieces in proptest::collection::vec(prop_oneof![
        Just("[broker]\n"), Just("urls = "), Just("[\"amqp://u:p@h/"), Just("\"]\n"), Just("[jobs.a]\n"), Just("[[jobs.a.queues]]\n"),
        Just("queue = "), Just("name = \"q\"\n"), Just("{ "), Just(" }"), Just("[jobs.a.handler]\n"), Just("command = [\"x\"]\n"),
        Just("retry.max = "), Just("\"1h\"\n"), Just("1\n"), Just("\n"), Just("\""), Just("'''"), Just("é"), Just("${"), Just("-1.5e9"),
        Just("bindings = "), Just("arguments = "), Just(","), Just("# "), Just("\\"), Just("\r\n"), Just("\u{feff}"), Just("]"),
    ], 0..40)) {
        drop(Folder::new(&pieces.concat()).load().map_err(|report| report.render(false)));
    }
}

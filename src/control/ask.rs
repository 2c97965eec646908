//! The client's side of the socket.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, PATIENCE, Request};

/// For the whole answer: another client may be served first, and what is asked may wait for the store.
const LONG: Duration = PATIENCE.saturating_mul(4);

/// Why a running daemon could not be asked.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens on the socket.
    NotRunning,
    /// The socket is not ours to use.
    Forbidden,
    /// It did not answer, or not sensibly. Whether it did what it was asked is not known.
    Failed(String),
}

/// One request, one answer, within a few seconds.
pub fn ask(path: &Path, request: &Request) -> Result<Answer, AskError> {
    let stream = UnixStream::connect(path).map_err(|error| {
        let kind = error.kind();
        if kind == ErrorKind::NotFound || kind == ErrorKind::ConnectionRefused {
            AskError::NotRunning
        } else if kind == ErrorKind::PermissionDenied {
            AskError::Forbidden
        } else {
            AskError::Failed(error.to_string())
        }
    })?;
    let answer = exchange(stream, request).map_err(|error| AskError::Failed(in_words(&error)))?;
    let Some(line) = answer.strip_suffix('\n') else {
        let heard = if answer.is_empty() { "without an answer" } else { "in the middle of its answer" };
        return Err(AskError::Failed(format!("it hung up {heard}; it may just be ending")));
    };
    serde_json::from_str(line).map_err(|error| AskError::Failed(format!("its answer makes no sense: {error}")))
}

/// Writes the request; what came until the line ended or the daemon hung up.
fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<String> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(LONG))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

/// To the system a timeout is a "Resource temporarily unavailable".
fn in_words(error: &io::Error) -> String {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        format!("nothing was heard of it for {} s", LONG.as_secs())
    } else if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
        "it hung up without an answer; it may just be ending".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_that_is_cut_off_is_told_as_such() {
        for (answer, why) in [
            ("", "it hung up without an answer"),
            ("{\"done\":tr", "it hung up in the middle of its answer"),
            ("{\"done\":true}", "it hung up in the middle of its answer"),
            ("{\"done\":tr\n", "its answer makes no sense"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sock");
            let listener = UnixListener::bind(&path).unwrap();
            let failed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut client, _) = listener.accept().unwrap();
                    BufReader::new(&client).read_line(&mut String::new()).unwrap();
                    client.write_all(answer.as_bytes()).unwrap();
                });
                ask(&path, &Request::Status).unwrap_err()
            });
            assert!(matches!(&failed, AskError::Failed(text) if text.starts_with(why)), "{answer:?}: {failed:?}");
        }
    }
}

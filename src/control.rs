//! The Unix socket: one JSON object a line in, one out.
//!
//! A request is `{"command":"status"}` or `{"command":"pause","job":"…"}`; an answer is the status, `{"done":true}` or
//! `{"error":"…"}`. The thread `control` serves one
//! client at a time, with a deadline for each step, so that a client that hangs delays the next one but nothing else.
//! Who may use it is decided by the permissions of the socket: its owner and group.

mod ask;

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{debug, info};
use rustix::net::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};

pub use ask::{AskError, ask};

use crate::failpoint;
use crate::panel::{Panel, Refusal};
use crate::report::{self, Alerts, FoundAll, Reload, Status, Tested, Upkeep};
use crate::store::{Act, Deed};
use crate::task::MessageKey;
use crate::who::Who;

/// For a client's request, and again for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to accept a client, where the system has nothing left to accept it with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest request, in bytes.
const LONGEST: usize = 64 * 1024;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The whole status.
    Status,
    /// Stop a job's consuming until it is resumed.
    Pause {
        /// Which.
        job: String,
        /// Why.
        reason: Option<String>,
    },
    /// Say which jobs have a key in flight.
    Find {
        /// As `explain` shows it.
        key: String,
    },
    /// Let it go on.
    Resume {
        /// Which.
        job: String,
    },
    /// Forget a key of a job, or all of them.
    Forget {
        /// Which.
        job: String,
        /// As `explain` shows it; all where it is absent.
        key: Option<String>,
    },
    /// Forget what is over, and give room back to the disk.
    Prune,
    /// Say how far that is.
    Pruning,
    /// Write into the audit trail what the client does on the broker.
    Note {
        /// One that is told: see [`Act::is_told`].
        act: Act,
        /// To which job's dead letters.
        job: String,
        /// To how many.
        count: Option<u64>,
        /// Which, or why it ended early.
        detail: Option<String>,
    },
    /// Read the configuration anew.
    Reload {
        /// Only say what that would change.
        check: bool,
    },
    /// Say how all alerts are.
    Alerts,
    /// Tell of a test of an alert.
    Test {
        /// Its name.
        alert: String,
    },
    /// Say how far that is.
    Tested {
        /// Its number.
        test: u64,
    },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Find`].
    Found(FoundAll),
    /// To [`Request::Forget`], [`Request::Prune`] and [`Request::Pruning`].
    Upkeep(Upkeep),
    /// To [`Request::Reload`].
    Reload(Box<Reload>),
    /// To [`Request::Alerts`].
    Alerts(Alerts),
    /// To [`Request::Test`] and [`Request::Tested`].
    Tested(Tested),
    /// To the requests that change something.
    Done {
        /// True.
        done: bool,
    },
    /// The request made no sense, or could not be carried out.
    Error {
        /// Why.
        error: String,
        /// Whether it was the store that could not be written.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        store: bool,
    },
}

impl Answer {
    fn error(error: impl Into<String>) -> Self {
        Self::Error { error: error.into(), store: false }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let Refusal { why, is_of_store } = refusal;
        Self::Error { error: why, store: is_of_store }
    }
}

/// The running control thread.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    /// The thread's own, to wake it.
    listener: UnixListener,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Binds the socket and starts the thread. A socket that nobody answers on is left over and replaced; one that
    /// somebody answers on is an error of kind `AddrInUse`.
    ///
    /// `alive` is dropped when the thread ends, for whatever reason.
    pub fn spawn(path: &Path, panel: Panel, alive: impl Send + 'static) -> io::Result<Self> {
        let listener = bind(path)?;
        let accepting = listener.try_clone()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (path.to_owned(), Arc::clone(&stopping));
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let _alive = alive;
            for client in accepting.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if client.is_err() {
                    // Out of descriptors or memory, mostly: the client still waits, and asking at once would only spin.
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                if let Err(error) = client.and_then(|client| serve(&client, &panel)) {
                    debug!("control: a client was lost: {error}");
                }
            }
        })?;
        Ok(Self { path, listener, stopping, thread })
    }

    /// Tells the thread to end, and removes the socket. Gives the thread to wait for.
    pub fn stop(self) -> JoinHandle<()> {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread from its accept, also where somebody has removed the file.
        if let Err(error) = shutdown(&self.listener, Shutdown::Read) {
            debug!("control: the socket was shut down already: {error}");
        }
        let _ = std::fs::remove_file(&self.path);
        self.thread
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another warrend answers on it"));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
        }
        // Nothing there, or nothing that binding would not tell better.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn serve(client: &UnixStream, panel: &Panel) -> io::Result<()> {
    let line = read_line(client, Instant::now() + PATIENCE)?;
    failpoint::hit("control-asked");
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Status) => Answer::Status(Box::new(panel.status())),
        Ok(Request::Pause { job, reason }) => answer(panel.pause(&job, reason, Who::peer(client)?)),
        Ok(Request::Find { key }) => Answer::Found(FoundAll { found: panel.find(&MessageKey::from_display(&key)) }),
        Ok(Request::Resume { job }) => answer(panel.resume(&job, Who::peer(client)?)),
        Ok(Request::Forget { job, key }) => {
            let what = key.as_deref().map_or_else(|| "everything".to_owned(), |key| format!("{key:?}"));
            let by = Who::peer(client)?;
            info!("the store forgets {what} of job {job:?}, if nothing stands against it, for {by}");
            upkeep(panel.forget(&job, key.as_deref().map(MessageKey::from_display), by))
        }
        Ok(Request::Prune) => {
            let by = Who::peer(client)?;
            info!("the store forgets what is over, for {by}");
            upkeep(panel.upkeep(Some(by)))
        }
        Ok(Request::Pruning) => upkeep(panel.upkeep(None)),
        Ok(Request::Note { act, job, count, detail }) if act.is_told() => {
            answer(panel.note(Deed { count, detail, ..Deed::new(Who::peer(client)?, act).to(&job) }))
        }
        Ok(Request::Note { act, .. }) => Answer::error(format!("\"{}\" is written by the daemon alone", act.as_str())),
        Ok(Request::Reload { check }) => match panel.reload(check, Who::peer(client)?) {
            Ok(reload) => Answer::Reload(Box::new(reload)),
            Err(error) => Answer::error(error),
        },
        Ok(Request::Alerts) => {
            let alerts = |alerts| Answer::Alerts(Alerts { schema: report::SCHEMA, alerts });
            panel.alerts().map_or_else(Answer::error, alerts)
        }
        Ok(Request::Test { alert }) => {
            info!("alert {alert:?} is tested by {}", Who::peer(client)?);
            tested(panel.test_alert(alert))
        }
        Ok(Request::Tested { test }) => tested(panel.tested_alert(test)),
        Err(error) => Answer::error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write(client, &text, Instant::now() + PATIENCE)
}

/// What came up to a newline, to the end, or to the longest that a request may be. A client that sends a byte now and then
/// is not waited for longer than one that sends nothing.
fn read_line(mut client: &UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let (mut line, mut chunk) = (Vec::new(), [0; 4096]);
    while line.len() < LONGEST {
        client.set_read_timeout(Some(left(deadline)?))?;
        let read = match client.read(&mut chunk) {
            // A signal that this thread was interrupted by: with a timeout the kernel does not go on by itself.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        line.extend_from_slice(&chunk[..read]);
        if read == 0 || chunk[..read].contains(&b'\n') {
            break;
        }
    }
    let end = line.iter().position(|byte| *byte == b'\n');
    line.truncate(end.unwrap_or(line.len()));
    Ok(line)
}

/// The same for a client that reads a byte now and then.
fn write(mut client: &UnixStream, mut text: &[u8], deadline: Instant) -> io::Result<()> {
    while !text.is_empty() {
        client.set_write_timeout(Some(left(deadline)?))?;
        match client.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn answer(done: Result<(), Refusal>) -> Answer {
    done.map_or_else(Answer::from, |()| Answer::Done { done: true })
}

fn upkeep(done: Result<Upkeep, Refusal>) -> Answer {
    done.map_or_else(Answer::from, Answer::Upkeep)
}

fn tested(tested: Result<Tested, String>) -> Answer {
    tested.map_or_else(Answer::error, Answer::Tested)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    /// Of a daemon whose threads have ended: whatever is asked is answered at once.
    fn panel() -> Panel {
        let (recorder, main) = (crossbeam_channel::bounded(1).0, crossbeam_channel::bounded(1).0);
        Panel { main, recorder, alerts: crossbeam_channel::bounded(1).0, started: Instant::now() }
    }

    /// What a client gets that sends these bytes and no more.
    fn answered(bytes: &[u8]) -> Vec<u8> {
        let (mut client, server) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || serve(&server, &panel()));
            // A server that has read enough hangs up.
            let _ = client.write_all(bytes).and_then(|()| client.shutdown(std::net::Shutdown::Write));
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer);
            answer
        })
    }

    #[test]
    fn a_request_is_answered_with_one_line() {
        let check = |request: &str, part: &str| {
            let answer = String::from_utf8(answered(request.as_bytes())).unwrap();
            assert!(answer.ends_with('\n') && answer.contains(part), "{request}: {answer}");
        };
        check("{\"command\":\"status\"}\n", "\"schema\":1");
        check("{\"command\":\"status\"}", "\"schema\":1");
        check("{\"command\":\"find\",\"key\":\"7\"}\n", "\"found\":[]");
        check("{\"command\":\"resume\",\"job\":\"j\"}\n", "main thread does not answer");
        check("{\"command\":\"reload\",\"check\":true}\n", "takes no reload now");
        check("{\"command\":\"find\",\"key\":\"7\",\"x\":1}\n", "not a request");
        check("{\"command\":\"format\"}\n", "not a request");
        check("{\"command\":\"note\",\"act\":\"paused\",\"job\":\"j\"}\n", "is written by the daemon alone");
        check("{\"command\":\"note\",\"act\":\"purged\",\"job\":\"j\"}\n", "the recorder does not answer");
        check("\n", "not a request");
        check("", "not a request");
    }

    #[test]
    fn a_request_without_end_is_cut() {
        let answer = answered(&vec![b' '; 3 * LONGEST]);
        assert!(answer.is_empty() || answer.starts_with(b"{\"error\":"));
    }

    /// Both sides, and whatever the other side says.
    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        fn garbage() -> impl Strategy<Value = Vec<u8>> {
            let key = prop_oneof![any::<String>(), "sha256:[0-9a-fA-Z+]{60,66}", "[0-9a-f-]{36}"];
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                any::<String>().prop_map(String::into_bytes),
                key.prop_map(|key| serde_json::json!({"command": "find", "key": key}).to_string().into_bytes()),
                ("(status|pause|resume|find|reload|Status|)", any::<Option<String>>(), any::<Option<String>>())
                    .prop_map(|(command, job, reason)| {
                        let request = serde_json::json!({"command": command, "job": job, "reason": reason});
                        request.to_string().into_bytes()
                    },),
                "\\{\"command\":\"(pause|find)\",\"[a-z]{1,6}\":[\\[\\{\"0-9ex,:]{0,60}".prop_map(String::into_bytes),
                (1..100_000_usize).prop_map(|deep| "[".repeat(deep).into_bytes()),
            ]
        }

        proptest! {
            #[test]
            fn any_request_is_answered_or_hung_up_on(bytes in garbage()) {
                let answer = answered(&bytes);
                if std::str::from_utf8(&bytes).is_ok() && bytes.len() < LONGEST {
                    prop_assert!(serde_json::from_slice::<Answer>(&answer).is_ok(), "{:?}", String::from_utf8_lossy(&answer));
                }
                prop_assert!(answer.iter().filter(|byte| **byte == b'\n').count() <= 1);
            }

            #[test]
            fn any_answer_is_understood_or_told(bytes in garbage()) {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("sock");
                let listener = UnixListener::bind(&path).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let (mut client, _) = listener.accept().unwrap();
                        let mut line = String::new();
                        BufReader::new(&client).read_line(&mut line).unwrap();
                        // The client may have heard enough.
                        let _ = client.write_all(&bytes);
                    });
                    match ask(&path, &Request::Status) {
                        Ok(_) => Ok(()),
                        Err(AskError::Failed(why)) => {
                            prop_assert!(!why.is_empty() && !why.contains('\n'), "{:?}", why);
                            Ok(())
                        }
                        Err(other @ (AskError::NotRunning | AskError::Forbidden)) => {
                            Err(TestCaseError::fail(format!("{other:?}")))
                        }
                    }
                })?;
            }
        }
    }
}

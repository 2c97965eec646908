//! `[http]`: metrics and health over HTTP, to be read only.
//!
//! The thread `web` accepts, and each client has a thread of its own for the seconds that it takes: one that hangs holds up
//! nobody. There are at most [`MOST_CLIENTS`]; then the oldest one that has not asked yet gives way. Only the thread `web:ask`
//! has the panel, and what waits for it meanwhile shares the next answer: a hundred clients cost the jobs one question.
//!
//! There is no keeping alive, no TLS and no login: it is meant for a loopback address, or for a proxy before it. Not written with
//! a library: tiny_http has had no release for years and bounds neither threads nor time, and the others are async. What is
//! parsed, the head of a request, `httparse` parses.

mod answer;
mod request;

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{debug, warn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use self::answer::{Answer, Desk, Waiting};
use crate::failpoint;
use crate::panel::{Look, Panel};

/// Clients at one time. A Prometheus is one, for some milliseconds.
const MOST_CLIENTS: usize = 128;
/// For a client's request, and again for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what a client still sends after its answer: closed before it is read, the answer might not arrive.
const LINGER: Duration = Duration::from_millis(500);
/// Of the thread of a client. What it needs most for is a page as it is written.
const STACK: usize = 512 * 1024;
/// Between two tries to accept a client, where the system has nothing left to accept it with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which thread has not turned its loop for long, if any.
pub type Hanging = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The running server.
#[derive(Debug)]
pub struct Web {
    stopping: Arc<OwnedFd>,
    thread: JoinHandle<()>,
    desk: JoinHandle<()>,
}

/// Takes the address. Called before anything else is started: where somebody else has it, nothing has happened yet.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    // A client may be gone between the poll that announced it and the accept.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Web {
    /// Starts both threads. `alive` is dropped when one of them ends, for whatever reason.
    pub fn spawn<A: Send + 'static>(
        listener: TcpListener,
        panel: Panel,
        hanging: Hanging,
        alive: impl Fn() -> A,
    ) -> io::Result<Self> {
        // As many questions as clients can ask, so that none waits to ask.
        let (questions, inbox) = crossbeam_channel::bounded(MOST_CLIENTS);
        let desk_alive = alive();
        let desk = std::thread::Builder::new().name("web:ask".to_owned()).spawn(move || {
            let _alive = desk_alive;
            answer_all(&inbox, &panel);
        })?;
        let stopping = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let desk_of = Desk { questions, hanging };
        let (stopped, alive) = (Arc::clone(&stopping), alive());
        let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || {
            let _alive = alive;
            let mut server = Server { listener, stopped, desk: desk_of, clients: Vec::new() };
            server.run();
            server.end();
        })?;
        Ok(Self { stopping, thread, desk })
    }

    /// Tells the threads to hang up on all clients and to end. Gives the threads to wait for.
    pub fn stop(self) -> [JoinHandle<()>; 2] {
        // Only a full counter would refuse it, and that wakes the thread too.
        let _ = rustix::io::write(&self.stopping, &1_u64.to_ne_bytes());
        // With the last client gone nobody can ask.
        [self.thread, self.desk]
    }
}

/// The thread `web:ask`: one look for all that wait for one.
fn answer_all(inbox: &Receiver<Waiting>, panel: &Panel) {
    while let Ok(first) = inbox.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).collect();
        failpoint::hit("web-asked");
        let look: Arc<Look> = Arc::new(panel.look());
        for reply in waiting {
            // A client that gave up has dropped its end.
            let _ = reply.try_send(Arc::clone(&look));
        }
    }
}

struct Server {
    listener: TcpListener,
    stopped: Arc<OwnedFd>,
    desk: Desk,
    clients: Vec<Client>,
}

/// One connection and its thread.
struct Client {
    stream: Arc<TcpStream>,
    /// Its request is read.
    has_asked: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Server {
    fn run(&mut self) {
        while self.wait() {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    failpoint::hit("web-accepted");
                    self.admit(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors or memory, mostly: the client still waits, and asking at once would only spin.
                    debug!("http: cannot accept a client: {error}");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Waits for a client; false once the server is to stop.
    fn wait(&self) -> bool {
        let mut sources = [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&*self.stopped, PollFlags::IN)];
        match poll(&mut sources, None) {
            Ok(_) => sources[1].revents().is_empty(),
            // A signal: look again.
            Err(rustix::io::Errno::INTR) => true,
            Err(error) => {
                warn!("http: cannot wait for clients, and stops: {error}");
                false
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) {
        self.clients.retain(|client| !client.thread.is_finished());
        if self.clients.len() >= MOST_CLIENTS && !self.make_room() {
            let busy = Answer::plain(503, "too many clients at one time\n");
            // There is room for that much in the socket of a client that has just come.
            let _ = stream.set_nonblocking(true).and_then(|()| (&stream).write_all(&busy.to_bytes(true)));
            return;
        }
        let (stream, has_asked) = (Arc::new(stream), Arc::new(AtomicBool::new(false)));
        let (served, asked, desk) = (Arc::clone(&stream), Arc::clone(&has_asked), self.desk.clone());
        let thread = std::thread::Builder::new().name("web:client".to_owned()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            if let Err(error) = serve(&served, &asked, &desk) {
                debug!("http: a client was lost: {error}");
            }
        });
        match spawned {
            Ok(thread) => self.clients.push(Client { stream, has_asked, thread }),
            Err(error) => debug!("http: cannot start a thread for a client: {error}"),
        }
    }

    /// Hangs up on the oldest client that has not asked yet.
    fn make_room(&mut self) -> bool {
        let Some(oldest) = self.clients.iter().position(|client| !client.has_asked.load(Ordering::Relaxed)) else {
            return false;
        };
        hang_up(&self.clients.remove(oldest).stream);
        true
    }

    /// What a client is being told may be cut short: systemd waits.
    fn end(self) {
        for client in &self.clients {
            hang_up(&client.stream);
        }
        for client in self.clients {
            // One that panicked has been printed.
            let _ = client.thread.join();
        }
    }
}

/// Whoever reads from it or writes to it comes back at once.
fn hang_up(stream: &TcpStream) {
    // One that has gone already cannot be shut down.
    let _ = stream.shutdown(Shutdown::Both);
}

/// One request, one answer.
fn serve(stream: &TcpStream, has_asked: &AtomicBool, desk: &Desk) -> io::Result<()> {
    let asked = request::read(stream, Instant::now() + PATIENCE)?;
    has_asked.store(true, Ordering::Relaxed);
    let (answer, with_body) = match asked {
        Ok(request) => (desk.answer(&request), request.wants_body()),
        Err(refusal) => (Answer::refusal(refusal), true),
    };
    request::write(stream, &answer.to_bytes(with_body), Instant::now() + PATIENCE)?;
    stream.shutdown(Shutdown::Write)?;
    request::drain(stream, Instant::now() + LINGER);
    Ok(())
}

#[cfg(test)]
mod tests;

//! Two small parts that are put into ureq: the look-up of the host's name, and a note of each new connection.
//!
//! ureq looks the name up before each request, also where it has a connection, and starts a thread for each look-up. A
//! daemon that sends a thousand requests a second must not ask the name server as often.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, Transport};

/// How long found addresses are good for; after a failure they are not.
const FRESH: Duration = Duration::from_secs(10);

/// Looks up one host's name, in the thread of the request, and keeps what it found for a moment.
///
/// Behind a lock since ureq asks for it; only one thread ever takes it.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<Mutex<Option<Found>>>);

#[derive(Debug)]
struct Found {
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl Names {
    /// Looks the name up anew next time.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found.as_ref().filter(|found| found.at.elapsed() < FRESH) {
            let mut addresses = self.empty();
            found.addresses.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        // Without a timeout there is no thread: the worker thread, which waits for all of it, has the deadline.
        let addresses = DefaultResolver::default().resolve(uri, config, NextTimeout::default())?;
        *found = Some(Found { at: Instant::now(), addresses: addresses.to_vec() });
        Ok(addresses)
    }
}

/// Tells whether a request made a new connection or was sent on one that was there.
#[derive(Debug, Clone, Default)]
pub struct Fresh(Arc<AtomicBool>);

impl Fresh {
    /// Before a request.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// After it: whether it made a connection.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<In: Transport> Connector<In> for Fresh {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails<'_>, connected: Option<In>) -> Result<Option<In>, ureq::Error> {
        self.0.store(true, Ordering::Relaxed);
        Ok(connected)
    }
}

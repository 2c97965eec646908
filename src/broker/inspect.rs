//! Asking without changing: what is there, and what our user may do with it.
//!
//! Whether something exists is a passive declaration, for which RabbitMQ asks no right. The rights are found out by what the
//! broker answers to requests that it can never carry out, since it looks at the right before anything else: 403 where it
//! is missing, another refusal where it is there.
//!
//! | Right | Request | Why nothing comes of it |
//! | --- | --- | --- |
//! | configure | to declare the queue with `x-expires = 0` | 406: no queue can have that; one that stands has something else |
//! | read | to consume it with a priority that is text | 406: a priority is a number; 404 where the queue is missing |
//! | write | to take away a binding that nobody has | there is nothing to take away |
//!
//! Each refusal costs a channel, and a line in the broker's log. Tried on RabbitMQ 3.10.

use std::net::TcpStream;
use std::time::Duration;

use amiquip::{AmqpValue, Channel, Connection, ConsumerOptions, Error, FieldTable, QueueDeclareOptions};

use super::connect::{Link, close};
use super::deadline::cut_after;
use super::error::{ACCESS_REFUSED, BrokerError, NO_ANSWER, NOT_FOUND, channel_closed, describe};
use super::session::Counts;

/// How long one question to the broker may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long closing may take before the socket is cut.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// A binding of this key is nobody's.
const NOBODYS_KEY: &str = "warrend-check.a-key-that-nobody-binds";

/// What a user may do with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Declare and delete it.
    Configure,
    /// Bind it.
    Write,
    /// Consume it.
    Read,
}

/// A connection that only asks. After an error other than [`BrokerError::Topology`] it is over.
pub struct Probe<'l> {
    connection: &'l mut Connection,
    channel: Option<Channel>,
    socket: &'l TcpStream,
    host: &'l str,
}

/// Lends the connection to `body`, and closes it afterwards.
pub fn with_probe<R>(link: Link, body: impl FnOnce(&mut Probe<'_>) -> R) -> R {
    let Link { mut connection, socket, host, .. } = link;
    let mut probe = Probe { connection: &mut connection, channel: None, socket: &socket, host: &host };
    let result = body(&mut probe);
    let channel = probe.channel.take();
    cut_after(&socket, CLOSE_LIMIT, || drop(channel));
    close(connection, &socket, CLOSE_LIMIT);
    result
}

impl Probe<'_> {
    /// What the broker counts for a queue; `None` where there is no such queue.
    pub fn queue(&mut self, name: &str) -> Result<Option<Counts>, BrokerError> {
        let found = self.ask(|channel| Counts::ask(channel, name));
        self.unless_missing(found, &format!("queue {name:?}"))
    }

    /// Whether an exchange exists. The default exchange always does.
    pub fn exchange(&mut self, name: &str) -> Result<bool, BrokerError> {
        if name.is_empty() {
            return Ok(true);
        }
        let found = self.ask(|channel| channel.exchange_declare_passive(name).map(drop));
        Ok(self.unless_missing(found, &format!("exchange {name:?}"))?.is_some())
    }

    /// Whether our user has a right on a queue, there or not.
    pub fn may(&mut self, right: Right, queue: &str) -> Result<bool, BrokerError> {
        let asked = match right {
            Right::Configure => self.ask(|channel| {
                let arguments = [("x-expires".to_owned(), AmqpValue::LongInt(0))].into_iter().collect();
                let options = QueueDeclareOptions { durable: true, arguments, ..QueueDeclareOptions::default() };
                channel.queue_declare(queue, options).map(drop)
            }),
            Right::Read => self.ask(|channel| {
                let arguments: FieldTable =
                    [("x-priority".to_owned(), AmqpValue::LongString("none".to_owned()))].into_iter().collect();
                let options = ConsumerOptions { arguments, ..ConsumerOptions::default() };
                channel.basic_consume(queue, options).map(drop)
            }),
            // From an exchange that every virtual host has. It takes a right to read that too.
            Right::Write => {
                self.ask(|channel| channel.queue_unbind(queue, "amq.topic", NOBODYS_KEY, FieldTable::new()))
            }
        };
        match asked {
            Ok(()) => Ok(true),
            Err(Refusal { closed: Some((ACCESS_REFUSED, text)), .. }) => {
                // The other thing that the request needs a right for.
                Ok(text.contains("exchange 'amq.topic'"))
            }
            Err(Refusal { closed: Some(_), .. }) => Ok(true),
            Err(Refusal { error, closed: None }) => Err(error),
        }
    }

    /// `None` for what is not there.
    fn unless_missing<T>(&self, found: Result<T, Refusal>, what: &str) -> Result<Option<T>, BrokerError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Refusal { closed: Some((NOT_FOUND, _)), .. }) => Ok(None),
            Err(Refusal { closed: Some((_, text)), .. }) => {
                let reason = format!("cannot look at {what}: {text}");
                Err(BrokerError::Topology { host: self.host.to_owned(), reason })
            }
            Err(Refusal { error, closed: None }) => Err(error),
        }
    }

    /// Asks one question on a channel, which is opened when needed, and again after each "no".
    fn ask<T>(&mut self, question: impl FnOnce(&Channel) -> Result<T, Error>) -> Result<T, Refusal> {
        let (channel, connection) = (self.channel.take(), &mut *self.connection);
        let (asked, overdue) = cut_after(self.socket, CALL_LIMIT, || {
            let channel = match channel {
                Some(channel) => channel,
                None => connection.open_channel(None)?,
            };
            question(&channel).map(|answer| (answer, channel))
        });
        match asked {
            Ok((answer, channel)) => {
                self.channel = Some(channel);
                Ok(answer)
            }
            Err(error) => {
                let closed = channel_closed(&error).map(|why| (why.code, why.text));
                let reason = if overdue { NO_ANSWER.to_owned() } else { describe(&error) };
                Err(Refusal { closed, error: BrokerError::Lost { host: self.host.to_owned(), reason } })
            }
        }
    }
}

/// Why a question has no answer.
struct Refusal {
    /// The code and the words of a broker that closed the channel; the connection stands.
    closed: Option<(u16, String)>,
    /// What it means where nobody looks at the code.
    error: BrokerError,
}

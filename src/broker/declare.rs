//! Carries out the steps of a topology on short-lived channels: a "no" of the broker closes the channel that asked.

use std::collections::BTreeSet;

use amiquip::{
    Channel, Connection, Error, ExchangeDeclareOptions, ExchangeType, FieldTable, QueueDeclareOptions, Result,
};

use super::convert::arguments_to_amqp;
use super::error::{NOT_FOUND, PRECONDITION_FAILED, channel_closed};
use crate::policy::topology::{Presence, Step};
use crate::task::HeaderValue;

/// Why a topology could not be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A queue or exchange that must be there is not.
    Missing(String),
    /// The broker or the connection failed.
    Broker(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

/// Makes everything in `steps` exist, or as much of it as can be had; the error is about the first that cannot.
///
/// What others may have declared differently is looked up first, one round trip each. The ladder and all bindings then
/// go out in one stream without waiting, as declaring and binding what stands already changes nothing; an error among
/// them surfaces when their channel is closed. Then all of them go the slow way: what a user may not declare may stand
/// already, and one queue whose node is down must not cost the others their bindings.
pub(super) fn declare(connection: &mut Connection, steps: &[Step]) -> Result<(), Trouble> {
    let mut desk = Desk { connection, channel: None };
    let mut lacks = Lacks::default();
    let (wait, stream): (Vec<_>, Vec<_>) = steps.iter().partition(|step| is_foreign(step));
    for step in wait {
        let done = desk.carefully(step);
        lacks.note(step, done)?;
    }
    let stream: Vec<_> = stream.into_iter().filter(|step| !lacks.concern(step)).collect();
    match desk.in_one_stream(&stream) {
        Ok(()) => {}
        Err(error) => {
            let why = channel_closed(&error);
            match why.as_ref().map(|why| why.code) {
                None => return Err(error.into()),
                // Only a declaration compares arguments: the slow way, which looks first, would take a wrong one for right.
                Some(PRECONDITION_FAILED) => lacks.first = Some(error.into()),
                Some(_) => {}
            }
            for step in stream {
                if !lacks.concern(step) {
                    let done = desk.carefully(step);
                    lacks.note(step, done)?;
                }
            }
        }
    }
    lacks.first.map_or(Ok(()), Err)
}

/// What could not be had.
#[derive(Default)]
struct Lacks<'s> {
    names: BTreeSet<&'s str>,
    first: Option<Trouble>,
}

impl<'s> Lacks<'s> {
    /// Takes note of a refusal that concerns this step only; any other error ends it all.
    fn note(&mut self, step: &'s Step, done: Result<(), Trouble>) -> Result<(), Trouble> {
        let trouble = match done {
            Ok(()) => return Ok(()),
            Err(Trouble::Broker(error)) if channel_closed(&error).is_none() => return Err(error.into()),
            Err(trouble) => trouble,
        };
        match step {
            Step::Queue { name, .. } | Step::Exchange { name, .. } => drop(self.names.insert(name)),
            Step::BindQueue { .. } | Step::BindExchange { .. } => {}
        }
        self.first.get_or_insert(trouble);
        Ok(())
    }

    /// Whether a step needs what could not be had.
    fn concern(&self, step: &Step) -> bool {
        match step {
            Step::Queue { .. } | Step::Exchange { .. } => false,
            Step::BindQueue { queue: to, exchange: from, .. }
            | Step::BindExchange { destination: to, source: from, .. } => {
                self.names.contains(to.as_str()) || self.names.contains(from.as_str())
            }
        }
    }
}

/// Whether a step names something that others may have made with other arguments.
fn is_foreign(step: &Step) -> bool {
    match step {
        Step::Queue { presence, .. } | Step::Exchange { presence, .. } => match presence {
            Presence::Required | Presence::Wanted => true,
            Presence::Ours => false,
        },
        Step::BindQueue { .. } | Step::BindExchange { .. } => false,
    }
}

/// Where questions are asked: a channel that is opened when needed, and again after each "no".
struct Desk<'c> {
    connection: &'c mut Connection,
    channel: Option<Channel>,
}

impl Desk<'_> {
    /// Asks one question, and waits for the answer.
    fn ask<T>(&mut self, question: impl FnOnce(&Channel) -> Result<T>) -> Result<T> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.open_channel(None)?,
        };
        let answer = question(&channel)?;
        // Not kept after an error: the broker has closed it.
        self.channel = Some(channel);
        Ok(answer)
    }

    /// One step with all its round trips: look first, create only what is missing.
    fn carefully(&mut self, step: &Step) -> Result<(), Trouble> {
        let (presence, looked) = match step {
            Step::Queue { name, presence, .. } => {
                (presence, self.ask(|channel| channel.queue_declare_passive(name).map(drop)))
            }
            Step::Exchange { name, presence, .. } => {
                (presence, self.ask(|channel| channel.exchange_declare_passive(name).map(drop)))
            }
            Step::BindQueue { .. } | Step::BindExchange { .. } => {
                return Ok(self.ask(|channel| perform(channel, step, Answer::Awaited))?);
            }
        };
        match (looked, presence) {
            (Ok(()), _) => Ok(()),
            (Err(error), presence) if is_missing(&error) => match presence {
                Presence::Required => Err(Trouble::Missing(missing(step))),
                Presence::Wanted | Presence::Ours => Ok(self.ask(|channel| perform(channel, step, Answer::Awaited))?),
            },
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Many steps with one round trip, or rather two: a channel is opened, and closed.
    fn in_one_stream(&mut self, steps: &[&Step]) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.open_channel(None)?,
        };
        for step in steps {
            perform(&channel, step, Answer::Unasked)?;
        }
        // The broker answers in order: when it confirms the closing, it has done all steps before it, and when one of
        // them failed, it closes the channel for that first, which is the error that comes back here.
        channel.close()
    }
}

/// Whether a declaration waits for the broker's word.
#[derive(Clone, Copy)]
enum Answer {
    Awaited,
    Unasked,
}

fn perform(channel: &Channel, step: &Step, answer: Answer) -> Result<()> {
    match (step, answer) {
        (Step::Exchange { name, kind, alternate, .. }, answer) => {
            let options = durable_exchange(alternate.as_deref());
            match answer {
                Answer::Awaited => channel.exchange_declare(exchange_type(kind), name, options).map(drop),
                Answer::Unasked => channel.exchange_declare_nowait(exchange_type(kind), name, options).map(drop),
            }
        }
        (Step::Queue { name, arguments, .. }, answer) => {
            let options = QueueDeclareOptions {
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments: arguments_to_amqp(arguments),
            };
            match answer {
                Answer::Awaited => channel.queue_declare(name, options).map(drop),
                Answer::Unasked => channel.queue_declare_nowait(name, options).map(drop),
            }
        }
        (Step::BindQueue { queue, exchange, routing_key }, Answer::Awaited) => {
            channel.queue_bind(queue, exchange, routing_key, FieldTable::new())
        }
        (Step::BindQueue { queue, exchange, routing_key }, Answer::Unasked) => {
            channel.queue_bind_nowait(queue, exchange, routing_key, FieldTable::new())
        }
        (Step::BindExchange { destination, source, routing_key }, Answer::Awaited) => {
            channel.exchange_bind(destination, source, routing_key, FieldTable::new())
        }
        (Step::BindExchange { destination, source, routing_key }, Answer::Unasked) => {
            channel.exchange_bind_nowait(destination, source, routing_key, FieldTable::new())
        }
    }
}

fn durable_exchange(alternate: Option<&str>) -> ExchangeDeclareOptions {
    let alternate = alternate.map(|name| ("alternate-exchange".to_owned(), HeaderValue::Text(name.to_owned())));
    let arguments = arguments_to_amqp(alternate.as_slice());
    ExchangeDeclareOptions { durable: true, auto_delete: false, internal: false, arguments }
}

fn exchange_type(kind: &str) -> ExchangeType {
    match kind {
        "direct" => ExchangeType::Direct,
        "fanout" => ExchangeType::Fanout,
        "topic" => ExchangeType::Topic,
        "headers" => ExchangeType::Headers,
        other => ExchangeType::Custom(other.to_owned()),
    }
}

fn is_missing(error: &Error) -> bool {
    channel_closed(error).is_some_and(|why| why.code == NOT_FOUND)
}

/// What to tell about a queue that had to be there.
fn missing(step: &Step) -> String {
    match step {
        Step::Queue { name, .. } => {
            format!("queue {name:?} does not exist and declare = \"passive\": create it, or set declare = \"create\"")
        }
        Step::Exchange { name, .. } => format!("exchange {name:?} does not exist: create it"),
        Step::BindQueue { .. } | Step::BindExchange { .. } => "a binding is missing".to_owned(),
    }
}

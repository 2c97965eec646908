//! Carries out the steps of a topology on short-lived channels: a "no" of the broker closes the channel that asked.

use amiquip::{
    Channel, Connection, Error, ExchangeDeclareOptions, ExchangeType, FieldTable, QueueDeclareOptions, Result,
};

use super::convert::arguments_to_amqp;
use super::error::{ACCESS_REFUSED, NOT_FOUND, channel_closed};
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

/// Makes everything in `steps` exist.
///
/// What others may have declared differently is looked up first, one round trip each. The ladder and all bindings then
/// go out in one stream without waiting, as declaring and binding what stands already changes nothing; an error among
/// them surfaces when their channel is closed. A user who may not declare gets the slow way for the ladder too: it may
/// stand already.
pub(super) fn declare(connection: &mut Connection, steps: &[Step]) -> Result<(), Trouble> {
    let mut desk = Desk { connection, channel: None };
    let (wait, stream): (Vec<_>, Vec<_>) = steps.iter().partition(|step| is_foreign(step));
    for step in wait {
        desk.carefully(step)?;
    }
    match desk.in_one_stream(&stream) {
        Err(error) if channel_closed(&error).is_some_and(|why| why.code == ACCESS_REFUSED) => {
            for step in stream {
                desk.carefully(step)?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
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

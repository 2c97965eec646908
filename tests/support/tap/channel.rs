//! One channel: what is open on it, and what may be sent.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::book::Book;
use super::content::Content;
use super::method::Method;

/// How the name of a queue begins that stands for the connection of somebody who waits for a reply: RabbitMQ would return
/// every message to one that is published as mandatory.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Channel {
    state: State,
    /// Of the next consumer.
    prefetch: Option<u16>,
    /// Whether the last declaration only looked.
    passive: bool,
    /// Asked for, and not answered.
    consuming: VecDeque<Consumer>,
    consumers: HashMap<String, Consumer>,
    /// Unacknowledged deliveries by tag.
    open: BTreeMap<u64, Delivery>,
    delivered: u64,
    confirms: bool,
    published: u64,
    unconfirmed: BTreeMap<u64, Publish>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum State {
    /// Not opened, or closed and confirmed.
    #[default]
    Shut,
    Open,
    /// The daemon has asked to close it.
    Closing,
}

#[derive(Debug)]
struct Consumer {
    queue: String,
    prefetch: u16,
    unacked: u16,
}

#[derive(Debug)]
struct Delivery {
    consumer: String,
    queue: String,
    content: Content,
}

#[derive(Debug)]
struct Publish {
    exchange: String,
    key: String,
    content: Content,
    returned: bool,
}

impl Channel {
    /// Whether the daemon may send that, or a part of a message, which is no method.
    pub fn may_send(&self, method: Option<&Method>) -> Result<(), String> {
        let (state, allowed) = match self.state {
            State::Open => return Ok(()),
            State::Shut => ("not open", method.is_some_and(|it| matches!(it, Method::ChannelOpen))),
            State::Closing => ("being closed", method.is_some_and(|it| matches!(it, Method::ChannelCloseOk))),
        };
        let what = method.map_or_else(|| "a part of a message".to_owned(), Method::to_string);
        if allowed { Ok(()) } else { Err(format!("{what} is sent on a channel that is {state}")) }
    }

    /// The daemon has sent a method without content.
    pub fn sent(&mut self, method: Method, book: &mut Book) {
        match method {
            Method::ChannelOpen => *self = Self { state: State::Open, ..Self::default() },
            Method::ChannelClose(why) => {
                self.state = State::Closing;
                if why.is_trouble() {
                    book.violation(format!("the daemon closes a channel: {why}"));
                }
            }
            Method::ChannelCloseOk => self.state = State::Shut,
            Method::QueueDeclare { passive, .. } | Method::ExchangeDeclare { passive, .. } => self.passive = passive,
            Method::Qos { global: true, .. } => book.violation("a prefetch for the whole channel is set".to_owned()),
            Method::Qos { prefetch, .. } => self.prefetch = Some(prefetch),
            Method::Consume { queue, no_ack, .. } => self.consume(queue, no_ack, book),
            Method::Ack { tag, multiple } => self.ack(tag, multiple, book),
            Method::Nack { tag, multiple, requeue } => self.nack(tag, multiple, requeue, book),
            Method::ConfirmSelect => self.confirms = true,
            Method::Get | Method::Reject | Method::Recover => {
                book.violation(format!("{method} is sent, which warrend never does"));
            }
            // Questions, and what only the broker sends.
            Method::Cancel { .. }
            | Method::Publish { .. }
            | Method::Other(..)
            | Method::Tune { .. }
            | Method::TuneOk { .. }
            | Method::ConnectionClose(_)
            | Method::ConnectionCloseOk
            | Method::ChannelOpenOk
            | Method::ConsumeOk { .. }
            | Method::CancelOk { .. }
            | Method::Return { .. }
            | Method::Deliver { .. }
            | Method::GetOk => {}
        }
    }

    fn consume(&mut self, queue: String, no_ack: bool, book: &mut Book) {
        if no_ack {
            book.violation(format!("{queue} is consumed without acknowledgements"));
        }
        let prefetch = self.prefetch.unwrap_or(0);
        if prefetch == 0 {
            book.violation(format!("{queue} is consumed without a prefetch"));
        }
        self.consuming.push_back(Consumer { queue, prefetch, unacked: 0 });
    }

    fn ack(&mut self, tag: u64, multiple: bool, book: &mut Book) {
        book.tally.acks += 1;
        let what = if multiple { format!("acks all up to tag {tag}") } else { format!("acks tag {tag}") };
        for (covered, delivery) in self.release(tag, multiple, &what, book) {
            let what = if covered == tag { what.clone() } else { format!("{what}, with it {covered}, which is open") };
            book.judge_ack(&delivery.queue, &delivery.content, &what);
        }
    }

    fn nack(&mut self, tag: u64, multiple: bool, requeue: bool, book: &mut Book) {
        let what = format!("hands tag {tag} back");
        if !requeue {
            book.violation(format!("{what} without requeueing it, which drops it"));
        }
        book.tally.handed_back += self.release(tag, multiple, &what, book).len() as u64;
    }

    /// Takes what an ack or nack is about.
    fn release(&mut self, tag: u64, multiple: bool, what: &str, book: &mut Book) -> Vec<(u64, Delivery)> {
        if !self.open.contains_key(&tag) {
            let why = if tag > self.delivered { "it was never delivered" } else { "it was settled before" };
            book.violation(format!("{what}: {why} on this channel"));
        }
        let covered: Vec<_> = if multiple {
            let later = self.open.split_off(&tag.saturating_add(1));
            std::mem::replace(&mut self.open, later).into_iter().collect()
        } else {
            self.open.remove(&tag).map(|delivery| (tag, delivery)).into_iter().collect()
        };
        for (_, delivery) in &covered {
            if let Some(consumer) = self.consumers.get_mut(&delivery.consumer) {
                consumer.unacked -= 1;
            }
        }
        covered
    }

    /// The daemon has sent a message: method and content header.
    pub fn sent_message(&mut self, method: Method, content: Content, book: &mut Book) {
        let Method::Publish { exchange, key, mandatory, immediate } = method else { return };
        book.tally.publishes += 1;
        let to = format!("exchange {exchange:?} with routing key {key:?}");
        if !self.confirms {
            book.violation(format!("a message is published to {to} on a channel that is not in confirm mode"));
        }
        let direct_reply = exchange.is_empty() && key.starts_with(DIRECT_REPLY);
        if !mandatory && !direct_reply {
            book.violation(format!("a message is published to {to} and is not mandatory"));
        }
        if immediate {
            book.violation(format!("a message is published to {to} as immediate, which RabbitMQ does not know"));
        }
        book.judge_copy(&content);
        self.published += 1;
        self.unconfirmed.insert(self.published, Publish { exchange, key, content, returned: false });
    }

    /// The daemon was told a method without content.
    pub fn told(&mut self, method: Method, book: &mut Book) {
        if method == Method::ChannelCloseOk {
            self.state = State::Shut;
        } else if let Method::ChannelClose(why) = method {
            book.judge_close(false, &why, self.passive);
        } else if let Method::ConsumeOk { tag } = method {
            self.consumers.extend(self.consuming.pop_front().map(|consumer| (tag, consumer)));
        } else if let Method::Ack { tag, multiple } = method {
            let confirmed = self.confirm(tag, multiple, book);
            book.tally.confirms += confirmed.len() as u64;
            for publish in confirmed.iter().filter(|publish| !publish.returned) {
                book.note_confirmed(&publish.content);
            }
        } else if let Method::Nack { tag, multiple, .. } = method {
            book.tally.refusals += self.confirm(tag, multiple, book).len() as u64;
        }
    }

    fn confirm(&mut self, tag: u64, multiple: bool, book: &mut Book) -> Vec<Publish> {
        if multiple {
            let later = self.unconfirmed.split_off(&tag.saturating_add(1));
            return std::mem::replace(&mut self.unconfirmed, later).into_values().collect();
        }
        let publish = self.unconfirmed.remove(&tag);
        if publish.is_none() {
            // Either the broker or the tap has miscounted, and then nothing that is said of copies is worth anything.
            book.violation(format!("the broker confirms publish {tag}, and {} were sent", self.published));
        }
        publish.into_iter().collect()
    }

    /// The daemon was told a message: method and content header.
    pub fn told_message(&mut self, method: Method, content: Content, book: &mut Book) {
        if let Method::Deliver { consumer, tag, .. } = method {
            self.deliver(consumer, tag, content, book);
        } else if let Method::Return { exchange, key, .. } = method {
            book.tally.returns += 1;
            // The broker returns in the order of publishing.
            let same = |publish: &&mut Publish| {
                let theirs = (&content.message_id, content.attempt);
                let ours = (&publish.content.message_id, publish.content.attempt);
                !publish.returned && (&publish.exchange, &publish.key) == (&exchange, &key) && ours == theirs
            };
            if let Some(publish) = self.unconfirmed.values_mut().find(same) {
                publish.returned = true;
            }
        }
    }

    fn deliver(&mut self, consumer: String, tag: u64, content: Content, book: &mut Book) {
        book.tally.deliveries += 1;
        self.delivered = tag;
        let Some(known) = self.consumers.get_mut(&consumer) else {
            book.violation(format!("tag {tag} is delivered to the consumer {consumer:?}, which nobody asked for"));
            return;
        };
        known.unacked += 1;
        if known.unacked > known.prefetch {
            let Consumer { queue, prefetch, unacked } = known;
            book.violation(format!(
                "{unacked} deliveries of {queue} are unacknowledged, and the prefetch is {prefetch}"
            ));
        }
        let queue = known.queue.clone();
        self.open.insert(tag, Delivery { consumer, queue, content });
    }
}

//! What was published and is not confirmed yet.

use std::collections::BTreeMap;

use amiquip::Return;

use super::convert::from_amqp;
use super::outgoing::Outgoing;

/// The unconfirmed publishes of one channel by their sequence numbers, which the broker counts from 1. `T` is what the
/// publisher wants to remember about each.
///
/// # Whose return is it?
///
/// The broker sends a message back that no queue takes, and confirms it right afterwards. The return bears no number. We
/// could put one into a header, but every consumer would see it. Instead a return is matched with what it bears: exchange,
/// routing key, properties and body.
///
/// - Equal to several: the broker returns in the order in which we published, so it is the first that has not been
///   returned. Were it another one, nobody could tell the difference.
/// - Equal to none (the broker takes `BCC` headers away, a NaN equals nothing): then all that went the same way count as
///   returned, for none of them is known to have arrived. Some are then published twice, which is harmless.
///
/// The library hands out returns and confirms in two streams. It writes a return into its stream before the confirm of
/// the same message into the other, so who reads all returns after taking a confirm has seen the ones that matter.
#[derive(Debug)]
pub(super) struct Window<T> {
    last: u64,
    sent: BTreeMap<u64, Sent<T>>,
    bytes: usize,
}

/// One unconfirmed publish.
#[derive(Debug)]
struct Sent<T> {
    outgoing: Outgoing,
    item: T,
    returned: Option<String>,
}

/// The broker's verdict on one publish. The error is a sentence for people.
#[derive(Debug)]
pub(super) struct Settled<T> {
    pub(super) item: T,
    pub(super) result: Result<(), String>,
}

impl<T> Window<T> {
    /// For a channel that has just been put into confirm mode.
    pub(super) fn new() -> Self {
        Self { last: 0, sent: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// The first that was published of those that are unconfirmed.
    pub(super) fn oldest(&self) -> Option<&T> {
        self.sent.first_key_value().map(|(_, sent)| &sent.item)
    }

    /// Bytes of the unconfirmed bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts the next publish and gives it back for sending.
    pub(super) fn add(&mut self, outgoing: Outgoing, item: T) -> &Outgoing {
        self.last += 1;
        self.bytes += outgoing.body.bytes().len();
        &self.sent.entry(self.last).or_insert(Sent { outgoing, item, returned: None }).outgoing
    }

    /// Marks the publish that came back.
    pub(super) fn returned(&mut self, came: &Return) {
        let why = unroutable(came);
        let properties = from_amqp(&came.properties);
        let mut candidates: Vec<_> = self
            .sent
            .values_mut()
            .filter(|sent| {
                sent.returned.is_none()
                    && sent.outgoing.routing_key == came.routing_key
                    && sent.outgoing.exchange == came.exchange
            })
            .collect();
        let first = candidates
            .iter()
            .position(|sent| sent.outgoing.properties == properties && sent.outgoing.body.bytes() == came.content);
        match first {
            Some(index) => candidates[index].returned = Some(why),
            None => candidates.into_iter().for_each(|sent| sent.returned = Some(why.clone())),
        }
    }

    /// Takes what one confirm is about: the publish of that number, or with `multiple` all open ones up to it.
    pub(super) fn confirmed(&mut self, number: u64, multiple: bool, taken: bool) -> Vec<Settled<T>> {
        let confirmed = if multiple {
            let later = self.sent.split_off(&number.saturating_add(1));
            std::mem::replace(&mut self.sent, later).into_values().collect()
        } else {
            Vec::from_iter(self.sent.remove(&number))
        };
        confirmed.into_iter().map(|sent| self.settle(sent, taken)).collect()
    }

    fn settle(&mut self, sent: Sent<T>, taken: bool) -> Settled<T> {
        self.bytes -= sent.outgoing.body.bytes().len();
        let Outgoing { exchange, routing_key, .. } = sent.outgoing;
        let result = match (sent.returned, taken) {
            (Some(why), _) => Err(why),
            (None, true) => Ok(()),
            (None, false) => Err(format!(
                "the broker would not take the message for exchange {exchange:?} and routing key {routing_key:?} \
                 (negative confirm): a queue may be full"
            )),
        };
        Settled { item: sent.item, result }
    }

    /// Everything unconfirmed in the order of publishing, when the channel is gone.
    pub(super) fn into_unconfirmed(self) -> impl Iterator<Item = (Outgoing, T)> {
        self.sent.into_values().map(|sent| (sent.outgoing, sent.item))
    }
}

pub(super) fn unroutable(came: &Return) -> String {
    let key = &came.routing_key;
    if came.exchange.is_empty() {
        format!("queue {key:?} does not exist")
    } else {
        format!("no queue is bound to exchange {:?} for routing key {key:?}", came.exchange)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::convert::to_amqp;
    use crate::broker::outgoing::Body;
    use crate::task::{HeaderValue, Properties};

    fn message(queue: &str, id: &str, body: &str) -> Outgoing {
        Outgoing {
            exchange: String::new(),
            routing_key: queue.to_owned(),
            properties: Properties { message_id: Some(id.to_owned()), ..Properties::default() },
            body: Body::Bytes(Arc::from(body.as_bytes())),
        }
    }

    fn window(messages: impl IntoIterator<Item = Outgoing>) -> Window<u32> {
        let mut window = Window::new();
        for (outgoing, item) in messages.into_iter().zip(1..) {
            window.add(outgoing, item);
        }
        window
    }

    fn back(outgoing: &Outgoing) -> Return {
        Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".to_owned(),
            exchange: outgoing.exchange.clone(),
            routing_key: outgoing.routing_key.clone(),
            content: outgoing.body.bytes().to_vec(),
            properties: to_amqp(&outgoing.properties),
        }
    }

    /// The items that a confirm settles, negative where they failed.
    fn settled(window: &mut Window<u32>, number: u64, multiple: bool, taken: bool) -> Vec<i64> {
        let sign = |settled: Settled<u32>| match settled.result {
            Ok(()) => i64::from(settled.item),
            Err(_) => -i64::from(settled.item),
        };
        window.confirmed(number, multiple, taken).into_iter().map(sign).collect()
    }

    #[test]
    fn confirms_may_be_single_multiple_and_out_of_order() {
        let mut window = window((1..=6).map(|id| message("q", &id.to_string(), "body")));
        assert_eq!((window.len(), window.bytes()), (6, 24));
        assert_eq!(settled(&mut window, 4, false, true), [4]);
        assert_eq!(settled(&mut window, 2, true, true), [1, 2]);
        assert!(settled(&mut window, 2, true, true).is_empty());
        assert_eq!(settled(&mut window, 5, true, false), [-3, -5]);
        assert_eq!((window.len(), window.bytes()), (1, 4));
        assert_eq!(settled(&mut window, u64::MAX, true, true), [6]);
        assert_eq!((window.len(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_return_fails_the_publish_that_it_equals() {
        let all = [("a", "1"), ("b", "1"), ("a", "2"), ("a", "3")].map(|(queue, id)| message(queue, id, "body"));
        let mut window = window(all.clone());
        window.returned(&back(&all[2]));
        assert_eq!(settled(&mut window, 4, true, true), [1, 2, -3, 4]);
    }

    #[test]
    fn the_body_tells_messages_without_id_apart() {
        let all = ["one", "two"].map(|body| message("q", "same", body));
        let mut window = window(all.clone());
        window.returned(&back(&all[1]));
        assert_eq!(settled(&mut window, 2, true, true), [1, -2]);
    }

    #[test]
    fn equal_messages_come_back_in_their_order() {
        let mut window = window(vec![message("q", "same", "body"); 3]);
        for _ in 0..2 {
            window.returned(&back(&message("q", "same", "body")));
        }
        assert_eq!(settled(&mut window, 3, true, true), [-1, -2, 3]);
    }

    #[test]
    fn a_return_that_equals_nothing_fails_all_that_went_its_way() {
        let mut changed = message("q", "2", "body");
        changed.properties.headers.insert("nan".to_owned(), HeaderValue::F64(f64::NAN));
        let all = [message("q", "1", "body"), changed.clone(), message("other", "3", "body")];
        let mut window = window(all);
        window.returned(&back(&changed));
        assert_eq!(settled(&mut window, 3, true, true), [-1, -2, 3]);
    }

    #[test]
    fn what_is_left_comes_back_in_its_order() {
        let mut window = window((1..=4).map(|id| message("q", &id.to_string(), "body")));
        settled(&mut window, 2, false, true);
        let left: Vec<u32> = window.into_unconfirmed().map(|(_, item)| item).collect();
        assert_eq!(left, [1, 3, 4]);
    }
}

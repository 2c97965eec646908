//! The answer to a request: a message with a `reply_to`, for a job that replies.
//!
//! The request-reply pattern of RabbitMQ's tutorials: the answer goes to the queue that the request names, through the default
//! exchange, with the request's `correlation_id`. A request that fails for good is answered too, so that no caller waits in
//! vain; such an answer bears the headers `x-warrend-error-class` and `x-warrend-error`.

use super::retry::header;
use crate::task::{Failure, HeaderValue, Headers, Properties, Reply, Task};

/// An answer on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The queue of the caller.
    pub to: String,
    /// With the request's `correlation_id`.
    pub properties: Properties,
    /// What the handler answered; the error text of a request that failed.
    pub body: Vec<u8>,
}

/// The answer of a handler that is done; `None` where nobody asked for one. A handler that said nothing is done as well.
pub fn done(task: &Task, reply: Option<Reply>) -> Option<Letter> {
    let reply = reply.unwrap_or(Reply { body: Vec::new(), content_type: None });
    letter(task, Headers::new(), reply)
}

/// The answer to a request that failed for good.
pub fn failed(task: &Task, failure: &Failure) -> Option<Letter> {
    let headers = [(header::ERROR_CLASS, failure.class.as_str()), (header::ERROR, failure.error.as_str())];
    let headers = headers.map(|(name, text)| (name.to_owned(), HeaderValue::Text(text.to_owned())));
    let text = failure.error.clone().into_bytes();
    let content_type = Some("text/plain; charset=utf-8".to_owned());
    letter(task, headers.into(), Reply { body: text, content_type })
}

fn letter(task: &Task, headers: Headers, reply: Reply) -> Option<Letter> {
    let request = &task.message.properties;
    let to = request.reply_to.clone().filter(|queue| !queue.is_empty())?;
    let properties = Properties {
        // A longer one is none that AMQP could carry.
        content_type: reply.content_type.filter(|kind| kind.len() <= 255),
        headers,
        // The reply is confirmed before the request is done: it must not vanish with a restart of the broker after that.
        delivery_mode: Some(2),
        correlation_id: request.correlation_id.clone(),
        ..Properties::default()
    };
    Some(Letter { to, properties, body: reply.body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::retry::tests::task;
    use crate::task::{ErrorClass, Message};

    fn request(reply_to: Option<&str>) -> std::sync::Arc<Task> {
        let mut message = Message::default();
        message.properties.reply_to = reply_to.map(str::to_owned);
        message.properties.correlation_id = Some("7".to_owned());
        message.properties.headers.insert("x".to_owned(), HeaderValue::Void);
        task(1, 0, 0, message)
    }

    #[test]
    fn a_request_is_answered_with_its_correlation_id() {
        let reply = Reply { body: b"42".to_vec(), content_type: Some("text/plain".to_owned()) };
        let letter = done(&request(Some("caller")), Some(reply)).unwrap();
        let properties = Properties {
            content_type: Some("text/plain".to_owned()),
            correlation_id: Some("7".to_owned()),
            delivery_mode: Some(2),
            ..Properties::default()
        };
        assert_eq!(letter, Letter { to: "caller".to_owned(), properties, body: b"42".to_vec() });
        assert_eq!(done(&request(Some("caller")), None).unwrap().body, b"");
    }

    #[test]
    fn a_request_that_failed_is_answered_too() {
        let failure = Failure { class: ErrorClass::Rejected, error: "no such page".to_owned() };
        let letter = failed(&request(Some("caller")), &failure).unwrap();
        assert_eq!(letter.properties.headers[header::ERROR_CLASS], HeaderValue::Text("rejected".to_owned()));
        assert_eq!(letter.properties.headers[header::ERROR], HeaderValue::Text("no such page".to_owned()));
        assert_eq!((letter.properties.headers.len(), letter.body.as_slice()), (2, &b"no such page"[..]));
    }

    #[test]
    fn who_asks_for_no_answer_gets_none() {
        for nobody in [None, Some("")] {
            assert_eq!(done(&request(nobody), None), None);
        }
    }
}

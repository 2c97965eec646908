//! The frames of both directions: whatever a process answers, and whatever message it is given.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::handler::process::spawn::pipe_out;
use crate::handler::worker::lines::{Filled, Lines};
use crate::handler::worker::request::{Pushed, Request};
use crate::handler::worker::results::Results;
use crate::task::{ErrorClass, Message, Outcome, any};

const WANTED: usize = 3;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(done|retry|dead|Done|10s|5 min|99999999999999d|%|aGk=)".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..3).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Much like a result, and now and then one.
fn result() -> impl Strategy<Value = Value> {
    let status = prop_oneof![4 => "(done|retry|dead)".prop_map(Value::from), 1 => value()];
    let names = ["delay", "error", "reply", "reply_base64", "reply_content_type", "surprise"];
    let others = prop::collection::vec((prop::sample::select(names.to_vec()), value()), 0..3);
    let object = (prop::option::weighted(0.9, status), others).prop_map(|(status, others)| {
        let status = status.into_iter().map(|status| ("status".to_owned(), status));
        Value::Object(status.chain(others.into_iter().map(|(name, value)| (name.to_owned(), value))).collect())
    });
    prop_oneof![5 => object, 1 => value()]
}

/// Whether a result says without any doubt that its task is done.
fn says_done(result: &Value, reply: bool) -> bool {
    let names = ["delay", "error", "reply", "reply_base64", "reply_content_type"];
    let text = |name: &&str| result.get(name).is_none_or(|value| value.is_null() || value.is_string());
    let given = |name| result.get(name).and_then(Value::as_str);
    let readable = given("reply").is_some() || given("reply_base64").is_none_or(|text| STANDARD.decode(text).is_ok());
    result.is_object() && result["status"] == "done" && names.iter().all(text) && (!reply || readable)
}

proptest! {
    #[test]
    fn any_line_is_taken_or_refused(lines in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..120),
        any::<String>().prop_map(String::into_bytes),
        value().prop_map(|value| value.to_string().into_bytes()),
        (prop_oneof![Just(json!(7)), value()], value(), value())
            .prop_map(|(id, results, more)| json!({"id": id, "results": results, "more": more}).to_string().into_bytes()),
    ], 1..4)) {
        let context = context();
        let mut results = Results::new(7, WANTED, &context);
        for line in lines {
            if let Err(why) = results.take(&line) {
                prop_assert!(why.len() < 1000 && !why.contains(['\n', '\u{1b}']), "{:?}", why);
                break;
            }
            prop_assert!(results.answers.len() <= WANTED);
        }
    }

    /// A result that is missing or cannot be read is a failed attempt, never a success.
    #[test]
    fn only_what_says_done_is_done(given in prop::collection::vec(result(), 0..=WANTED), reply: bool) {
        let context = Context { reply, ..context() };
        let mut results = Results::new(7, WANTED, &context);
        results.take(json!({"id": 7, "results": given}).to_string().as_bytes()).unwrap();
        prop_assert!(results.is_complete());
        for (index, answer) in results.answers.iter().enumerate() {
            let expected = given.get(index).is_some_and(|result| says_done(result, reply));
            prop_assert_eq!(answer.outcome == Outcome::Done, expected, "{:?} for {:?}", answer, given.get(index));
            if let Outcome::Retry(failure) | Outcome::Dead(failure) = &answer.outcome {
                prop_assert!(!failure.error.is_empty() && failure.class != ErrorClass::Crashed);
            }
        }
    }

    #[test]
    fn lines_come_whole_however_they_are_cut(pieces in prop::collection::vec(
        prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..50), 0..10,
    )) {
        let (ours, its) = pipe_out().unwrap();
        let (mut its, mut lines) = (fs::File::from(its), Lines::new(ours));
        let mut found: Vec<Vec<u8>> = Vec::new();
        for piece in &pieces {
            its.write_all(piece).unwrap();
            lines.fill();
            while let Some(line) = lines.next() {
                found.push(line.to_vec());
            }
        }
        let all = pieces.concat();
        let mut expected: Vec<&[u8]> = all.split(|byte| *byte == b'\n').collect();
        let rest = expected.pop().expect("a split has a last part");
        prop_assert_eq!(lines.waiting(), rest.len());
        prop_assert_eq!(found, expected);
        drop(its);
        prop_assert_eq!(lines.fill(), Filled::End);
    }

    /// One line of JSON, whatever the message holds, and in it the body to the last bit.
    #[test]
    fn any_message_is_one_line(messages in prop::collection::vec(any::message(&["x-warrend-dead"]), 1..4)) {
        let tasks: Vec<Task> = messages.iter().map(|message| Task { message: message.clone(), ..task(b"") }).collect();
        let request = written(&inputs(&tasks));
        let newline = request.iter().position(|byte| *byte == b'\n');
        prop_assert_eq!(newline, Some(request.len() - 1));
        let request: Value = serde_json::from_slice(&request).unwrap();
        prop_assert_eq!(request["tasks"].as_array().map(Vec::len), Some(messages.len()));
        for (told, Message { body, properties, routing_key, .. }) in request["tasks"].as_array().unwrap().iter().zip(&messages) {
            let told_body = match told["body"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => STANDARD.decode(told["body_base64"].as_str().unwrap()).unwrap(),
            };
            prop_assert_eq!(&told_body, body);
            prop_assert_eq!(told["routing_key"].as_str(), Some(routing_key.as_str()));
            prop_assert_eq!(told["message_id"].as_str(), properties.message_id.as_deref());
            prop_assert_eq!(told["headers"].as_object().map(serde_json::Map::len), Some(properties.headers.len()));
        }
    }
}

fn written(inputs: &[Input<'_>]) -> Vec<u8> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (context, pipe) = (context(), OwnedFd::from(writer));
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes).unwrap()
        });
        let mut buffer = Vec::new();
        let mut request = Request::new(7, inputs, &context, &mut buffer);
        while request.push(&pipe) != Pushed::All {}
        drop(pipe);
        read.join().unwrap()
    })
}

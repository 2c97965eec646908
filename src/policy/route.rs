//! Where a `forward` handler sends a message, and what of the message goes with it.

use super::arrive::header_text;
use super::retry::{self, header};
use crate::config::{Forward, Part, Queue, Target, Template, When};
use crate::task::{ErrorClass, Failure, HeaderValue, Message, Properties};

/// Longest exchange name or routing key, in bytes: what AMQP calls a short string.
const LONGEST: usize = 255;
/// All headers of warrend begin so.
const OWN_PREFIX: &str = "x-warrend-";

/// How often a message is forwarded in all: more is a circle of routes.
const MOST_HOPS: i64 = 32;

/// How often it was forwarded before. A publisher may have written anything there, but no number below zero is a count.
fn hops(message: &Message) -> i64 {
    message.properties.headers.get(header::HOPS).and_then(HeaderValue::as_integer).unwrap_or(0).max(0)
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// Empty for the default exchange. Need not exist: its name may come from the message.
    pub exchange: String,
    /// At most 255 bytes, as the exchange.
    pub routing_key: String,
}

/// The first route that matches, with its placeholders filled. The failure is final: the message itself does not fit the
/// routes, and would not at another attempt.
///
/// `message` is as `arrive` gives it: a copy has the exchange and the routing key of its original.
pub fn route(forward: &Forward, message: &Message) -> Result<Routed, Failure> {
    if hops(message) >= MOST_HOPS {
        return Err(rejected(format!("it was forwarded {MOST_HOPS} times: its routes turn in a circle")));
    }
    let route = forward.routes.iter().find(|route| takes(&route.when, message));
    let Some(target) = route.map(|route| &route.to).or(forward.otherwise.as_ref()) else {
        return Err(rejected(format!("no route matches; the routing key is {:?}", message.routing_key)));
    };
    let Target { exchange, routing_key } = target;
    Ok(Routed {
        exchange: fill(exchange, "exchange", message)?,
        routing_key: fill(routing_key, "routing key", message)?,
    })
}

/// Why a message must not go there: straight back to a queue of the job that forwards it, where it would turn in a circle
/// without end. `config` refuses targets that always do so; this is for those that depend on the message. A circle through
/// a named exchange cannot be seen from here; [`MOST_HOPS`] ends it.
pub fn comes_back(routed: &Routed, queues: &[Queue]) -> Option<Failure> {
    let back = routed.exchange.is_empty() && queues.iter().any(|queue| *queue.name == *routed.routing_key);
    back.then(|| rejected(format!("its route leads back to the queue {:?} of this job", routed.routing_key)))
}

/// The properties that a forwarded message keeps: all, but for the traces of the attempts here and what the broker would
/// refuse or act on again.
///
/// Its `expiration` stays: it counts anew in the next queue. `user_id` becomes a header, as on every copy, since the
/// broker refuses a foreign one. A message that does not say how durable it is becomes persistent, since the original is
/// acknowledged once this one is confirmed; one that says so stays transient.
pub fn forwarded(message: &Message) -> Properties {
    let mut properties = message.properties.clone();
    properties.headers.retain(|name, _| {
        let own = name.starts_with(OWN_PREFIX) && name != header::USER_ID;
        !own && !retry::is_of_broker(name)
    });
    if let Some(user) = properties.user_id.take() {
        properties.headers.insert(header::USER_ID.to_owned(), HeaderValue::Text(user));
    }
    retry::fit(&mut properties.headers, retry::HEADER_ROOM);
    // Last: among very many small headers it could be the largest, and be left out.
    properties.headers.insert(header::HOPS.to_owned(), HeaderValue::I64(hops(message).saturating_add(1)));
    properties.delivery_mode = properties.delivery_mode.or(Some(2));
    properties
}

fn rejected(error: String) -> Failure {
    Failure { class: ErrorClass::Rejected, error }
}

fn takes(when: &When, message: &Message) -> bool {
    match when {
        When::Always => true,
        When::RoutingKey(pattern) => matches(pattern, &message.routing_key),
        When::Header { name, value } => match (message.properties.headers.get(name), value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(found), Some(value)) => header_text(found).as_ref() == Some(value),
        },
    }
}

/// Whether a routing key matches a pattern, as in a topic exchange: `*` is one word, `#` any number of them, none too. An
/// empty key has no words (`rabbit_exchange_type_topic:split_topic_key/1`).
fn matches(pattern: &str, key: &str) -> bool {
    let words = |text| Some(text).filter(|text: &&str| !text.is_empty()).into_iter().flat_map(|text| text.split('.'));
    let (mut pattern, mut key) = (words(pattern), words(key));
    // The pattern behind the last `#`, and the key from the first word that this `#` has not taken. Only the last one
    // matters: what an earlier one could take, the last one can.
    let mut hash = None;
    loop {
        let fits = match (pattern.next(), key.clone().next()) {
            (Some("#"), _) => {
                hash = Some((pattern.clone(), key.clone()));
                continue;
            }
            (None, None) => return true,
            (None, Some(_)) => false,
            (Some(_), None) => return false,
            (Some(word), Some(found)) => word == "*" || word == found,
        };
        if fits {
            key.next();
            continue;
        }
        let Some((behind, from)) = &mut hash else { return false };
        from.next();
        (pattern, key) = (behind.clone(), from.clone());
    }
}

/// `what`: how an error calls the result.
fn fill(template: &Template, what: &str, message: &Message) -> Result<String, Failure> {
    let mut filled = String::new();
    for part in &template.0 {
        let missing =
            |name: &str| rejected(format!("the message has no {name:?}, which its route puts into the {what}"));
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Name(name) => filled.push_str(&property(name, message).ok_or_else(|| missing(name))?),
            Part::Header(name) => filled.push_str(&header_of(name, message).ok_or_else(|| missing(name))?),
        }
    }
    if filled.len() > LONGEST {
        let bytes = filled.len();
        return Err(rejected(format!("its route gives the {what} {bytes} bytes, and AMQP allows {LONGEST}")));
    }
    Ok(filled)
}

/// A property, or a header where there is no property of that name. A property that this message lacks is not looked for
/// among its headers.
fn property(name: &str, message: &Message) -> Option<String> {
    let properties = &message.properties;
    match name {
        "routing_key" => Some(message.routing_key.clone()),
        "exchange" => Some(message.exchange.clone()),
        "message_id" => properties.message_id.clone(),
        "type" => properties.kind.clone(),
        "app_id" => properties.app_id.clone(),
        "correlation_id" => properties.correlation_id.clone(),
        "reply_to" => properties.reply_to.clone(),
        "content_type" => properties.content_type.clone(),
        // On a copy it is a header.
        "user_id" => properties.user_id.clone().or_else(|| header_of(header::USER_ID, message)),
        "priority" => properties.priority.map(|priority| priority.to_string()),
        _ => header_of(name, message),
    }
}

fn header_of(name: &str, message: &Message) -> Option<String> {
    message.properties.headers.get(name).and_then(header_text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Route;

    fn text(text: &str) -> Template {
        Template(vec![Part::Text(text.to_owned())])
    }

    fn to(routing_key: Template) -> Target {
        Target { exchange: text("x"), routing_key }
    }

    fn header(name: &str, value: Option<&str>) -> When {
        When::Header { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    fn message() -> Message {
        let value = |text: &str| HeaderValue::Text(text.to_owned());
        let headers = [("kind", value("pdf")), ("size", HeaderValue::U8(7)), ("void", HeaderValue::Void)];
        Message {
            exchange: "media".to_owned(),
            routing_key: "image.png".to_owned(),
            properties: Properties {
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                priority: Some(9),
                kind: Some("thumb".to_owned()),
                user_id: Some("bob".to_owned()),
                ..Properties::default()
            },
            ..Message::default()
        }
    }

    #[test]
    fn patterns_are_those_of_topic_exchanges() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            for (keys, expect) in [(yes, true), (no, false)] {
                for key in keys {
                    assert_eq!(matches(pattern, key), expect, "{pattern:?} {key:?}");
                }
            }
        };
        check("", &[""], &["a", "."]);
        check("#", &["", "a", "a.b", "."], &[]);
        check("*", &["a"], &["", "a.b", "."]);
        check("a.b", &["a.b"], &["a", "a.b.c", "a.c", "b.a", "A.b"]);
        check("a.*", &["a.b", "a."], &["a", "a.b.c"]);
        check("a.#", &["a", "a.b", "a.b.c"], &["", "b", "ab"]);
        check("#.a", &["a", "b.a", "a.a", "b.c.a"], &["", "b", "a.b"]);
        check("#.a.#", &["a", "b.a", "a.b", "b.a.c"], &["", "b.c"]);
        check("*.#", &["a", "a.b"], &[""]);
        check("#.*", &["a", "a.b"], &[""]);
        check("#.#", &["", "a", "a.b"], &[]);
        check("*.*.*", &["a.b.c", ".."], &["a.b", "a.b.c.d"]);
        check("a.#.b.#.c", &["a.b.c", "a.x.b.b.y.c", "a.b.c.c"], &["a.c", "a.b", "a.b.c.d"]);
        // Within a word both are plain.
        check("a*.b", &["a*.b"], &["ax.b"]);
    }

    /// What the AMQP specification says, word by word; takes exponential time.
    fn by_definition(pattern: &[&str], key: &[&str]) -> bool {
        match pattern {
            [] => key.is_empty(),
            ["#", rest @ ..] => (0..=key.len()).any(|taken| by_definition(rest, &key[taken..])),
            [word, rest @ ..] => key
                .split_first()
                .is_some_and(|(first, key)| (*word == "*" || word == first) && by_definition(rest, key)),
        }
    }

    proptest! {
        #[test]
        fn any_pattern_matches_as_defined(
            pattern in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*"), Just("#")], 1..7),
            key in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..8),
        ) {
            prop_assert_eq!(matches(&pattern.join("."), &key.join(".")), by_definition(&pattern, &key));
        }
    }

    #[test]
    fn a_hostile_key_takes_no_time() {
        // With backtracking over all of the `#` this would outlast the universe.
        let (pattern, key) = ("#.a.".repeat(40) + "b", ["a"; 120].join("."));
        assert!(!matches(&pattern, &key));
        assert!(matches(&pattern, &(key + ".b")));
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let check = |routes: &[(When, &str)], otherwise: Option<&str>, expect: Option<&str>| {
            let routes = routes.iter().map(|(when, key)| Route { when: when.clone(), to: to(text(key)) }).collect();
            let forward = Forward { routes, otherwise: otherwise.map(|key| to(text(key))) };
            match (route(&forward, &message()), expect) {
                (Ok(routed), Some(key)) => {
                    assert_eq!(routed, Routed { exchange: "x".to_owned(), routing_key: key.to_owned() });
                }
                (Err(failure), None) => {
                    assert_eq!(failure.class, ErrorClass::Rejected);
                    assert!(failure.error.contains("no route matches") && failure.error.contains("image.png"));
                }
                (result, expect) => panic!("{result:?}, not {expect:?}"),
            }
        };
        let key = |pattern: &str| When::RoutingKey(pattern.to_owned());
        check(&[(key("image.*"), "1"), (key("#"), "2")], None, Some("1"));
        check(&[(key("text.*"), "1"), (key("#"), "2")], None, Some("2"));
        check(&[(header("kind", Some("pdf")), "1"), (key("#"), "2")], None, Some("1"));
        check(&[(header("kind", Some("png")), "1"), (header("kind", None), "2")], None, Some("2"));
        check(&[(header("size", Some("7")), "1")], None, Some("1"));
        check(&[(header("size", Some("07")), "1")], None, None);
        check(&[(header("void", None), "1")], None, Some("1"));
        check(&[(header("void", Some("")), "1")], None, None);
        check(&[(header("none", None), "1")], Some("3"), Some("3"));
        check(&[(header("none", None), "1")], None, None);
        check(&[(When::Always, "1")], Some("3"), Some("1"));
    }

    #[test]
    fn placeholders_are_filled() {
        let with = |part: Part| Forward {
            routes: vec![Route { when: When::Always, to: to(Template(vec![Part::Text("k.".to_owned()), part])) }],
            otherwise: None,
        };
        let name = |name: &str| with(Part::Name(name.to_owned()));
        let check = |forward: Forward, message: &Message, expect: &str| {
            assert_eq!(route(&forward, message).map(|routed| routed.routing_key).as_deref(), Ok(expect));
        };
        let fails = |forward: Forward, message: &Message, part: &str| {
            let failure = route(&forward, message).expect_err(part);
            assert_eq!(failure.class, ErrorClass::Rejected);
            assert!(failure.error.contains(part), "{}", failure.error);
        };
        let mut message = message();
        for (given, expect) in [
            ("routing_key", "k.image.png"),
            ("exchange", "k.media"),
            ("type", "k.thumb"),
            ("priority", "k.9"),
            ("user_id", "k.bob"),
            ("kind", "k.pdf"),
            ("size", "k.7"),
        ] {
            check(name(given), &message, expect);
        }
        for missing in ["message_id", "app_id", "correlation_id", "reply_to", "content_type", "none", "void"] {
            fails(name(missing), &message, &format!("has no {missing:?}, which its route puts into the routing key"));
        }
        let mut set = |name: &str, value: &str| {
            message.properties.headers.insert(name.to_owned(), HeaderValue::Text(value.to_owned()))
        };
        set("type", "of the headers");
        set("app_id", "of the headers");
        set("long", &"x".repeat(253));
        set("longer", &"x".repeat(254));
        check(name("type"), &message, "k.thumb");
        fails(name("app_id"), &message, "\"app_id\"");
        check(with(Part::Header("type".to_owned())), &message, "k.of the headers");
        fails(with(Part::Header("priority".to_owned())), &message, "\"priority\"");
        check(name("long"), &message, &format!("k.{}", "x".repeat(253)));
        fails(name("longer"), &message, "256 bytes, and AMQP allows 255");
        // A retried message is a copy, whose user is in a header.
        let copy = Message { properties: forwarded(&message), ..message };
        assert_eq!(copy.properties.user_id, None);
        check(name("user_id"), &copy, "k.bob");
    }

    #[test]
    fn a_message_does_not_come_straight_back() {
        let queues = retry::tests::job().queues;
        let routed = |exchange: &str, key: &str| Routed { exchange: exchange.to_owned(), routing_key: key.to_owned() };
        let failure = comes_back(&routed("", "q"), &queues).expect("it is the job's queue");
        assert_eq!(failure.class, ErrorClass::Rejected);
        assert_eq!(comes_back(&routed("", "r"), &queues), None);
        assert_eq!(comes_back(&routed("x", "q"), &queues), None);
    }

    #[test]
    fn a_circle_of_routes_has_an_end() {
        let forward = Forward { routes: Vec::new(), otherwise: Some(to(Template(vec![Part::Text("k".to_owned())]))) };
        let mut message = Message::default();
        let mut turns = 0;
        while route(&forward, &message).is_ok() {
            message.properties = forwarded(&message);
            turns += 1;
        }
        assert_eq!(turns, MOST_HOPS);
    }

    #[test]
    fn a_count_below_zero_is_none() {
        let mut message = Message::default();
        message.properties.headers.insert(header::HOPS.to_owned(), HeaderValue::I64(i64::MIN));
        assert_eq!(hops(&message), 0);
        assert_eq!(forwarded(&message).headers[header::HOPS], HeaderValue::I64(1));
    }

    #[test]
    fn the_count_stays_among_very_many_small_headers() {
        let mut message = Message::default();
        message.properties.headers = (0..9000).map(|n| (n.to_string(), HeaderValue::I64(0))).collect();
        let found = forwarded(&message);
        assert!(found.headers.contains_key(header::DROPPED));
        assert_eq!(found.headers[header::HOPS], HeaderValue::I64(1));
    }

    #[test]
    fn what_is_forwarded_leaves_its_past_behind() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let original = Properties {
            content_type: Some("a".to_owned()),
            content_encoding: Some("b".to_owned()),
            priority: Some(3),
            correlation_id: Some("c".to_owned()),
            reply_to: Some("d".to_owned()),
            expiration: Some("60000".to_owned()),
            message_id: Some("e".to_owned()),
            timestamp: Some(1),
            kind: Some("f".to_owned()),
            app_id: Some("g".to_owned()),
            delivery_mode: Some(1),
            headers: [("other".to_owned(), text("h"))].into(),
            ..Properties::default()
        };
        let mut message = Message { properties: original.clone(), ..Message::default() };
        let mut expected = original;
        expected.headers.insert(header::HOPS.to_owned(), HeaderValue::I64(1));
        assert_eq!(forwarded(&message), expected);
        for name in [
            header::ATTEMPT,
            header::DEAD,
            header::ROUTING_KEY,
            "x-warrend-unknown",
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "CC",
            "BCC",
        ] {
            message.properties.headers.insert(name.to_owned(), text("x"));
        }
        assert_eq!(forwarded(&message), expected);
        message.properties.delivery_mode = None;
        message.properties.user_id = Some("bob".to_owned());
        let found = forwarded(&message);
        assert_eq!((found.delivery_mode, found.user_id), (Some(2), None));
        assert_eq!(found.headers.get(header::USER_ID), Some(&text("bob")));
    }

    /// Any message on any route.
    mod fuzz {
        use super::*;
        use crate::task::{any, table_size};

        const HEADERS: &[&str] = &[header::HOPS, header::USER_ID, header::ATTEMPT, header::DEAD, "x-death", "kind"];

        fn template() -> impl Strategy<Value = Template> {
            let names =
                ["routing_key", "exchange", "message_id", "user_id", "priority", "kind", "x-warrend-hops", "none"];
            let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned).boxed();
            let part = prop_oneof![
                any::short_text().prop_map(Part::Text),
                name.clone().prop_map(Part::Name),
                name.prop_map(Part::Header),
            ];
            proptest::collection::vec(part, 0..4).prop_map(Template)
        }

        fn forward() -> impl Strategy<Value = Forward> {
            let target =
                || (template(), template()).prop_map(|(exchange, routing_key)| Target { exchange, routing_key });
            let when = prop_oneof![
                Just(When::Always),
                "[a#*]{0,1}(\\.[a#*]){0,6}".prop_map(When::RoutingKey),
                any::short_text().prop_map(When::RoutingKey),
                Just(When::Header { name: "kind".to_owned(), value: None }),
            ];
            let route = (when, target()).prop_map(|(when, to)| Route { when, to });
            let otherwise = proptest::option::of(target());
            (proptest::collection::vec(route, 0..4), otherwise)
                .prop_map(|(routes, otherwise)| Forward { routes, otherwise })
        }

        proptest! {
            #[test]
            fn any_message_finds_a_name_that_fits_or_fails(forward in forward(), message in any::message(HEADERS)) {
                match route(&forward, &message) {
                    Ok(routed) => {
                        prop_assert!(routed.exchange.len() <= LONGEST && routed.routing_key.len() <= LONGEST);
                        comes_back(&routed, &retry::tests::job().queues);
                    }
                    Err(failure) => prop_assert_eq!(failure.class, ErrorClass::Rejected),
                }
            }

            /// Whatever a publisher writes into the count.
            #[test]
            fn any_circle_has_an_end(mut message in any::message(HEADERS), many in prop_oneof![19 => 0..9_usize, 1 => 0..6000_usize]) {
                let small = (0..many).map(|n| (n.to_string(), HeaderValue::I64(0)));
                message.properties.headers.extend(small);
                for turn in 1..=MOST_HOPS {
                    message.properties = forwarded(&message);
                    prop_assert!(hops(&message) >= turn);
                    prop_assert!(table_size(&message.properties.headers) < 125 * 1024);
                    prop_assert_eq!(&message.properties.user_id, &None);
                    prop_assert!(message.properties.headers.keys().all(|name| !retry::is_of_broker(name)));
                }
            }
        }
    }
}

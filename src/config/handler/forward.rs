//! `forward = { ... }`: one target, or routes to several.

use crate::config::item::Item;
use crate::config::queue::Queues;
use crate::config::section::Section;
use crate::config::shape;
use crate::config::sketch::Rule;
use crate::config::{Forward, Part, Route, Target, Template, When};

/// Longest exchange name, routing key or header name, in bytes: what AMQP calls a short string.
const LONGEST_SHORT: usize = 255;
/// What `{name}` means before it means a header.
const PROPERTIES: [&str; 10] = [
    "routing_key",
    "exchange",
    "message_id",
    "type",
    "app_id",
    "correlation_id",
    "reply_to",
    "content_type",
    "user_id",
    "priority",
];

/// Reads it; `None` where it has no target at all. `queues`: those of the job, which it must not feed.
pub fn read(item: &Item<'_>, queues: &Queues) -> Option<Forward> {
    let section = item.section(&shape::FORWARD)?;
    let Some(list) = section.item("routes") else {
        if let Some(otherwise) = section.item("otherwise") {
            let help = "remove it, or write routes = [ ... ] for what goes elsewhere";
            item.reader().error(otherwise.key_place, "`otherwise` needs `routes`", help);
        }
        let to = target(&section, queues)?;
        return Some(Forward { routes: vec![Route { when: When::Always, to }], otherwise: None });
    };
    for key in ["exchange", "routing_key"] {
        if let Some(target) = section.item(key) {
            template(&target);
            let message = format!("{} stands beside `routes`", target.name());
            let help = "each route has its own; for what no route matches write otherwise = { ... }";
            item.reader().clash(target.key_place, message, help, (list.key_place, "`routes` stands here"));
        }
    }
    let otherwise = section.item("otherwise").map(|item| otherwise(&item, queues));
    let routes = routes(&list, queues)?;
    Some(Forward { routes, otherwise: otherwise.flatten() })
}

/// `None`: dead-lettered; also where it is faulty, which is noted.
fn otherwise(item: &Item<'_>, queues: &Queues) -> Option<Target> {
    if item.value().is_str() {
        item.choice(&[("dead", ())])?;
        return None;
    }
    if !item.value().is_table() {
        return item
            .wrong_type("\"dead\" or a table", "write \"dead\", or { exchange = \"NAME\", routing_key = \"KEY\" }");
    }
    target(&item.section(&shape::TARGET)?, queues)
}

fn routes(list: &Item<'_>, queues: &Queues) -> Option<Vec<Route>> {
    let entries = list.array("[ { match = \"image.*\", exchange = \"\", routing_key = \"images\" } ]")?;
    if entries.is_empty() {
        return list.error("`routes` is empty", "give at least one route, or write exchange and routing_key");
    }
    let mut routes: Vec<Route> = Vec::new();
    let mut all_taken = None;
    for entry in &entries {
        let Some(section) = entry.section(&shape::ROUTE) else { continue };
        if let Some(place) = all_taken {
            let help = "the first that matches wins: move the one that matches all to the end";
            let also = (place, "this route matches all messages");
            entry.reader().clash(entry.place, "no message comes to this route", help, also);
        }
        let (when, to) = (when(&section), target(&section, queues));
        if let (Some(when), Some(to)) = (when, to) {
            if when == When::RoutingKey("#".to_owned()) {
                all_taken = all_taken.or(Some(entry.place));
            }
            routes.push(Route { when, to });
        }
    }
    Some(routes)
}

fn when(section: &Section<'_>) -> Option<When> {
    let (pattern, header, value) = (section.item("match"), section.item("header"), section.item("value"));
    if let (Some(value), None) = (&value, &header) {
        let help = "add header = \"NAME\"; a route by `match` has no value";
        value.reader().error(value.key_place, "`value` needs `header`", help);
    }
    section.rule(Rule::One(&["match", "header"]));
    let read_pattern = pattern.and_then(|item| pattern_of(&item));
    let read_name =
        header.and_then(|item| item.filled_text().map(|text| text.value).filter(|name| fits(&item, name.len())));
    let read_value = value.map(|item| text_or_number(&item));
    match (pattern, header) {
        (None, None) => {
            let help = "add match = \"PATTERN\" or header = \"NAME\"; for all that is left write otherwise = { ... }";
            section.reader().missing(section.place, "this route does not say what it matches", help);
            None
        }
        (Some(pattern), Some(header)) => {
            let help = "keep one of them: a route matches by the routing key or by a header";
            let also = (pattern.key_place, "`match` stands here");
            header.reader().clash(header.key_place, "this route has both `match` and `header`", help, also);
            None
        }
        (Some(_), None) => Some(When::RoutingKey(read_pattern?)),
        (None, Some(_)) => {
            let value = match read_value {
                Some(value) => Some(value?),
                None => None,
            };
            Some(When::Header { name: read_name?, value })
        }
    }
}

fn pattern_of(item: &Item<'_>) -> Option<String> {
    let pattern = item.text()?.value;
    if !fits(item, pattern.len()) {
        return None;
    }
    if pattern.split('.').any(|word| word.len() > 1 && word.contains(['*', '#'])) {
        let help =
            "`*` stands for one whole word between dots, `#` for any number of them; within a word they are plain";
        item.reader().warn(item.place, "this pattern matches a plain `*` or `#`", help);
    }
    Some(pattern)
}

fn text_or_number(item: &Item<'_>) -> Option<String> {
    if item.value().is_integer() {
        return item.integer::<i64>(i64::MIN..=i64::MAX).map(|integer| integer.to_string());
    }
    if !item.value().is_str() {
        return item.wrong_type("a string or an integer", "leave the key out for any value of the header");
    }
    item.text().map(|text| text.value)
}

/// The target that stands in a table.
fn target(section: &Section<'_>, queues: &Queues) -> Option<Target> {
    let exchange = section.get("exchange", Template::default(), |item| template(&item));
    let item = section.item("routing_key");
    let is_default = exchange.value.literal().as_deref() == Some("");
    let routing_key = match &item {
        Some(item) => template(item)?,
        None if is_default && exchange.good => {
            let help = "add routing_key = \"QUEUE\": to the default exchange it is the name of a queue";
            section.reader().missing(section.place, "this target has no `routing_key`", help);
            return None;
        }
        None => Template(vec![Part::Name("routing_key".to_owned())]),
    };
    if !exchange.good {
        return None;
    }
    let place = item.map_or(section.place, |item| item.place);
    let same_key = routing_key.0 == [Part::Name("routing_key".to_owned())];
    if is_default {
        match routing_key.literal() {
            Some(queue) if queue.is_empty() => {
                let help = "to the default exchange the routing key is the name of a queue";
                section.reader().error(place, "`routing_key` is empty", help);
            }
            Some(queue) if queues.queues.iter().any(|(own, _)| *own.name == *queue) => {
                let help = "its messages would come back for ever: name another queue";
                section.reader().error(place, "this job would forward to its own queue", help);
            }
            Some(_) => {}
            None if same_key => {
                let help = "a message that was published straight to the queue has its name as routing key, and comes \
                            back for ever; name the queue that is meant, or an exchange";
                section.reader().warn(place, "this job may forward to its own queue", help);
            }
            None => {}
        }
    } else if same_key
        && queues.exchanges.iter().any(|(own, _)| exchange.value.literal().as_ref() == Some(&own.exchange))
    {
        let help = "what came from it with a routing key comes back with the same: give another routing_key";
        let place = exchange.at.unwrap_or(section.place);
        section.reader().warn(place, "this job would forward to the exchange that feeds it", help);
    }
    Some(Target { exchange: exchange.value, routing_key })
}

/// Splits a text at its `{name}`s.
fn template(item: &Item<'_>) -> Option<Template> {
    let text = item.text()?.value;
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some(brace) = rest.find(['{', '}']) {
        plain.push_str(&rest[..brace]);
        rest = &rest[brace..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            plain.push_str(&rest[..1]);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}').filter(|(name, _)| !name.contains('{')) else {
                return item.error("`{` without a `}`", "write {NAME}, or {{ for a plain {");
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(placeholder(item, name)?);
            rest = after;
        } else {
            return item.error("`}` without a `{`", "write {NAME}, or }} for a plain }");
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    let literal: usize = parts.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
    fits(item, literal).then_some(Template(parts))
}

fn placeholder(item: &Item<'_>, name: &str) -> Option<Part> {
    let header = name.strip_prefix("header:");
    let bare = header.unwrap_or(name);
    if bare.is_empty() || bare.trim() != bare || bare.len() > LONGEST_SHORT {
        let help = format!("write {{NAME}}: the name of a header, or one of {}", PROPERTIES.join(", "));
        return item.error("the name between `{` and `}` is empty, too long, or has blanks around it", help);
    }
    if header.is_some() {
        return Some(Part::Header(bare.to_owned()));
    }
    if !PROPERTIES.contains(&name)
        && let Some(meant) = shape::nearest(name, &PROPERTIES)
    {
        let help = format!("did you mean {{{meant}}}? if not, write {{header:...}}");
        item.reader().warn(item.place, "a `{name}` here is the name of a header, and nearly that of a property", help);
    }
    Some(Part::Name(name.to_owned()))
}

fn fits(item: &Item<'_>, bytes: usize) -> bool {
    if bytes > LONGEST_SHORT {
        item.reader().error(item.place, format!("{} is too long", item.name()), "allowed: at most 255 bytes");
    }
    bytes <= LONGEST_SHORT
}

//! Streams of any frames, cut anywhere. `PROPTEST_CASES=1000000` makes a long run of it.

use std::collections::BTreeSet;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, parse_frame};
use amq_protocol::types::generation::gen_field_table;
use proptest::prelude::*;

use super::super::table::{self, Entries};
use super::{at_once, content, deliver, frame, length, short, through, with_table};

/// Bytes that are likely to be a table, or nearly one.
fn table() -> impl Strategy<Value = Vec<u8>> {
    let name =
        prop_oneof![9 => "[a-c]{0,3}".prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    let leaf = prop_oneof![
        4 => prop::sample::select(&b"tbBsUuIiLlfdDTV"[..]).prop_map(|kind| {
            let size = match kind { b'V' => 0, b't' | b'b' | b'B' => 1, b's' | b'U' | b'u' => 2, b'D' => 5,
                b'I' | b'i' | b'f' => 4, _ => 8 };
            [&[kind][..], &vec![1; size]].concat()
        }),
        2 => ".{0,8}".prop_map(|text| [&b"S"[..], &length(text.as_bytes()), text.as_bytes()].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| [&b"x"[..], &length(&bytes), &bytes].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let value = leaf.prop_recursive(40, 64, 4, {
        let name = name.clone();
        move |inner| {
            let array = prop::collection::vec(inner.clone(), 0..4).prop_map(|values| (b'A', values.concat()));
            let table = prop::collection::vec((name.clone(), inner), 0..4).prop_map(|entries| {
                (b'F', entries.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect())
            });
            prop_oneof![array, table]
                .prop_map(|(kind, bytes): (u8, Vec<u8>)| [&[kind][..], &length(&bytes), &bytes].concat())
        }
    });
    prop::collection::vec((name, value), 0..6)
        .prop_map(|entries| entries.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect())
}

/// A method of each shape that brokers send: with texts, tables and numbers that may be anything.
fn method() -> impl Strategy<Value = Vec<u8>> {
    let name = || prop::collection::vec(any::<u8>(), 0..5).prop_map(|name| short(&name));
    let words = || prop::collection::vec(any::<u8>(), 0..20).prop_map(|words| [&length(&words)[..], &words].concat());
    let table = table().prop_map(|table| [&length(&table)[..], &table].concat());
    let arguments = prop_oneof![
        // connection.start, which has a table, and connection.secure
        (table, words(), words()).prop_map(|(table, mechanisms, locales)| (
            0,
            [10, 10],
            [&[0, 9][..], &table, &mechanisms, &locales].concat()
        )),
        words().prop_map(|words| (0, [10, 20], words)),
        // connection.tune: never of a size that leaves no room for a frame
        (any::<u16>(), 4096_u32.., any::<u16>()).prop_map(|(channels, size, heartbeat)| {
            let numbers = [&channels.to_be_bytes()[..], &size.to_be_bytes(), &heartbeat.to_be_bytes()];
            (0, [10, 30], numbers.concat())
        }),
        // connection.close, channel.close
        (any::<u16>(), name(), any::<u32>(), prop::sample::select(vec![(0, [10, 50]), (1, [20, 40])])).prop_map(
            |(code, text, about, (channel, method))| {
                (channel, method, [&code.to_be_bytes()[..], &text, &about.to_be_bytes()].concat())
            }
        ),
        // connection.blocked, basic.consume-ok, basic.cancel-ok
        (name(), prop::sample::select(vec![(0, [10, 60]), (1, [60, 21]), (1, [60, 31])]))
            .prop_map(|(name, (channel, method))| (channel, method, name)),
        // queue.declare-ok, basic.cancel
        (name(), any::<u64>()).prop_map(|(name, counts)| (1, [50, 11], [name, counts.to_be_bytes().to_vec()].concat())),
        (name(), any::<bool>()).prop_map(|(name, nowait)| (1, [60, 30], [name, vec![u8::from(nowait)]].concat())),
        // basic.return, basic.get-ok
        (any::<u16>(), name(), name(), name()).prop_map(|(code, text, exchange, key)| {
            (1, [60, 50], [&code.to_be_bytes()[..], &text, &exchange, &key].concat())
        }),
        (any::<u64>(), name(), name(), any::<u32>()).prop_map(|(tag, exchange, key, left)| {
            (1, [60, 71], [&tag.to_be_bytes()[..], &[0], &exchange, &key, &left.to_be_bytes()].concat())
        }),
        // basic.ack
        any::<u64>().prop_map(|tag| (1, [60, 80], [&tag.to_be_bytes()[..], &[1]].concat())),
    ];
    arguments.prop_map(|(channel, [class, method], arguments)| {
        frame(1, channel, &[&[0, class, 0, method][..], &arguments].concat())
    })
}

/// A frame as brokers send them, or with some bytes changed.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let name = || prop::collection::vec(any::<u8>(), 0..5);
    let whole = prop_oneof![
        (name(), name()).prop_map(|(exchange, key)| deliver(&exchange, &key)),
        method(),
        table().prop_map(|table| with_table(&table)),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(flags, bytes)| content(flags, &bytes)),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|body| frame(3, 1, &body)),
        Just(frame(8, 0, b"")),
    ];
    let change = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    (whole, change).prop_map(|(mut frame, change)| {
        if let Some((at, byte)) = change {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame
    })
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same(
        frames in prop::collection::vec(any_frame(), 1..6),
        piece in 1_usize..50,
        out in 1_usize..50,
    ) {
        let stream = frames.concat();
        let whole = at_once(&stream);
        let bytewise = through(stream.chunks(1), vec![0; 1]);
        prop_assert_eq!(&bytewise, &whole);
        prop_assert_eq!(&through(stream.chunks(piece), vec![0; out]), &whole);
        for at in 0..stream.len() {
            let (before, after) = stream.split_at(at);
            prop_assert_eq!(&through([before, after], vec![0; 4096]), &whole);
        }
    }

    /// Whatever comes out is decoded by the library, whole.
    #[test]
    fn what_comes_out_is_read_by_the_library(frames in prop::collection::vec(any_frame(), 1..6)) {
        let (read, _) = at_once(&frames.concat());
        let mut rest = &read[..];
        while !rest.is_empty() {
            match parse_frame(rest) {
                Ok((after, frame)) => {
                    if let AMQPFrame::Header(_, _, header) = &frame {
                        let came = &rest[7..rest.len() - after.len() - 1];
                        prop_assert!(is_whole(header, came), "{came:?} as {header:?}");
                    }
                    rest = after;
                }
                // A body's end, which the library looks for itself, or a body that has not come to its end.
                Err(_) => {
                    prop_assert!(matches!(rest[0], 3 | 8), "{rest:?}");
                    break;
                }
            }
        }
    }
}

/// Whether the library found every property and every header that came.
fn is_whole(header: &AMQPContentHeader, came: &[u8]) -> bool {
    let is = &header.properties;
    let texts = [
        is.content_type(),
        is.content_encoding(),
        is.correlation_id(),
        is.reply_to(),
        is.expiration(),
        is.message_id(),
        is.type_(),
        is.user_id(),
        is.app_id(),
        is.cluster_id(),
    ];
    let numbers = [is.delivery_mode().is_some(), is.priority().is_some(), is.timestamp().is_some()];
    let found = texts.iter().filter(|text| text.is_some()).count()
        + numbers.iter().filter(|number| **number).count()
        + usize::from(is.headers().is_some());
    let flags = u16::from_be_bytes([came[12], came[13]]) & !0b11;
    found == flags.count_ones() as usize
        && is.headers().as_ref().is_none_or(|headers| {
            let mut before = 14;
            for text in texts[..2].iter().filter_map(|text| text.as_ref()) {
                before += 1 + text.len();
            }
            let size = u32::from_be_bytes(came[before..before + 4].try_into().unwrap()) as usize;
            let table = &came[before + 4..][..size];
            let names: BTreeSet<_> = Entries(table).map(|entry| entry.name).collect();
            let mut buffer = vec![0; came.len() + 8];
            let written = gen_field_table((&mut buffer, 0), headers).unwrap().1;
            // The last of several headers of one name wins; elsewhere the sizes tell whether anything was lost.
            names.len() == headers.len() && (has_twins(table) || written == size + 4)
        })
}

/// Whether a name stands twice in one table, at any depth.
fn has_twins(table: &[u8]) -> bool {
    let mut names = BTreeSet::new();
    Entries(table).any(|entry| !names.insert(entry.name) || has_twins_within(entry.value))
}

fn has_twins_within(value: &[u8]) -> bool {
    match (value[0], value.get(5..)) {
        (b'F', Some(table)) => has_twins(table),
        (b'A', Some(mut values)) => {
            while let Ok((_, size)) = table::content(values) {
                if has_twins_within(&values[..1 + size]) {
                    return true;
                }
                values = &values[1 + size..];
            }
            false
        }
        _ => false,
    }
}

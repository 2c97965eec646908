//! Frames of all kinds, held against the decoder that the library uses.

mod frames;
mod fuzz;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, parse_frame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use amq_protocol::protocol::connection::AMQPMethod as Connection;
use amq_protocol::types::{AMQPValue, FieldTable};

use self::frames::{content, deliver, entry, frame, length, nested, short, text_entry, with_table};
use super::inflow::Inflow;
use super::table::DEEPEST;
use super::{Closed, Violation};
use crate::policy::retry::header;

/// What the library gets to read of a stream that comes in such pieces, and how it ends.
fn through<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, mut out: Vec<u8>) -> (Vec<u8>, Option<Violation>) {
    let (mut inflow, mut read) = (Inflow::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let room = inflow.room();
            let came = room.len().min(piece.len());
            assert!(came > 0, "there is always room for more");
            room[..came].copy_from_slice(&piece[..came]);
            inflow.came(came);
            piece = &piece[came..];
            loop {
                match inflow.give(&mut out) {
                    Ok(0) => break,
                    Ok(given) => read.extend_from_slice(&out[..given]),
                    Err(violation) => return (read, Some(violation)),
                }
            }
        }
    }
    (read, None)
}

fn at_once(bytes: &[u8]) -> (Vec<u8>, Option<Violation>) {
    through([bytes], vec![0; 4096])
}

fn parsed(bytes: &[u8]) -> AMQPFrame {
    match parse_frame(bytes) {
        Ok((&[], frame)) => frame,
        other => panic!("{other:?}"),
    }
}

/// What the library makes of one content header after the guard.
fn header_of(frame: &[u8]) -> Box<AMQPContentHeader> {
    let (read, violation) = at_once(frame);
    assert_eq!(violation, None);
    let AMQPFrame::Header(1, 60, header) = parsed(&read) else { panic!("{read:?}") };
    assert_eq!(header.body_size, 9, "the body is not touched");
    header
}

fn headers_of(frame: &[u8]) -> FieldTable {
    header_of(frame).properties.headers().clone().unwrap_or_default()
}

fn text<'t>(headers: &'t FieldTable, name: &str) -> &'t str {
    let Some(AMQPValue::LongString(text)) = headers.get(name) else { panic!("{name} in {headers:?}") };
    text
}

/// Sends one table through and compares what was wrong, which headers were kept, and what is told of the others.
#[track_caller]
fn check(table: &[u8], wrong: &str, kept: &[&str], parts: &str) {
    let headers = headers_of(&with_table(table));
    let ours = [header::UNDECODABLE, header::UNDECODABLE_PARTS];
    assert_eq!(text(&headers, ours[0]), wrong);
    let others: Vec<_> = headers.keys().filter(|name| !ours.contains(&name.as_str())).collect();
    assert_eq!(others, kept);
    let told = text(&headers, ours[1]);
    assert!(told.contains(parts), "{told}");
    assert!(!told.contains(char::is_control) && told.len() < 16 << 10, "{told}");
}

#[test]
fn what_is_sound_passes_as_it_is() {
    let every_type: Vec<u8> = [
        (b't', 1),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'U', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'L', 8),
        (b'l', 8),
        (b'f', 4),
        (b'd', 8),
        (b'D', 5),
        (b'T', 8),
        (b'V', 0),
    ]
    .iter()
    .flat_map(|(kind, size)| entry(&[*kind], *kind, &vec![0xFF; *size]))
    .collect();
    let inner =
        [&every_type[..], &text_entry(b"S", "é\0\n".as_bytes()), &entry(b"x", b'x', &[0, 0, 0, 1, 0xFF])].concat();
    let table = [&inner[..], &entry(b"F", b'F', &[&length(&inner)[..], &inner].concat())].concat();
    let array = entry(b"", b'A', &[&length(&nested(b'A', DEEPEST - 1))[..], &nested(b'A', DEEPEST - 1)].concat());
    let table = [table, array].concat();
    let stream =
        [deliver(b"", "k\u{e9}".as_bytes()), with_table(&table), frame(3, 1, &[0xCE; 9]), frame(8, 0, b"")].concat();
    assert_eq!(at_once(&stream), (stream, None));
    assert_eq!(headers_of(&with_table(&table)).len(), 19);
}

#[test]
fn every_letter_that_is_no_type_is_told() {
    let known = b"tbBsUuIiLlfdDTVSxAF";
    for letter in (0..=255).filter(|letter| !known.contains(letter)) {
        let table = [text_entry(b"a", b"x"), entry(b"h", letter, b"1234"), text_entry(b"z", b"lost")].concat();
        let shown = letter.escape_ascii();
        let wrong = format!("the header \"h\" has the unknown type '{shown}'");
        check(&table, &wrong, &["a"], &format!("header \"h\" = {shown}1234\\x01zS\\x00\\x00\\x00\\x04lost"));
        // Within a container, whose end is known, it costs that one only.
        let array = [&[0, 0, 0, 2, b'V', letter][..]].concat();
        let table = [entry(b"h", b'A', &array), text_entry(b"z", b"kept")].concat();
        check(&table, &wrong, &["z"], "header \"h\" = A");
    }
}

#[test]
fn what_is_damaged_is_kept_as_text_and_the_rest_as_it_was() {
    let good = text_entry(b"good", b"v");
    let around = |bad: &[u8]| [&good, bad, &text_entry(b"last", b"v")].concat();
    let (first, both): (&[&str], &[&str]) = (&["good"], &["good", "last"]);
    check(
        &around(&text_entry(b"h", b"caf\xe9\x1b")),
        "the header \"h\" is not UTF-8",
        both,
        r#"header "h" = "caf\xe9\u{1b}""#,
    );
    check(
        &around(&text_entry(b"\xff\n", b"v")),
        r#"the header "\xff\n" is not UTF-8"#,
        both,
        r#"header "\xff\n" = "v""#,
    );
    let inner = text_entry(b"k", b"\xff");
    let table = entry(b"h", b'F', &[&length(&inner)[..], &inner].concat());
    check(&around(&table), "the header \"h\" is not UTF-8", both, r#"header "h" = F"#);
    let inner = text_entry(b"\xff", b"k");
    let table = entry(b"h", b'F', &[&length(&inner)[..], &inner].concat());
    check(&around(&table), "the header \"h\" is not UTF-8", both, r#"header "h" = F"#);
    // A length that reaches into what follows, and one that reaches beyond the table.
    check(&around(&entry(b"h", b'S', &[0xFF; 4])), "the header \"h\" is cut off", first, r#"header "h" = "\u{4}lastS"#);
    check(&around(&entry(b"h", b'A', &[0, 0, 0, 1, b'I'])), "the header \"h\" is cut off", both, "header \"h\" = A");
    check(&around(&entry(b"h", b'F', &[0, 0, 0, 1, 200])), "the header \"h\" is cut off", both, "header \"h\" = F");
    check(&[&good[..], &[200, b'h']].concat(), "the header \"h\" is cut off", first, "header \"h\"");
    check(&[&good[..], &short(b"h")].concat(), "the header \"h\" is cut off", first, "header \"h\"");
    let twice = [text_entry(b"a", b"\xff"), text_entry(b"b", b"\xff")].concat();
    check(&twice, "the header \"a\" is not UTF-8 (and 1 more)", &[], r#"header "a" = "\xff"; header "b" = "\xff""#);
}

#[test]
fn depth_number_and_size_are_bounded() {
    for kind in [b'A', b'F'] {
        for depth in [DEEPEST + 1, 100, 1000, 25_000] {
            let value = nested(kind, depth);
            let table = [text_entry(b"good", b"v"), short(b"deep"), value].concat();
            // What is larger than the frames of its publisher is cut off by us.
            let whole = table.len() + 100 < super::inflow::LARGEST;
            let wrong = if whole { "nests tables more than 32 deep" } else { "is cut off" };
            check(&table, &format!("the header \"deep\" {wrong}"), &["good"], "header \"deep\" = ");
        }
    }
    let numbered =
        |count: usize| (0..count).flat_map(|n| entry(format!("{n:04}").as_bytes(), b'V', b"")).collect::<Vec<_>>();
    assert_eq!(headers_of(&with_table(&numbered(1000))).len(), 1000);
    let many = headers_of(&with_table(&numbered(1002)));
    assert_eq!(many.len(), 1000 + 2);
    assert_eq!(text(&many, header::UNDECODABLE), "the header \"1000\" is beyond the 1000 that are read (and 1 more)");
    let array = |count: usize| entry(b"h", b'A', &[&length(&vec![b'V'; count])[..], &vec![b'V'; count]].concat());
    assert_eq!(headers_of(&with_table(&array(999))).len(), 1);
    check(&array(1000), "the header \"h\" is beyond the 1000 that are read", &[], "header \"h\" = A");
    let filled = |size: usize| text_entry(b"h", &vec![b'x'; size - 7]);
    assert_eq!(headers_of(&with_table(&filled(64 << 10))).len(), 1);
    let wrong = "the header \"h\" is beyond the 65536 bytes of headers that are read";
    check(&filled((64 << 10) + 1), wrong, &[], "xxx... (65530 bytes)");
    // What copies bear has room of its own: a message that is within the bounds has retries that are.
    let own = text_entry(header::UNDECODABLE_PARTS.as_bytes(), &[b'x'; 16 << 10]);
    let death = entry(b"x-death", b'A', &[&length(&[b'V'; 400])[..], &[b'V'; 400]].concat());
    let copy = [filled(64 << 10), own, death, text_entry(header::ATTEMPT.as_bytes(), b"2")].concat();
    assert_eq!(headers_of(&with_table(&copy)).len(), 4);
    let forged = text_entry(header::ERROR.as_bytes(), &[b'x'; 32 << 10]);
    check(&forged, "the header \"x-warrend-error\" is beyond the 65536 bytes of headers that are read", &[], "xxx");
}

#[test]
fn a_property_that_is_damaged_costs_no_other() {
    // content_type, headers, message_id, timestamp, app_id
    let flags = 1 << 15 | 1 << 13 | 1 << 7 | 1 << 6 | 1 << 3;
    let properties = |content_type: &[u8], message_id: &[u8], app_id: &[u8]| {
        let headers = text_entry(b"h", b"v");
        let fixed = [&short(content_type)[..], &length(&headers), &headers, &short(message_id), &[7; 8]].concat();
        content(flags, &[&fixed[..], app_id].concat())
    };
    let app = short(b"app");
    let is = |frame: &[u8], expect: [Option<&str>; 3], wrong: &str, parts: &str| {
        let header = header_of(frame);
        let is = &header.properties;
        let found = [is.content_type(), is.message_id(), is.app_id()].map(|text| text.as_deref());
        assert_eq!((found, is.timestamp().is_some()), (expect, true));
        let headers = is.headers().clone().unwrap_or_default();
        assert_eq!(text(&headers, "h"), "v");
        assert_eq!(text(&headers, header::UNDECODABLE), wrong);
        assert_eq!(text(&headers, header::UNDECODABLE_PARTS), parts);
    };
    let all = [Some("text/plain"), Some("id"), Some("app")];
    is(
        &properties(b"t\xff", b"id", &app),
        [None, all[1], all[2]],
        "the property content_type is not UTF-8",
        r#"content_type "t\xff""#,
    );
    is(
        &properties(b"text/plain", b"a\xffb", &app),
        [all[0], None, all[2]],
        "the property message_id is not UTF-8",
        r#"message_id "a\xffb""#,
    );
    is(
        &properties(b"text/plain", b"id", b"\x04app"),
        [all[0], all[1], None],
        "the property app_id is cut off",
        r#"app_id "app""#,
    );
    is(
        &properties(b"text/plain", b"id", b""),
        [all[0], all[1], None],
        "the property app_id is cut off",
        r#"app_id """#,
    );
    // Flags that nobody has defined: more may follow, and the properties may begin anywhere.
    for unknown in [1, 2] {
        let header = header_of(&content(1 << 15 | unknown, b"\x01tab"));
        assert_eq!(*header.properties.content_type(), None);
        let headers = header.properties.headers().clone().unwrap_or_default();
        assert_eq!(text(&headers, header::UNDECODABLE), "its property flags are unknown");
        assert_eq!(text(&headers, header::UNDECODABLE_PARTS), "properties \\x01tab");
    }
}

#[test]
fn a_name_of_the_message_that_is_not_text_marks_the_message_and_no_other() {
    let sound = [deliver(b"e", b"k"), with_table(b""), frame(3, 1, b"123456789")].concat();
    let odd = [deliver(b"e\xff\xfe", b"k\xff"), with_table(b""), frame(3, 1, b"123456789")].concat();
    let (read, violation) = at_once(&[&odd[..], &sound].concat());
    assert_eq!(violation, None);
    let odd = &read[..read.len() - sound.len()];
    assert_eq!(read[odd.len()..], sound);
    let (rest, method) = parse_frame(odd).unwrap();
    let AMQPFrame::Method(1, AMQPClass::Basic(Basic::Deliver(deliver))) = method else { panic!("{method:?}") };
    assert_eq!((&*deliver.exchange, &*deliver.routing_key, deliver.delivery_tag), ("e\\xff\\xfe", "k\\xff", 7));
    let (body, header) = parse_frame(rest).unwrap();
    let AMQPFrame::Header(1, 60, header) = header else { panic!("{header:?}") };
    let headers = header.properties.headers().clone().unwrap();
    assert_eq!(text(&headers, header::UNDECODABLE), "the exchange is not UTF-8 (and 1 more)");
    assert_eq!(text(&headers, header::UNDECODABLE_PARTS), r#"exchange "e\xff\xfe"; routing key "k\xff""#);
    assert_eq!(body, frame(3, 1, b"123456789"));
}

/// No broker sends such a stream; if one does, what was wrong with one message says nothing of the next.
#[test]
fn a_name_whose_message_never_came_marks_no_other() {
    let sound = [deliver(b"e", b"k"), with_table(b""), frame(3, 1, b"123456789")].concat();
    for between in [&b""[..], &frame(1, 1, &[0, 60, 0, 11])] {
        let (read, violation) = at_once(&[&deliver(b"e", b"\xff"), between, &sound].concat());
        assert_eq!(violation, None);
        assert_eq!(read[read.len() - sound.len()..], sound);
    }
}

#[test]
fn words_of_the_broker_are_made_text() {
    // RabbitMQ cuts its texts after 252 bytes, wherever a letter ends.
    let close = frame(1, 0, &[&[0, 10, 0, 50, 1, 64][..], &short(b"CONNECTION_FORCED - \xc3"), &[0; 4]].concat());
    let (read, violation) = at_once(&close);
    assert_eq!(violation, None);
    let AMQPFrame::Method(0, AMQPClass::Connection(Connection::Close(close))) = parsed(&read) else {
        panic!("{read:?}")
    };
    assert_eq!((close.reply_code, &*close.reply_text), (320, "CONNECTION_FORCED - \\xc3"));

    let long = frame(1, 1, &[&[0, 20, 0, 40, 1, 148][..], &short(&[0xFF; 255]), &[0; 4]].concat());
    let AMQPFrame::Method(1, AMQPClass::Channel(_)) = parsed(&at_once(&long).0) else { panic!("{long:?}") };

    let table = [short(b"deep"), nested(b'F', 10_000), text_entry(b"product", b"RabbitMQ")].concat();
    let strings = [&length(b"PLAIN")[..], b"PLAIN", &length(b"en_US"), b"en_US"].concat();
    let start = frame(1, 0, &[&[0, 10, 0, 10, 0, 9][..], &length(&table), &table, &strings].concat());
    let AMQPFrame::Method(0, AMQPClass::Connection(Connection::Start(start))) = parsed(&at_once(&start).0) else {
        panic!("it is a start")
    };
    assert_eq!(start.server_properties.keys().collect::<Vec<_>>(), ["product"]);
    assert_eq!(start.mechanisms, "PLAIN");
}

#[test]
fn the_goodbye_of_the_broker_is_remembered() {
    let mut inflow = Inflow::new();
    let close = frame(1, 0, &[&[0, 10, 0, 50, 1, 147][..], &short(b"ACCESS_REFUSED\n"), &[0; 4]].concat());
    inflow.room()[..close.len()].copy_from_slice(&close);
    inflow.came(close.len());
    assert_eq!(inflow.give(&mut [0; 4096]), Ok(close.len()));
    assert_eq!(inflow.take_closed(), Some(Closed { code: 403, text: "ACCESS_REFUSED ".to_owned() }));
}

#[test]
fn the_largest_frame_of_the_broker_is_remembered() {
    let mut inflow = Inflow::new();
    let tune = frame(1, 0, &[0, 10, 0, 30, 7, 255, 0, 0, 32, 0, 0, 60]);
    inflow.room()[..tune.len()].copy_from_slice(&tune);
    inflow.came(tune.len());
    assert_eq!(inflow.give(&mut [0; 4096]), Ok(tune.len()));
    assert_eq!((inflow.take_tuned(), inflow.take_tuned()), (Some(8192), None));
}

#[test]
fn what_no_broker_sends_ends_the_connection() {
    let sound = deliver(b"e", b"k");
    let check = |bytes: &[u8], expect: Violation| {
        let (read, violation) = at_once(&[&sound, bytes].concat());
        assert_eq!((read, violation), (sound.clone(), Some(expect)));
    };
    check(b"AMQP\0\0\x09\x01", Violation::NoFrame(*b"AMQP\0\0\x09"));
    check(b"\x01\0\0\xff\xff\xff\xff", Violation::Large { size: u32::MAX as usize });
    check(b"\x03\0\0\x00\x02\x00\x01", Violation::Large { size: 131_073 });
    check(b"\x01\0\0\0\0\0\x04\0\x0a\0\x33x", Violation::WrongEnd);
    check(&frame(1, 0, b"\0\x0a\0"), Violation::CutFrame);
    check(&frame(1, 0, b"\0\x3c\0\x3c\x09abc"), Violation::CutFrame);
    // A queue.declare, whose arguments the library would decode before it says that a broker does not send that.
    check(&frame(1, 1, b"\0\x32\0\x0a"), Violation::UnknownMethod { class: 50, method: 10 });
    check(&frame(2, 1, b"\0\x3c\0\0\0\0"), Violation::CutFrame);
    let huge = [&[0, 60, 0, 0][..], &u64::MAX.to_be_bytes(), &[0, 0]].concat();
    check(&frame(2, 1, &huge), Violation::LargeBody { size: u64::MAX });
}

#[test]
fn a_content_header_beyond_all_frames_arrives_and_costs_no_other() {
    let table = [text_entry(b"good", b"v"), text_entry(b"h", &vec![b'x'; 1 << 20])].concat();
    let after = [frame(3, 1, b"123456789"), deliver(b"e", b"k")].concat();
    let (read, violation) = at_once(&[&with_table(&table)[..], &after].concat());
    assert_eq!(violation, None);
    let (rest, header) = parse_frame(&read).unwrap();
    assert_eq!(rest, after);
    let AMQPFrame::Header(1, 60, header) = header else { panic!("{header:?}") };
    let headers = header.properties.headers().clone().unwrap();
    assert_eq!(text(&headers, "good"), "v");
    assert_eq!(text(&headers, header::UNDECODABLE), "the header \"h\" is cut off");
}

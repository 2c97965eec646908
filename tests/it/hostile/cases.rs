//! Messages as a library can publish them, however odd.

use amiquip::{AmqpProperties, AmqpValue, FieldTable};
use amq_protocol_types::DecimalValue;

use super::{Case, End, case, odd_headers};
use crate::amqp::long_text;
use crate::support::broker::with_id;

const MIB: usize = 1 << 20;
/// Bytes of a body that fill one frame.
const FRAME: usize = 131_072 - 8;

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut cases = odd_bodies();
    cases.extend(odd_properties());
    cases.extend(odd_attempts());
    cases.extend(large_headers());
    cases
}

fn odd_bodies() -> Vec<Case> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let one_more = vec![b'x'; 16 * MIB + 1];
    let zeros = vec![0; 16 * MIB];
    let plain = AmqpProperties::default;
    vec![
        case("empty", "", with_id("empty"), End::Done),
        case("a byte", "x", with_id("a byte"), End::Done),
        case("a frame less a byte", vec![b'x'; FRAME - 1], with_id("a frame less a byte"), End::Done),
        case("a frame", vec![b'x'; FRAME], with_id("a frame"), End::Done),
        case("a frame and a byte", vec![b'x'; FRAME + 1], with_id("a frame and a byte"), End::Done),
        case("nothing at all", "", plain(), End::Done),
        case("16 MiB", zeros, with_id("16 MiB"), End::Done),
        case("a byte more", one_more, with_id("a byte more"), End::Dead("oversize")),
        case("not UTF-8", every_byte, with_id("not UTF-8"), End::Done),
    ]
}

fn odd_properties() -> Vec<Case> {
    let mut odd_id = "\n\r\t\u{1b}[31m'\"\\$(reboot)`;&|é漢\u{202e}\u{fffd}=%s".to_owned();
    odd_id.extend(std::iter::repeat_n('-', 255 - odd_id.len()));
    let longest = "x".repeat(255);
    let every_property = with_id("every property")
        .with_content_type(longest.clone())
        .with_content_encoding(longest.clone())
        .with_correlation_id(longest.clone())
        .with_reply_to(longest.clone())
        .with_type_(longest.clone())
        .with_app_id(longest)
        .with_timestamp(u64::MAX)
        .with_delivery_mode(1)
        .with_priority(255);
    vec![
        case("an odd id", "", with_id(&odd_id), End::Done),
        case("a NUL in the id", "", with_id("a\0b"), End::Done),
        case("an empty id", "", with_id(""), End::Done),
        case("every property", "", every_property, End::Done),
        case("expiration 0", "", with_id("expiration 0").with_expiration("0".to_owned()), End::Done),
        odd_headers("headers of every type", &every_type(), End::Done),
    ]
}

fn every_type() -> Vec<(&'static str, AmqpValue)> {
    let scalars = vec![
        ("bool", AmqpValue::Boolean(true)),
        ("i8", AmqpValue::ShortShortInt(i8::MIN)),
        ("u8", AmqpValue::ShortShortUInt(u8::MAX)),
        ("i16", AmqpValue::ShortInt(i16::MIN)),
        ("u16", AmqpValue::ShortUInt(u16::MAX)),
        ("i32", AmqpValue::LongInt(i32::MIN)),
        ("u32", AmqpValue::LongUInt(u32::MAX)),
        ("i64", AmqpValue::LongLongInt(i64::MIN)),
        ("f32", AmqpValue::Float(f32::MIN)),
        ("f64", AmqpValue::Double(-0.0)),
        ("decimal", AmqpValue::DecimalValue(DecimalValue { scale: 255, value: u32::MAX })),
        ("text", long_text("NUL \0, escape \u{1b}, newline \n, quote \"")),
        ("empty text", long_text("")),
        ("bytes", AmqpValue::ByteArray(vec![0, 255, 10])),
        ("timestamp", AmqpValue::Timestamp(u64::MAX)),
        ("void", AmqpValue::Void),
        ("traceparent", AmqpValue::LongInt(1)),
        ("a name with \n \0 =", AmqpValue::Void),
    ];
    let table: FieldTable = scalars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let nested = AmqpValue::FieldArray(vec![
        AmqpValue::FieldTable(table.clone()),
        AmqpValue::FieldArray(vec![AmqpValue::Void, AmqpValue::FieldTable(FieldTable::new())]),
    ]);
    let mut all = scalars;
    all.push(("table", AmqpValue::FieldTable(table)));
    all.push(("array", nested));
    all
}

fn odd_attempts() -> Vec<Case> {
    use AmqpValue::{FieldTable as Table, LongLongInt as Long, Void};
    let (attempt, base) = ("x-warrend-attempt", "x-warrend-base");
    let (crashes, dead) = ("x-warrend-crashes", "x-warrend-dead");
    let broken = End::Dead("undecodable");
    vec![
        odd_headers("attempt as text", &[(attempt, long_text("2"))], End::Done),
        odd_headers("attempt soon", &[(attempt, long_text("soon"))], broken),
        odd_headers("attempt negative", &[(attempt, Long(-1))], broken),
        odd_headers("attempt zero", &[(attempt, Long(0))], broken),
        odd_headers("attempt huge", &[(attempt, Long(i64::MAX))], broken),
        odd_headers("attempt a table", &[(attempt, Table(FieldTable::new()))], broken),
        odd_headers("attempt large", &[(attempt, Long(1_000_000_000))], End::Done),
        odd_headers("base text", &[(base, long_text("nonsense"))], broken),
        odd_headers("base too large", &[(base, Long(7))], broken),
        odd_headers("crashes too many", &[(crashes, Long(7))], broken),
        odd_headers("first seen nonsense", &[("x-warrend-first-seen", long_text("then"))], End::Done),
        odd_headers("dead nonsense", &[(dead, Table(FieldTable::new()))], End::Done),
        odd_headers("dead, base nonsense", &[(dead, Void), (base, Long(7))], End::Done),
        odd_headers("dead, attempt nonsense", &[(dead, Void), (attempt, Long(-7))], broken),
        odd_headers("origin nonsense", &[("x-warrend-exchange", Void), ("x-warrend-queue", Long(1))], End::Done),
    ]
}

/// The bounds of the guard on the wire: 1000 values, and 64 KiB; what copies bear has room of its own.
fn large_headers() -> Vec<Case> {
    let beyond = End::Dead("undecodable");
    let numbered = |count: usize, size: usize| -> Vec<(String, AmqpValue)> {
        (0..count).map(|n| (format!("header-{n}"), long_text("v".repeat(size)))).collect()
    };
    let several = |name: &'static str, headers: &[(String, AmqpValue)], end: End| {
        let headers: Vec<(&str, AmqpValue)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        odd_headers(name, &headers, end)
    };
    // A header of a name of one byte takes seven more than its text.
    let filled = |size: usize| long_text("x".repeat(size - 7));
    let values = |count: usize| AmqpValue::FieldArray(vec![AmqpValue::Void; count - 1]);
    vec![
        several("1000 headers", &numbered(1000, 1), End::Done),
        several("1001 headers", &numbered(1001, 1), beyond),
        several("100 KB of headers", &numbered(1000, 85), beyond),
        odd_headers("1000 values", &[("h", values(1000))], End::Done),
        odd_headers("1001 values", &[("h", values(1001))], beyond),
        odd_headers("64 KiB", &[("h", filled(64 << 10))], End::Done),
        odd_headers("64 KiB and a byte", &[("h", filled((64 << 10) + 1))], beyond),
        odd_headers(
            "64 KiB and our own",
            &[("h", filled(64 << 10)), ("x-warrend-user-id", filled(30 << 10))],
            End::Done,
        ),
        odd_headers("a header of 100 KB", &[("h", filled(100_000))], beyond),
        odd_headers("a frame of headers", &[("h", filled(130_000))], beyond),
        odd_headers("a frame of our own", &[("x-warrend-routing-key", filled(130_000))], beyond),
        odd_headers("a frame like ours", &[("x-warrend-foo", filled(130_000))], beyond),
        odd_headers("a forged mark", &[("x-warrend-undecodable", long_text("\n\u{1b}[31m"))], beyond),
        odd_headers("forged parts", &[(super::PARTS, long_text("\n\u{1b}[31m and much more text"))], End::Done),
    ]
}

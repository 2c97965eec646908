//! Frames as a broker sends them, and what they are made of.

pub fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, channel][..], &length(payload), payload, &[0xCE]].concat()
}

pub fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_be_bytes()
}

pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub fn deliver(exchange: &[u8], routing_key: &[u8]) -> Vec<u8> {
    let tag = [&short(b"ctag")[..], &7_u64.to_be_bytes(), &[0]].concat();
    frame(1, 1, &[&[0, 60, 0, 60], &tag[..], &short(exchange), &short(routing_key)].concat())
}

/// A content header on channel 1 with such properties.
pub fn content(flags: u16, properties: &[u8]) -> Vec<u8> {
    let fixed = [&[0, 60, 0, 0][..], &9_u64.to_be_bytes(), &flags.to_be_bytes()].concat();
    frame(2, 1, &[&fixed[..], properties].concat())
}

pub fn with_table(table: &[u8]) -> Vec<u8> {
    content(1 << 13, &[&length(table)[..], table].concat())
}

/// An entry of a table: its name, its type, its bytes.
pub fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[kind], value].concat()
}

pub fn text_entry(name: &[u8], text: &[u8]) -> Vec<u8> {
    entry(name, b'S', &[&length(text)[..], text].concat())
}

/// A value with so many containers around it.
pub fn nested(kind: u8, depth: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..depth {
        let inner = if kind == b'F' { [&short(b"k")[..], &value].concat() } else { value };
        value = [&[kind][..], &length(&inner), &inner].concat();
    }
    value
}

//! The content header: what a message bears besides its body.

use super::wire::{Reader, Value};

/// The headers that warrend writes and the tap goes by.
const ATTEMPT: &str = "x-warrend-attempt";
const QUEUE: &str = "x-warrend-queue";
const DEAD: &str = "x-warrend-dead";

/// What the tap reads of a content header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Bytes of the body.
    pub size: u64,
    pub message_id: Option<String>,
    /// 2 = persistent.
    pub delivery_mode: Option<u8>,
    /// Of a copy: the attempt that it will be.
    pub attempt: Option<u32>,
    /// Of a copy: the work queue that the message failed in.
    pub queue: Option<String>,
    /// Of a dead letter.
    pub dead: bool,
}

impl Content {
    /// The attempt that this message is, by the rule for everything that arrives in a work queue.
    pub fn attempt(&self) -> u32 {
        self.attempt.unwrap_or(1)
    }

    pub fn read(payload: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(payload);
        Self::parse(&mut reader).ok_or_else(|| format!("a content header that ends too soon: {payload:02x?}"))
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let (_class, _weight, size) = (reader.u16()?, reader.u16()?, reader.u64()?);
        let flags = reader.u16()?;
        let has = |bit: u16| flags & (1 << bit) != 0;
        let mut content = Self { size, ..Self::default() };
        // Content type, content encoding.
        for _ in [15, 14].into_iter().filter(|bit| has(*bit)) {
            reader.short()?;
        }
        if has(13) {
            content.read_headers(Reader(reader.long()?))?;
        }
        if has(12) {
            content.delivery_mode = Some(reader.u8()?);
        }
        // Priority.
        if has(11) {
            reader.u8()?;
        }
        // Correlation id, reply to, expiration.
        for _ in [10, 9, 8].into_iter().filter(|bit| has(*bit)) {
            reader.short()?;
        }
        if has(7) {
            content.message_id = Some(reader.short()?);
        }
        Some(content)
    }

    fn read_headers(&mut self, mut table: Reader<'_>) -> Option<()> {
        while !table.0.is_empty() {
            let name = table.short()?;
            let value = table.value()?;
            match name.as_str() {
                ATTEMPT => self.attempt = value.integer().and_then(|attempt| u32::try_from(attempt).ok()),
                QUEUE => self.queue = value.text().map(str::to_owned),
                DEAD => self.dead = value != Value::Other,
                _ => {}
            }
        }
        Some(())
    }
}

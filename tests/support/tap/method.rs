//! The methods of AMQP 0-9-1, as far as a rule or a reader of the trace goes by them.

use std::fmt;

use super::wire::Reader;

/// Why a channel or a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub code: u16,
    pub text: String,
    /// Class and method that were at fault, 0 where none was.
    pub method: (u16, u16),
}

impl Reason {
    /// Whether it is more than the end of the work.
    pub fn is_trouble(&self) -> bool {
        self.code != 0 && self.code != 200
    }
}

/// One method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    Tune {
        heartbeat: u16,
    },
    TuneOk {
        frame_max: u32,
        heartbeat: u16,
    },
    ConnectionClose(Reason),
    ConnectionCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ChannelClose(Reason),
    ChannelCloseOk,
    ExchangeDeclare {
        name: String,
        passive: bool,
    },
    QueueDeclare {
        name: String,
        passive: bool,
    },
    Qos {
        prefetch: u16,
        global: bool,
    },
    Consume {
        queue: String,
        tag: String,
        no_ack: bool,
    },
    ConsumeOk {
        tag: String,
    },
    Cancel {
        tag: String,
    },
    CancelOk {
        tag: String,
    },
    Publish {
        exchange: String,
        key: String,
        mandatory: bool,
        immediate: bool,
    },
    Return {
        code: u16,
        exchange: String,
        key: String,
    },
    Deliver {
        consumer: String,
        tag: u64,
        redelivered: bool,
    },
    Get,
    GetOk,
    Ack {
        tag: u64,
        multiple: bool,
    },
    Nack {
        tag: u64,
        multiple: bool,
        requeue: bool,
    },
    Reject,
    Recover,
    ConfirmSelect,
    /// Class and method of what no rule goes by.
    Other(u16, u16),
}

impl Method {
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        Self::parse(&mut Reader(payload)).ok_or_else(|| format!("a method that ends too soon: {payload:02x?}"))
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let (class, method) = (reader.u16()?, reader.u16()?);
        let method = match (class, method) {
            (10, 30) => {
                let (_channel_max, _frame_max) = (reader.u16()?, reader.u32()?);
                Self::Tune { heartbeat: reader.u16()? }
            }
            (10, 31) => {
                reader.u16()?;
                Self::TuneOk { frame_max: reader.u32()?, heartbeat: reader.u16()? }
            }
            (10, 50) => Self::ConnectionClose(reason(reader)?),
            (10, 51) => Self::ConnectionCloseOk,
            (20, 10) => Self::ChannelOpen,
            (20, 11) => Self::ChannelOpenOk,
            (20, 40) => Self::ChannelClose(reason(reader)?),
            (20, 41) => Self::ChannelCloseOk,
            (40, 10) => {
                reader.u16()?;
                let (name, _kind) = (reader.short()?, reader.short()?);
                Self::ExchangeDeclare { name, passive: bit(reader.u8()?, 0) }
            }
            (50, 10) => {
                reader.u16()?;
                Self::QueueDeclare { name: reader.short()?, passive: bit(reader.u8()?, 0) }
            }
            (60, _) => return Self::basic(method, reader),
            (85, 10) => Self::ConfirmSelect,
            (class, method) => Self::Other(class, method),
        };
        Some(method)
    }

    fn basic(method: u16, reader: &mut Reader<'_>) -> Option<Self> {
        let method = match method {
            10 => {
                let (_size, prefetch) = (reader.u32()?, reader.u16()?);
                Self::Qos { prefetch, global: bit(reader.u8()?, 0) }
            }
            20 => {
                reader.u16()?;
                let (queue, tag) = (reader.short()?, reader.short()?);
                Self::Consume { queue, tag, no_ack: bit(reader.u8()?, 1) }
            }
            21 => Self::ConsumeOk { tag: reader.short()? },
            30 => Self::Cancel { tag: reader.short()? },
            31 => Self::CancelOk { tag: reader.short()? },
            40 => {
                reader.u16()?;
                let (exchange, key, bits) = (reader.short()?, reader.short()?, reader.u8()?);
                Self::Publish { exchange, key, mandatory: bit(bits, 0), immediate: bit(bits, 1) }
            }
            50 => {
                let (code, _text) = (reader.u16()?, reader.short()?);
                Self::Return { code, exchange: reader.short()?, key: reader.short()? }
            }
            60 => {
                let (consumer, tag) = (reader.short()?, reader.u64()?);
                Self::Deliver { consumer, tag, redelivered: bit(reader.u8()?, 0) }
            }
            70 => Self::Get,
            71 => Self::GetOk,
            80 => Self::Ack { tag: reader.u64()?, multiple: bit(reader.u8()?, 0) },
            90 => Self::Reject,
            100 | 110 => Self::Recover,
            120 => {
                let (tag, bits) = (reader.u64()?, reader.u8()?);
                Self::Nack { tag, multiple: bit(bits, 0), requeue: bit(bits, 1) }
            }
            method => Self::Other(60, method),
        };
        Some(method)
    }

    /// Whether a content header and a body follow.
    pub fn bears_content(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Return { .. } | Self::Deliver { .. } | Self::GetOk)
    }
}

fn reason(reader: &mut Reader<'_>) -> Option<Reason> {
    Some(Reason { code: reader.u16()?, text: reader.short()?, method: (reader.u16()?, reader.u16()?) })
}

fn bit(bits: u8, number: u8) -> bool {
    bits & (1 << number) != 0
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, text, method: (class, method) } = self;
        write!(f, "{code} {text:?} (class {class}, method {method})")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

//! What makes a message the same as another one.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The idempotency key of a message within its job, in its stored form.
///
/// The first byte says what the rest is, so that two different ids never share a key: 0 = the text itself,
/// 1 = a UUID in its canonical lower-case form packed into 16 bytes, 2 = 32 lower-case hex digits packed into
/// 16 bytes, 3 = the SHA-256 of the body. Short keys keep the store's tree shallow: the packed form costs about
/// a quarter less per record than text.
#[derive(Clone)]
pub struct MessageKey(Bytes);

/// Nearly all keys are short, and those are kept where they are used. A key outlives by minutes the message that it came with:
/// each in an allocation of its own, they would stay behind scattered over the memory that messages use, and keep it from being
/// used again as a whole.
#[derive(Clone)]
enum Bytes {
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    /// Cheap to clone too.
    Long(Arc<[u8]>),
}

/// As much as fits beside the length in the room that the other form takes anyway.
const SHORT: usize = 22;

impl MessageKey {
    /// Packs an id that came as text.
    pub fn from_text(text: &str) -> Self {
        let packed = match text.len() {
            36 => uuid::Uuid::try_parse(text).ok().filter(|id| {
                let mut canonical = [0; 36];
                *id.hyphenated().encode_lower(&mut canonical) == *text
            }),
            32 => uuid::Uuid::try_parse(text).ok().filter(|id| {
                let mut canonical = [0; 32];
                *id.simple().encode_lower(&mut canonical) == *text
            }),
            _ => None,
        };
        match packed {
            Some(id) => Self::tagged(if text.len() == 36 { 1 } else { 2 }, id.as_bytes()),
            None => Self::tagged(0, text.as_bytes()),
        }
    }

    /// The key of a body by its SHA-256.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self::tagged(3, &digest)
    }

    fn tagged(tag: u8, rest: &[u8]) -> Self {
        Self::joined(&[tag], rest)
    }

    /// The stored form read back.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::joined(&[], bytes)
    }

    fn joined(head: &[u8], rest: &[u8]) -> Self {
        let length = head.len() + rest.len();
        match u8::try_from(length) {
            Ok(short) if length <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..head.len()].copy_from_slice(head);
                bytes[head.len()..length].copy_from_slice(rest);
                Self(Bytes::Short { length: short, bytes })
            }
            _ => Self(Bytes::Long([head, rest].concat().into())),
        }
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }

    /// The key that a person means: the inverse of [`MessageKey::to_text`].
    pub fn from_display(text: &str) -> Self {
        let digest = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.is_ascii());
        let byte = |hex: &str, at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok();
        let digest = digest.and_then(|hex| {
            let bytes: Option<Vec<u8>> = (0..32).map(|at| byte(hex, at)).collect();
            <[u8; 32]>::try_from(bytes?).ok()
        });
        digest.map_or_else(|| Self::from_text(text), Self::from_digest)
    }

    /// What a person or a handler sees: the id as it came, or `sha256:` and 64 hex digits.
    pub fn to_text(&self) -> String {
        let Some((tag, rest)) = self.as_bytes().split_first() else { return String::new() };
        match (tag, <[u8; 16]>::try_from(rest)) {
            (1, Ok(id)) => uuid::Uuid::from_bytes(id).hyphenated().to_string(),
            (2, Ok(id)) => uuid::Uuid::from_bytes(id).simple().to_string(),
            (3, _) => rest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            (_, _) => String::from_utf8_lossy(rest).into_owned(),
        }
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MessageKey").field(&self.to_text()).finish()
    }
}

impl PartialEq for MessageKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for MessageKey {}

impl Hash for MessageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for MessageKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As SQLite orders them.
impl Ord for MessageKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_comes_back_as_it_was() {
        for (text, length) in [
            ("", 1),
            ("4711", 5),
            ("123456789012345678901", SHORT),
            ("1234567890123456789012", SHORT + 1),
            ("0190f1d2-7c3e-7a44-b1c5-5d0a2f4e6b70", 17),
            ("0190F1D2-7C3E-7A44-B1C5-5D0A2F4E6B70", 37),
            ("0190f1d27c3e7a44b1c55d0a2f4e6b70", 17),
            ("not 32 hexadecimal digits, these", 33),
        ] {
            let key = MessageKey::from_text(text);
            assert_eq!((key.to_text().as_str(), key.as_bytes().len()), (text, length));
            assert_eq!(MessageKey::from_display(text), key);
        }
        let digest = MessageKey::from_digest([0xa5; 32]);
        assert_eq!(digest.to_text(), format!("sha256:{}", "a5".repeat(32)));
        assert_eq!(MessageKey::from_display(&digest.to_text()), digest);
    }

    #[test]
    fn a_short_key_takes_no_more_room_than_a_long_one() {
        assert_eq!(size_of::<MessageKey>(), size_of::<Arc<[u8]>>() + 8);
        assert_eq!(size_of::<Option<MessageKey>>(), size_of::<MessageKey>());
    }

    proptest! {
        /// Equal, in order and with the same hash as their bytes are, on both sides of the longest short one.
        #[test]
        fn keys_compare_as_their_bytes(
            left in proptest::collection::vec(0..3_u8, 0..2 * SHORT),
            right in proptest::collection::vec(0..3_u8, 0..2 * SHORT),
        ) {
            let (one, other) = (MessageKey::from_bytes(&left), MessageKey::from_bytes(&right));
            prop_assert_eq!(one.as_bytes(), &left[..]);
            prop_assert_eq!(one.cmp(&other), left.cmp(&right));
            prop_assert_eq!(one == other, left == right);
            let hasher = std::hash::RandomState::new();
            prop_assert_eq!(hasher.hash_one(&one) == hasher.hash_one(&other), left == right);
        }
    }
}

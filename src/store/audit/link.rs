//! How one row follows another.

use std::fmt;
use std::str::FromStr;

use hex::FromHex as _;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};

use super::Chain;

/// What a hash is of, so that none fits anything else. A change of what is hashed is a change of this.
const DOMAIN: &[u8] = b"warrend audit 1\0";

/// A row's hash.
pub type Hash = [u8; 32];

/// The hash of a row: SHA-256 of the domain, the hash of the row before it (of the first: 32 zero bytes), and each field.
///
/// A field is a byte for its type (0 nothing, 1 integer, 2 real, 3 text, 4 bytes), and 8 bytes, the most significant first:
/// an integer itself, of text in UTF-8 and of bytes their number, which they follow. So no two rows are hashed as the same.
pub fn link<'v>(previous: &[u8], fields: impl Iterator<Item = ValueRef<'v>>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(previous);
    let mut add = |kind: u8, number: u64, bytes: &[u8]| {
        hash.update([kind]);
        hash.update(number.to_be_bytes());
        hash.update(bytes);
    };
    for field in fields {
        match field {
            ValueRef::Null => add(0, 0, &[]),
            ValueRef::Integer(number) => add(1, number.cast_unsigned(), &[]),
            // No column is of that type; a table that was tampered with may have one.
            ValueRef::Real(number) => add(2, number.to_bits(), &[]),
            ValueRef::Text(text) => add(3, text.len() as u64, text),
            ValueRef::Blob(bytes) => add(4, bytes.len() as u64, bytes),
        }
    }
    hash.finalize().into()
}

/// A row and its hash: to be kept where who may write the store cannot. Printed and read as `acts:17:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The chain.
    pub chain: Chain,
    /// The row.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain.as_str(), self.seq, hex::encode(self.hash))
    }
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut next = || parts.next().unwrap_or_default();
        let (chain, seq, hash) = (Chain::from_text(next()), next().parse().ok(), Hash::from_hex(next()).ok());
        let anchor = chain.zip(seq).zip(hash).filter(|_| parts.next().is_none());
        let ((chain, seq), hash) = anchor.ok_or("it is written CHAIN:ROW:HASH, as the log and `verify` print it")?;
        Ok(Self { chain, seq, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_as_it_is_printed() {
        let anchor = Anchor { chain: Chain::Dead, seq: 17, hash: std::array::from_fn(|at| at as u8 * 7) };
        assert_eq!(anchor.to_string().parse(), Ok(anchor));
        let digits = "0".repeat(64);
        for bad in ["", "acts", "acts:1", "acts:1:00", &format!("acts:x:{digits}"), &format!("x:1:{digits}")] {
            assert!(bad.parse::<Anchor>().is_err(), "{bad}");
        }
        for bad in [format!("acts:1:{digits}:"), format!("acts:1:{}é", "0".repeat(62))] {
            assert!(bad.parse::<Anchor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_that_differ_are_hashed_as_different_bytes() {
        let rows: [&[ValueRef<'_>]; 8] = [
            &[],
            &[ValueRef::Null],
            &[ValueRef::Integer(0)],
            &[ValueRef::Text(b"")],
            &[ValueRef::Blob(b"")],
            &[ValueRef::Text(b"a"), ValueRef::Text(b"bc")],
            &[ValueRef::Text(b"ab"), ValueRef::Text(b"c")],
            &[ValueRef::Text(b"abc"), ValueRef::Null],
        ];
        let hashes: std::collections::BTreeSet<Hash> =
            rows.iter().map(|row| link(&[0; 32], row.iter().copied())).collect();
        assert_eq!(hashes.len(), rows.len());
        assert_ne!(link(&[0; 32], std::iter::empty()), link(&[1; 32], std::iter::empty()));
    }

    #[test]
    fn the_first_row_of_a_store_has_always_the_same_hash() {
        // Computed by hand, with another program: what is hashed must never change without a new domain.
        let fields = [ValueRef::Integer(1), ValueRef::Text("ä".as_bytes()), ValueRef::Null, ValueRef::Blob(&[7])];
        let expected = "9e1025175d96fe0997041f274f4256f4d9689dfec7ad04407647030d9e7c6146";
        assert_eq!(hex::encode(link(&[0; 32], fields.into_iter())), expected);
    }
}

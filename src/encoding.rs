//! The encodings of a body that `content_encoding` names: gzip, deflate and zstd.
//!
//! [`decode`] is called where a body is looked into: by a handler before its program sees it, by `policy` for a key within
//! it, by `warrend call` for a reply. [`Encoding::encode`] serves `warrend publish`. What is stored, copied or
//! dead-lettered stays as it came.
//!
//! A body is a stranger's: a kilobyte of zstd can stand for a terabyte. So no step makes more than `most` bytes, and none
//! takes much more memory than twice that.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};

use flate2::Compression;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, is_error_kind};

use crate::task::{ErrorClass, Failure};

/// The first bytes of every gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The smallest zstd window that a decoder should allow is 8 MiB (RFC 8878, 3.1.1.1.2), and 2 GiB is the largest that the
/// library knows; both as powers of two.
const ZSTD_WINDOW_LOG: (u32, u32) = (23, 31);

/// Room for the first piece of a decoded body, in bytes.
const FIRST_PIECE: usize = 16 << 10;

/// An encoding that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952, also called `x-gzip`; any number of members.
    Gzip,
    /// RFC 1950, which HTTP calls `deflate`; the bare RFC 1951 is understood too, as some clients send it.
    Deflate,
    /// RFC 8878; any number of frames, without dictionaries.
    Zstd,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It would have more bytes than are allowed.
    TooLarge,
    /// It asks for more working memory than is allowed.
    WindowTooLarge,
    /// Its end is missing.
    Truncated,
    /// It is something else, or was damaged.
    Damaged,
    /// It is whole, but more follows.
    Trailing,
}

/// Undoes what the property `content_encoding` names, which may be a list in the order in which they were applied.
///
/// A body of a known encoding is owned afterwards, and has at most `most` bytes; more is a failure of the class
/// `oversize`, and a body that is not what it says is `undecodable`. Where one name is unknown (`utf-8`, `binary`,
/// `base64`: some publishers name what is not an encoding of bytes), nothing is undone: the body is the one given.
pub fn decode<'b>(content_encoding: Option<&str>, body: &'b [u8], most: u64) -> Result<Cow<'b, [u8]>, Failure> {
    let Some(applied) = content_encoding.and_then(Encoding::list) else {
        return Ok(Cow::Borrowed(body));
    };
    let mut decoded = Cow::Borrowed(body);
    for encoding in applied.into_iter().rev() {
        let undone = encoding.undo(&decoded, most).map_err(|fault| fault.tell(encoding, most))?;
        decoded = Cow::Owned(undone);
    }
    Ok(decoded)
}

impl Encoding {
    /// What `content_encoding` says of a body of this encoding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The body in this encoding. Fails only for want of memory.
    pub fn encode(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(body, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// All encodings of a list; `None` where one is unknown. `identity` stands for nothing.
    fn list(names: &str) -> Option<Vec<Self>> {
        let names = names.split(',').map(|name| name.trim_ascii());
        let named = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        named.map(Self::from_name).collect()
    }

    fn from_name(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }

    fn undo(self, body: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Gzip => gunzip(body, most),
            Self::Deflate => inflate(body, most),
            Self::Zstd => unzstd(body, most),
        }
    }
}

impl Fault {
    fn tell(self, encoding: Encoding, most: u64) -> Failure {
        let name = encoding.name();
        let broken = |what| (ErrorClass::Undecodable, format!("the body is not the {name} that it says it is: {what}"));
        let (class, error) = match self {
            Self::TooLarge => {
                (ErrorClass::Oversize, format!("decoded from {name}, the body has more than {most} bytes"))
            }
            Self::WindowTooLarge => {
                let allowed = 1_u64 << window_log(most);
                let error = format!("the body's {name} needs a window of more than {allowed} bytes to be decoded");
                (ErrorClass::Oversize, error)
            }
            Self::Truncated => broken("its end is missing"),
            Self::Damaged => broken("it is damaged, or something else"),
            Self::Trailing => broken("something follows its end"),
        };
        Failure { class, error }
    }
}

/// Adds everything that a decoder gives to what is decoded, up to `most` bytes in all.
fn read_all(decoder: impl Read, decoded: &mut Vec<u8>, most: u64) -> Result<(), Fault> {
    // One byte beyond shows that there is more.
    let room = most.saturating_add(1).saturating_sub(decoded.len() as u64);
    match decoder.take(room).read_to_end(decoded) {
        Ok(_) if decoded.len() as u64 > most => Err(Fault::TooLarge),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Fault::Truncated),
        Err(_) => Err(Fault::Damaged),
    }
}

fn gunzip(body: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
    let mut decoder = GzDecoder::new(body);
    let mut decoded = Vec::new();
    loop {
        read_all(&mut decoder, &mut decoded, most)?;
        let rest = *decoder.get_ref();
        if rest.is_empty() {
            return Ok(decoded);
        }
        if !rest.starts_with(&GZIP_MAGIC) {
            return Err(Fault::Trailing);
        }
        decoder.reset(rest);
    }
}

fn inflate(body: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
    let mut decoded = Vec::new();
    let rest = if has_zlib_header(body) {
        let mut decoder = ZlibDecoder::new(body);
        read_all(&mut decoder, &mut decoded, most)?;
        decoder.into_inner()
    } else {
        let mut decoder = DeflateDecoder::new(body);
        read_all(&mut decoder, &mut decoded, most)?;
        decoder.into_inner()
    };
    if rest.is_empty() { Ok(decoded) } else { Err(Fault::Trailing) }
}

/// Whether a `deflate` body begins as RFC 1950 has it: method 8, a window of at most 32 KiB, divisible by 31.
///
/// A bare stream cannot look like that unless its encoder left odd bits in the padding of a stored block.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => {
            method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        [] | [_] => false,
    }
}

fn unzstd(body: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
    let mut decoder = DCtx::create();
    let window = DParameter::WindowLogMax(window_log(most));
    decoder.set_parameter(window).expect("the power is in the library's range");
    let mut input = InBuffer::around(body);
    let mut decoded = Vec::new();
    let mut frames = 0;
    loop {
        make_room(&mut decoded, most);
        let from = decoded.len();
        let wanted = decoder.decompress_stream(&mut OutBuffer::around_pos(&mut decoded, from), &mut input);
        let wanted = wanted.map_err(|code| zstd_fault(code, frames))?;
        if decoded.len() as u64 > most {
            return Err(Fault::TooLarge);
        }
        frames += usize::from(wanted == 0);
        let is_read = input.pos() == body.len();
        if is_read && wanted == 0 {
            return Ok(decoded);
        }
        // While there was room, nothing is left behind that only needs some.
        if is_read && decoded.len() < decoded.capacity() {
            return Err(Fault::Truncated);
        }
    }
}

/// Room for the next piece: as much as there is already, and at most one byte beyond `most`.
fn make_room(decoded: &mut Vec<u8>, most: u64) {
    if decoded.len() == decoded.capacity() {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let left = most.saturating_add(1).saturating_sub(decoded.len());
        decoded.reserve_exact(left.min(decoded.len().max(FIRST_PIECE)));
    }
}

/// The power of two of the largest zstd window: no more than the body may have, rounded up, but what every decoder allows.
fn window_log(most: u64) -> u32 {
    let (least, largest) = ZSTD_WINDOW_LOG;
    (u64::BITS - most.saturating_sub(1).leading_zeros()).clamp(least, largest)
}

/// `frames` were whole before the error.
fn zstd_fault(code: usize, frames: usize) -> Fault {
    if is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
        Fault::WindowTooLarge
    } else if is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_prefix_unknown) && frames > 0 {
        Fault::Trailing
    } else {
        Fault::Damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// What other programs make of "hello": Python's gzip, its zlib with and without a header, the zstd command.
    const HELLO: [(&str, &str); 4] = [
        ("gzip", "1f8b0800000000000203cb48cdc9c9070086a6103605000000"),
        ("deflate", "789ccb48cdc9c90700062c0215"),
        ("deflate", "cb48cdc9c90700"),
        ("zstd", "28b52ffd04582900 0068656c6c6f a36d9f88"),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.replace(' ', "");
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Text that shrinks, but not to nothing: several kilobytes in every encoding.
    fn text() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..64 * KIB).map(|_| random.u8(b'a'..=b'p')).collect()
    }

    #[track_caller]
    fn check(names: &str, body: &[u8], most: u64, expect: Result<&[u8], ErrorClass>) {
        match (decode(Some(names), body, most), expect) {
            (Ok(found), Ok(expect)) => {
                assert!(matches!(found, Cow::Owned(_)), "{names}");
                assert!(*found == *expect, "{names}: {} bytes", found.len());
            }
            (Err(failure), Err(class)) => {
                assert_eq!(failure.class, class, "{names}: {}", failure.error);
                assert!(failure.error.len() < 120 && !failure.error.contains('\n'), "{}", failure.error);
            }
            (found, expect) => panic!("{names}: {:?}, not {:?}", found.map(|b| b.len()), expect.map(<[u8]>::len)),
        }
    }

    #[test]
    fn what_other_programs_encode_is_decoded() {
        for (name, hex) in HELLO {
            check(name, &bytes(hex), 5, Ok(b"hello"));
            check(name, &bytes(hex), 4, Err(ErrorClass::Oversize));
            check(&format!(" {} ", name.to_uppercase()), &bytes(hex), MIB, Ok(b"hello"));
        }
        check("x-GZip", &bytes(HELLO[0].1), MIB, Ok(b"hello"));
    }

    #[test]
    fn what_is_encoded_here_is_decoded_here() {
        for encoding in ALL {
            for body in [b"".to_vec(), b"x".to_vec(), text()] {
                let encoded = encoding.encode(&body).unwrap();
                let most = body.len() as u64;
                check(encoding.name(), &encoded, most, Ok(&body));
                check(encoding.name(), &encoded, u64::MAX, Ok(&body));
                if most > 0 {
                    check(encoding.name(), &encoded, most - 1, Err(ErrorClass::Oversize));
                }
            }
            assert!(encoding.encode(&text()).unwrap().len() < text().len() * 3 / 4, "it shrinks");
        }
    }

    #[test]
    fn an_encoding_that_is_none_of_ours_leaves_the_body_alone() {
        let body = bytes(HELLO[0].1);
        let names = [
            "utf-8",
            "binary",
            "base64",
            "br",
            "identity",
            "",
            " , ",
            "gzip, utf-8",
            "utf-8,gzip",
            "gzipx",
            "gzip;q=1",
        ];
        for name in names.map(Some).into_iter().chain([None]) {
            let decoded = decode(name, &body, 1).unwrap();
            assert!(matches!(decoded, Cow::Borrowed(same) if same == body), "{name:?}");
        }
    }

    #[test]
    fn a_list_is_undone_from_its_end() {
        let zipped = Encoding::Gzip.encode(b"hello").unwrap();
        let both = Encoding::Zstd.encode(&zipped).unwrap();
        check("gzip, zstd", &both, MIB, Ok(b"hello"));
        check("x-gzip,identity , ZSTD,", &both, MIB, Ok(b"hello"));
        check("zstd, gzip", &both, MIB, Err(ErrorClass::Undecodable));
        // No step may make more than is allowed, though the last one would make less again.
        check("gzip, zstd", &both, 5, Err(ErrorClass::Oversize));
        let zipped_bomb = Encoding::Zstd.encode(&gzip_bomb(1)).unwrap();
        check("gzip, zstd", &zipped_bomb, MIB - 1, Err(ErrorClass::Oversize));
    }

    #[test]
    fn several_members_are_one_body() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let parts = [&b"one "[..], b"", b"two"].map(|part| encoding.encode(part).unwrap());
            check(encoding.name(), &parts.concat(), 7, Ok(b"one two"));
            check(encoding.name(), &parts.concat(), 6, Err(ErrorClass::Oversize));
        }
        // A skippable frame, as RFC 8878 has it: four bytes of somebody's metadata.
        let skippable = bytes("502a4d18 04000000 01020304");
        let hello = Encoding::Zstd.encode(b"hello").unwrap();
        check("zstd", &[&skippable[..], &hello, &skippable].concat(), 5, Ok(b"hello"));
    }

    #[test]
    fn wherever_a_body_is_cut_it_is_noticed() {
        let bodies = ALL.map(|encoding| (encoding.name(), encoding.encode(&text()[..300]).unwrap()));
        let others = HELLO.map(|(name, hex)| (name, bytes(hex)));
        for (name, encoded) in bodies.into_iter().chain(others) {
            for end in 0..encoded.len() {
                check(name, &encoded[..end], MIB, Err(ErrorClass::Undecodable));
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_noticed() {
        let tails: [&[u8]; 5] = [b"\0", b"x", b"\x1f", b"more than any header would take", &[0; 512]];
        for (name, hex) in HELLO {
            for tail in tails {
                check(name, &[&bytes(hex), tail].concat(), MIB, Err(ErrorClass::Undecodable));
            }
        }
    }

    #[test]
    fn damage_is_noticed() {
        let text = text();
        for encoding in ALL {
            let mut encoded = encoding.encode(&text).unwrap();
            let last = encoded.len() - 1;
            for at in [0, last / 2, last] {
                encoded[at] ^= 0x40;
                // Without a checksum zstd cannot tell some damage; then another body comes out, never a longer one.
                if encoding != Encoding::Zstd || at == 0 {
                    check(encoding.name(), &encoded, MIB, Err(ErrorClass::Undecodable));
                } else if let Ok(found) = decode(Some("zstd"), &encoded, MIB) {
                    assert!(found.len() as u64 <= MIB);
                }
                encoded[at] ^= 0x40;
            }
            check(encoding.name(), b"plain text", MIB, Err(ErrorClass::Undecodable));
        }
    }

    #[test]
    fn any_bytes_end_in_a_body_or_a_failure() {
        let mut random = fastrand::Rng::with_seed(11);
        for encoding in ALL {
            let whole = encoding.encode(&text()[..2000]).unwrap();
            for _ in 0..500 {
                let mut body = whole.clone();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..body.len());
                    body[at] = random.u8(..);
                }
                match decode(Some(encoding.name()), &body, 3000) {
                    Ok(decoded) => assert!(decoded.len() <= 3000),
                    Err(failure) => assert!(!failure.error.is_empty()),
                }
            }
        }
    }

    /// So many mebibytes of zeros, in as many members.
    fn gzip_bomb(mebibytes: usize) -> Vec<u8> {
        Encoding::Gzip.encode(&vec![0; MIB as usize]).unwrap().repeat(mebibytes)
    }

    /// A frame of blocks of 128 KiB of zeros, four bytes each; `window` is the byte that says how large it is.
    fn zstd_bomb(blocks: usize, window: u8) -> Vec<u8> {
        let block = |last: u32| -> [u8; 4] { (last | 1 << 1 | (128 << 10) << 3_u32).to_le_bytes() };
        let mut bomb = bytes("28b52ffd00");
        bomb.push(window);
        bomb.extend((1..blocks).flat_map(|_| block(0)));
        bomb.extend(block(1));
        bomb
    }

    /// A window of 2 to this power.
    const fn window(log: u8) -> u8 {
        (log - 10) << 3
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        check("gzip", &gzip_bomb(4096), 64 * KIB, Err(ErrorClass::Oversize));
        check("deflate", &Encoding::Deflate.encode(&vec![0; 8 << 20]).unwrap(), 64 * KIB, Err(ErrorClass::Oversize));
        check("zstd", &zstd_bomb(1 << 20, window(23)), 64 * KIB, Err(ErrorClass::Oversize));
        // The bomb is no body that would be refused anyway.
        check("zstd", &zstd_bomb(2, window(23)), 256 * KIB, Ok(&[0; 256 << 10]));
        check("zstd", &zstd_bomb(2, window(23)), 256 * KIB - 1, Err(ErrorClass::Oversize));
    }

    #[test]
    fn a_window_may_be_as_large_as_the_body_and_eight_mebibytes() {
        let body = |log| zstd_bomb(1, window(log));
        check("zstd", &body(23), 128 * KIB, Ok(&[0; 128 << 10]));
        check("zstd", &body(24), 128 * KIB, Err(ErrorClass::Oversize));
        check("zstd", &body(24), 8 * MIB + 1, Ok(&[0; 128 << 10]));
        check("zstd", &body(25), 16 * MIB, Err(ErrorClass::Oversize));
        // A frame that says at once that it has a terabyte, and is one piece: its window is all of it.
        check("zstd", &bytes("28b52ffd e0 0000000000010000 0300006100"), MIB, Err(ErrorClass::Oversize));
        assert_eq!((window_log(0), window_log(MIB), window_log(u64::MAX)), (23, 23, 31));
    }

    /// Any body under any name of an encoding.
    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        fn encoding() -> impl Strategy<Value = Encoding> {
            prop::sample::select(&ALL[..])
        }

        proptest! {
            #[test]
            fn what_was_encoded_comes_back(
                list in prop::collection::vec(encoding(), 0..4),
                body in prop::collection::vec(any::<u8>(), 0..5000),
            ) {
                let mut encoded = body.clone();
                for encoding in &list {
                    encoded = encoding.encode(&encoded).unwrap();
                }
                let names: Vec<_> = list.iter().map(|encoding| encoding.name()).collect();
                prop_assert_eq!(&*decode(Some(&names.join(", ")), &encoded, MIB).unwrap(), &body[..]);
            }

            /// Damaged, cut, or made longer: a body within its bound, or a failure in one short sentence.
            #[test]
            fn a_damaged_body_is_decoded_or_refused(
                encoding in encoding(),
                body in prop_oneof![prop::collection::vec(any::<u8>(), 0..3000), Just(vec![0; 100_000])],
                damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..6),
                most in prop_oneof![0..10_u64, 0..4000_u64, Just(MIB)],
            ) {
                let mut encoded = encoding.encode(&body).unwrap();
                for (at, byte, how) in damage {
                    let at = at.index(encoded.len());
                    match how {
                        0 => encoded[at] = byte,
                        1 => encoded.insert(at, byte),
                        _ => encoded.truncate(at + 1),
                    }
                }
                check_bound(encoding.name(), &encoded, most)?;
            }

            #[test]
            fn any_bytes_under_any_name_end_in_a_body_or_a_failure(
                name in prop_oneof![any::<String>(), "(gzip|x-gzip|deflate|zstd|identity|[a-z]{1,4})( ?, ?(gzip|deflate|zstd)){0,3}"],
                start in prop_oneof![Just(&b""[..]), Just(&b"\x1f\x8b\x08"[..]), Just(&b"\x78\x9c"[..]), Just(&b"\x28\xb5\x2f\xfd"[..])],
                rest in prop::collection::vec(any::<u8>(), 0..300),
                most in 0..100_000_u64,
            ) {
                check_bound(&name, &[start, &rest].concat(), most)?;
            }
        }

        fn check_bound(name: &str, body: &[u8], most: u64) -> Result<(), TestCaseError> {
            match decode(Some(name), body, most) {
                Ok(Cow::Borrowed(same)) => prop_assert_eq!(same, body),
                Ok(Cow::Owned(decoded)) => prop_assert!(decoded.len() as u64 <= most),
                Err(failure) => {
                    prop_assert!(matches!(failure.class, ErrorClass::Oversize | ErrorClass::Undecodable));
                    prop_assert!(failure.error.len() < 120 && !failure.error.contains('\n'), "{}", failure.error);
                }
            }
            Ok(())
        }
    }
}

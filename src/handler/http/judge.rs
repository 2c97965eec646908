//! What an answer means; the table stands at the head of `http.rs`.

use std::time::{Duration, SystemTime};

use super::exchange::{EXCERPT, Exchanged, Missing, Received};
use super::request::Target;
use crate::handler::Context;
use crate::task::{Answer, ErrorClass, Failure, Outcome, Reply};

/// What is done with a task whose exchange ended so.
pub fn judge(exchanged: Exchanged, target: &Target, context: &Context) -> Answer {
    let received = match exchanged {
        Ok(received) => received,
        Err(lost) => return Outcome::Retry(Failure { class: lost.class, error: lost.why }).into(),
    };
    match received.status.as_u16() {
        200..=299 if context.reply => reply(received, context),
        200..=299 => Outcome::Done.into(),
        408 | 425 | 429 | 500..=599 => retry(&received, ""),
        400..=499 => Outcome::Dead(Failure { class: ErrorClass::Rejected, error: told(&received, "") }).into(),
        300..=399 => retry(&received, &redirect(&received, target)),
        _ => retry(&received, ", which is no answer to a request"),
    }
}

/// The status said that all is well; so the body is the reply, if it can be one.
fn reply(received: Received, context: &Context) -> Answer {
    let status = received.status.as_u16();
    let failed = |outcome: fn(Failure) -> Outcome, class, error| outcome(Failure { class, error }).into();
    if let Some(encoding) = received.content_encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let encoding: String = encoding.escape_debug().take(40).collect();
        let error = format!("status {status}, but a reply with the encoding {encoding}, which was not asked for");
        return failed(Outcome::Dead, ErrorClass::Undecodable, error);
    }
    match received.missing {
        Missing::Nothing => {
            let reply = Reply { body: received.body, content_type: received.content_type };
            Answer { reply: Some(reply), ..Outcome::Done.into() }
        }
        Missing::Rest => {
            let error = format!("status {status}, but more than a reply may have ({} bytes)", context.max_body);
            failed(Outcome::Dead, ErrorClass::Oversize, error)
        }
        Missing::Lost(lost) => failed(Outcome::Retry, lost.class, format!("status {status}, but {}", lost.why)),
    }
}

fn retry(received: &Received, remark: &str) -> Answer {
    let failure = Failure { class: ErrorClass::Failed, error: told(received, remark) };
    let delay = received.retry_after.as_deref().and_then(|text| retry_after(text, SystemTime::now()));
    Answer { delay, ..Outcome::Retry(failure).into() }
}

/// Only the host is told: what follows it in a URL may hold tokens.
fn redirect(received: &Received, target: &Target) -> String {
    let to = received.location.as_deref().and_then(|location| target.origin_of(location));
    let to = to.map(|origin| format!(" to {origin}")).unwrap_or_default();
    format!(", a redirect{to} that is not followed")
}

/// How long a server asks to wait (RFC 9110, section 10.2.3): seconds, or a date. A time that is over asks for nothing.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has: a long time.
        Duration::from_secs(text.parse().unwrap_or(u32::MAX).into())
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    (!wait.is_zero()).then_some(wait)
}

/// The status, the remark, and what the server said.
pub fn told(received: &Received, remark: &str) -> String {
    let status = received.status;
    let reason = status.canonical_reason().map(|reason| format!(" ({})", reason.to_lowercase())).unwrap_or_default();
    let said = excerpt(&received.body, matches!(received.missing, Missing::Rest));
    let colon = if said.is_empty() { "" } else { ": " };
    format!("status {}{reason}{remark}{colon}{said}", status.as_u16())
}

/// The begin of a body as text of at most about a kibibyte, for people: no control character but newline and tab, no
/// whitespace at its ends, `…` where more followed.
fn excerpt(body: &[u8], more: bool) -> String {
    let clean = |char: char| match char {
        '\r' => ' ',
        '\n' | '\t' => char,
        '\u{2028}' | '\u{2029}' => ' ',
        char if char.is_control() => char::REPLACEMENT_CHARACTER,
        char => char,
    };
    let mut text = String::with_capacity(body.len());
    let mut cut = more;
    for char in String::from_utf8_lossy(body).chars().map(clean) {
        if text.len() + char.len_utf8() > EXCERPT {
            cut = true;
            break;
        }
        text.push(char);
    }
    // The cut may have gone through a character; its remains are no text.
    let text = if more { text.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { &text };
    let text = text.trim();
    format!("{text}{}", if cut && !text.is_empty() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_to_wait_in_seconds_or_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        };
        check("120", Some(120));
        check(" 7 ", Some(7));
        check("Sun, 06 Nov 1994 08:50:00 GMT", Some(23));
        check("Sunday, 06-Nov-94 08:49:38 GMT", Some(1));
        check("Sun Nov  6 08:49:47 1994", Some(10));
        check("99999999999999999999999", Some(u32::MAX.into()));
        for nothing in ["0", "", "-5", "1.5", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", "Sat, 05 Nov 1994 08:49:37 GMT"]
        {
            check(nothing, None);
        }
    }

    #[test]
    fn an_excerpt_is_short_clean_and_says_that_it_was_cut() {
        assert_eq!(excerpt(b"", false), "");
        assert_eq!(excerpt(b" \r\n ", true), "");
        assert_eq!(excerpt(b" no\r\nluck\x1b[2J\xff\0 \n", false), "no \nluck\u{fffd}[2J\u{fffd}\u{fffd}");
        assert_eq!(excerpt("a\u{2028}b\u{85}".as_bytes(), false), "a b\u{fffd}");
        for shift in 0..3 {
            let text = "x".repeat(shift) + &"€".repeat(EXCERPT);
            let cut = excerpt(&text.as_bytes()[..EXCERPT], true);
            let whole = cut.strip_suffix('…').unwrap();
            assert!(
                whole.len() > EXCERPT - 4 && whole.trim_start_matches('x').chars().all(|char| char == '€'),
                "{cut}"
            );
        }
        let garbage = excerpt(&[0xff; EXCERPT], false);
        assert!(garbage.len() <= EXCERPT + 3 && garbage.ends_with('…'), "{}", garbage.len());
    }

    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn any_retry_after_is_a_wait_or_nothing(text in prop_oneof![
                any::<String>(),
                "[0-9]{1,30}",
                "(Sun|Monday)?,? ?[0-9]{1,3}[ -](Nov|[A-Z][a-z]{2})[ -][0-9]{1,5} [0-9]{1,3}:[0-9]{2}:[0-9]{2} GMT",
            ]) {
                if let Some(wait) = retry_after(&text, SystemTime::now()) {
                    prop_assert!(!wait.is_zero());
                }
            }

            #[test]
            fn any_body_has_a_clean_excerpt(body in prop::collection::vec(any::<u8>(), 0..2000), more: bool) {
                let text = excerpt(&body, more);
                prop_assert!(text.len() <= EXCERPT + '…'.len_utf8());
                prop_assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
            }
        }
    }
}

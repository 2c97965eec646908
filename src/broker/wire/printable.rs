//! Bytes of strangers as text that can be printed, and read back by a person.

/// Text in quotes, with everything escaped that a terminal would obey and every byte that is not UTF-8, cut after about
/// `most` bytes.
pub(super) fn quoted(bytes: &[u8], most: usize) -> String {
    format!("\"{}\"", text(bytes, most))
}

/// The same without the quotes.
pub(super) fn text(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if text.len() >= most {
                return cut(&text, bytes.len());
            }
            text.extend(char.escape_debug());
        }
        if !chunk.invalid().is_empty() {
            if text.len() >= most {
                return cut(&text, bytes.len());
            }
            text.extend(chunk.invalid().escape_ascii().map(char::from));
        }
    }
    text
}

/// Bytes that are no text, cut in the same way.
pub(super) fn raw(bytes: &[u8], most: usize) -> String {
    let shown = &bytes[..bytes.len().min(most / 2)];
    let text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() { cut(&text, bytes.len()) } else { text }
}

fn cut(text: &str, bytes: usize) -> String {
    format!("{text}... ({bytes} bytes)")
}

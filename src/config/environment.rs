//! `${NAME}` and `${NAME:-default}` in string values.
//!
//! As in a shell, the default also stands in for a variable that is set but empty. `$${` is a plain `${`. What comes
//! from the environment is not expanded again, and a default ends at the next `}`.

/// Why a text cannot be expanded. Holds names only: a default may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The variable is not set, and the text gives no default.
    Unset(String),
    /// `${` without its `}`.
    Unclosed,
    /// What stands between the braces is no name of a variable.
    BadName,
}

/// Replaces every variable of `raw`, or says what is wrong with the first that cannot be.
pub fn expand(raw: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            text.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (inner, after) = after.split_once('}').ok_or(Fault::Unclosed)?;
            text.push_str(&variable(inner, env)?);
            rest = after;
        } else {
            text.push('$');
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// The value for what stands between the braces.
fn variable(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Fault::BadName);
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expect: Result<&str, Fault>) {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        assert_eq!(expand(raw, &env), expect.map(str::to_owned), "{raw}");
    }

    #[test]
    fn replaces_variables() {
        check("plain $ and $A and {A}", Ok("plain $ and $A and {A}"));
        check("<${A}${A}>", Ok("<oneone>"));
        check("${EMPTY}", Ok(""));
        check("${EMPTY:-other}", Ok("other"));
        check("${GONE:-}", Ok(""));
        check("${GONE:-a:-b}", Ok("a:-b"));
        check("${NESTED}", Ok("${A}"));
        check("é${A}é$", Ok("éoneé$"));
    }

    #[test]
    fn two_dollars_escape() {
        check("$${A}", Ok("${A}"));
        check("$$${A}", Ok("$${A}"));
        check("$$A", Ok("$$A"));
    }

    #[test]
    fn names_what_is_wrong() {
        check("${GONE}", Err(Fault::Unset("GONE".to_owned())));
        check("x ${A", Err(Fault::Unclosed));
        check("${}", Err(Fault::BadName));
        check("${1A}", Err(Fault::BadName));
        check("${A-b}", Err(Fault::BadName));
        check("${:-b}", Err(Fault::BadName));
    }
}

//! Lines to words and back, with redis.conf's quoting: `"..."` with `\n \r \t \b \a \xHH` and `\` before anything else,
//! `'...'` with `\'`; a closing quote is followed by a blank or the end.

use std::iter::Peekable;
use std::str::Bytes;

/// The words of a line. Errors say what is wrong with its quoting.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut bytes = line.bytes().peekable();
    let mut words = Vec::new();
    loop {
        while bytes.next_if(is_blank).is_some() {}
        if bytes.peek().is_none() {
            return Ok(words);
        }
        let word = word(&mut bytes).ok_or("Unbalanced quotes in configuration line")?;
        words.push(String::from_utf8(word).map_err(|_| "Configuration line is not UTF-8 text")?);
    }
}

/// A word as a line of a configuration file needs it: bare if it may be, else in double quotes.
pub(super) fn quote(word: &str) -> String {
    let bare = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\') || b >= 0x80;
    if !word.is_empty() && !word.starts_with('#') && word.bytes().all(bare) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// One word, from its first byte to the blank after it; `None` if its quotes do not balance.
fn word(bytes: &mut Peekable<Bytes<'_>>) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    while let Some(byte) = bytes.next_if(|byte| !is_blank(byte)) {
        match byte {
            b'"' => return double_quoted(bytes, word),
            b'\'' => return single_quoted(bytes, word),
            byte => word.push(byte),
        }
    }
    Some(word)
}

fn double_quoted(bytes: &mut Peekable<Bytes<'_>>, mut word: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        match bytes.next()? {
            b'"' => return ends_here(bytes).then_some(word),
            b'\\' => escape(bytes, &mut word)?,
            byte => word.push(byte),
        }
    }
}

fn single_quoted(bytes: &mut Peekable<Bytes<'_>>, mut word: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        match bytes.next()? {
            b'\'' => return ends_here(bytes).then_some(word),
            b'\\' => word.push(bytes.next_if_eq(&b'\'').unwrap_or(b'\\')),
            byte => word.push(byte),
        }
    }
}

fn ends_here(bytes: &mut Peekable<Bytes<'_>>) -> bool {
    bytes.peek().is_none_or(is_blank)
}

/// What follows a backslash in double quotes. `\x` without two hexadecimal digits is an `x`, as in Redis.
fn escape(bytes: &mut Peekable<Bytes<'_>>, word: &mut Vec<u8>) -> Option<()> {
    let byte = match bytes.next()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        b'x' => return hexadecimal(bytes, word),
        byte => byte,
    };
    word.push(byte);
    Some(())
}

fn hexadecimal(bytes: &mut Peekable<Bytes<'_>>, word: &mut Vec<u8>) -> Option<()> {
    let digit =
        |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut ahead = bytes.clone();
    if let (Some(high), Some(low)) = (digit(ahead.next()), digit(ahead.next())) {
        word.push(high << 4 | low);
        *bytes = ahead;
    } else {
        word.push(b'x');
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_as_redis_splits_them() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("  \t ", &[]),
            ("port 6379", &["port", "6379"]),
            (r#"requirepass "a b""#, &["requirepass", "a b"]),
            (r#"save """#, &["save", ""]),
            (r#"a "\x41\x4a\n\q\xzz""#, &["a", "AJ\nqxzz"]),
            (r"a 'it\'s' '\n'", &["a", "it's", r"\n"]),
            (r#"a b"c d""#, &["a", "bc d"]),
            ("a\u{e9} \u{1f600}", &["a\u{e9}", "\u{1f600}"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn quotes_that_do_not_balance_are_refused() {
        for line in [r#"a "b"#, r#"a "b"c"#, "a 'b", "a 'b'c", r#"a "\"#] {
            assert_eq!(split(line), Err("Unbalanced quotes in configuration line"), "{line}");
        }
        assert_eq!(split(r#"a "\xff""#), Err("Configuration line is not UTF-8 text"));
    }

    proptest! {
        #[test]
        fn a_quoted_word_reads_back_as_itself(word in any::<String>()) {
            prop_assert_eq!(split(&quote(&word)).unwrap(), vec![word]);
        }

        #[test]
        fn no_line_makes_the_splitter_panic(line in any::<String>()) {
            let _ = split(&line);
        }
    }
}

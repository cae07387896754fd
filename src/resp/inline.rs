//! Inline requests: a line as a person types it into a terminal, quoted by Redis' own rules.

use super::decode::Arguments;
use bytes::Bytes;

/// Quotes that are not closed, or closed in the middle of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnbalancedQuotes;

/// Splits `line` into arguments; none for a blank line. Within double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` stand
/// for bytes and any other escaped byte for itself; within single quotes only `\'` is special. A quote may open inside
/// a word, and must be closed at the end of one.
///
/// # Errors
/// [`UnbalancedQuotes`].
pub fn split(line: &[u8]) -> Result<Arguments, UnbalancedQuotes> {
    let mut arguments = Arguments::new();
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let (argument, after) = word(rest)?;
        arguments.push(Bytes::from(argument));
        rest = skip_blanks(after);
    }
    Ok(arguments)
}

fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    let mut argument = Vec::new();
    loop {
        rest = match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Ok((argument, rest)),
            [b'"', inside @ ..] => return quoted(inside, argument, double_quoted),
            [b'\'', inside @ ..] => return quoted(inside, argument, single_quoted),
            [byte, after @ ..] => {
                argument.push(*byte);
                after
            }
        }
    }
}

/// One step inside quotes: a byte and what follows it, or nothing at the closing quote.
type Step = fn(&[u8]) -> Result<(Option<u8>, &[u8]), UnbalancedQuotes>;

fn quoted(mut rest: &[u8], mut argument: Vec<u8>, step: Step) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    loop {
        let (byte, after) = step(rest)?;
        match byte {
            Some(byte) => argument.push(byte),
            None if after.first().is_none_or(|&byte| is_blank(byte)) => return Ok((argument, after)),
            None => return Err(UnbalancedQuotes),
        }
        rest = after;
    }
}

fn double_quoted(rest: &[u8]) -> Result<(Option<u8>, &[u8]), UnbalancedQuotes> {
    match rest {
        [] => Err(UnbalancedQuotes),
        [b'"', after @ ..] => Ok((None, after)),
        [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            Ok((Some(nibble(*high) << 4 | nibble(*low)), after))
        }
        [b'\\', escaped, after @ ..] => Ok((Some(unescape(*escaped)), after)),
        [byte, after @ ..] => Ok((Some(*byte), after)),
    }
}

fn single_quoted(rest: &[u8]) -> Result<(Option<u8>, &[u8]), UnbalancedQuotes> {
    match rest {
        [] => Err(UnbalancedQuotes),
        [b'\'', after @ ..] => Ok((None, after)),
        [b'\\', b'\'', after @ ..] => Ok((Some(b'\''), after)),
        [byte, after @ ..] => Ok((Some(*byte), after)),
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        split(line.as_bytes()).map(|arguments| arguments.iter().map(|argument| argument.to_vec()).collect())
    }

    #[test]
    fn words_are_split_at_blanks_and_quotes_are_undone() {
        let cases: [(&str, &[&[u8]]); 14] = [
            ("", &[]),
            (" \t\x0b\x0c ", &[]),
            ("PING", &[b"PING"]),
            ("  set  a   b  ", &[b"set", b"a", b"b"]),
            (r#"set a "b c""#, &[b"set", b"a", b"b c"]),
            (r#""\x41\n\r\t\b\a\q\"\\""#, &[b"A\n\r\t\x08\x07q\"\\"]),
            (r#""\x4""#, &[b"x4"]),
            (r#""\xzz""#, &[b"xzz"]),
            (r"'a\'b\n'", &[b"a'b\\n"]),
            (r#""""#, &[b""]),
            ("'' ''", &[b"", b""]),
            (r#"ab"c d""#, &[b"abc d"]),
            ("a\x0bb", &[b"a\x0bb"]),
            (r"a\x41", &[b"a\\x41"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn quotes_that_are_open_or_closed_inside_a_word_are_refused() {
        for line in [r#"""#, r#"a "b"#, r#""a"b"#, "'a'b", "'", r#""a\"#, r#""a\""#, r#""a"'b'"#] {
            assert_eq!(words(line), Err(UnbalancedQuotes), "{line:?}");
        }
    }
}

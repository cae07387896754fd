//! Glob patterns for names of settings and of files: `*`, `?`, `[a-z]`, `[^a]`, `\` before anything.

/// Whether `text` matches `pattern`. Iterative, so that no pattern costs more than pattern times text.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = p {
            p = rest;
            last_star = Some((p, t));
            continue;
        }
        match (step(p, t), t) {
            (Some(rest), [_, after @ ..]) => (p, t) = (rest, after),
            (_, []) if p.is_empty() => return true,
            _ => match last_star {
                Some((after_star, [_, later @ ..])) => {
                    (p, t) = (after_star, later);
                    last_star = Some((after_star, later));
                }
                _ => return false,
            },
        }
    }
}

/// Whether `text` has a character that makes it a pattern.
pub(super) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// The pattern after what matches the first byte of `text`; `None` if it does not match.
fn step<'p>(pattern: &'p [u8], text: &[u8]) -> Option<&'p [u8]> {
    let byte = text.first()?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'\\', literal, rest @ ..] => (literal == byte).then_some(rest),
        [b'[', rest @ ..] => class(rest, *byte),
        [literal, rest @ ..] => (literal == byte).then_some(rest),
        [] => None,
    }
}

/// A class after its `[`. Without a `]` it reaches to the end of the pattern, as in Redis.
fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => return (found != negated).then_some(rest),
            [b']', after @ ..] => return (found != negated).then_some(after),
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [low, b'-', high, after @ ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases = [
            ("*", "", true),
            ("*", "port", true),
            ("max*", "maxmemory", true),
            ("*-port", "tls-port", true),
            ("*o*t", "port", true),
            ("p?rt", "port", true),
            ("p?rt", "prt", false),
            ("[pt]ort", "tort", true),
            ("[^pt]ort", "tort", false),
            ("[a-q]ort", "port", true),
            ("[z-a]ort", "port", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("", "", true),
            ("", "a", false),
            ("a[", "ab", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_pattern_times_text() {
        assert!(!matches("*a".repeat(200).as_bytes(), "b".repeat(5000).as_bytes()));
    }
}

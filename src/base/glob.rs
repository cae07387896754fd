//! Glob patterns as Redis matches them, in `KEYS`, `SCAN`, `PSUBSCRIBE`, `CONFIG GET` and ACL.
//!
//! `*` any bytes · `?` one byte · `[abc]`, `[a-z]`, `[^a-z]` one byte of a class · `\` takes the next byte as it is.
//! Redis' oddities are kept, since clients meet them: a class that does not end takes all that follows, `[^` alone matches
//! any byte, ranges compare bytes as signed, `*` does not match the empty text.
//!
//! No recursion, and never more work than length of pattern times length of text: the pattern comes from a client, and
//! twice already (CVE-2022-36021, CVE-2024-31228) such a pattern stopped Redis.

/// Whether the whole of `text` matches `pattern`. `KEYS` and `SCAN` do not ask for the pattern `*`: see [`is_everything`].
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, Case::Kept)
}

/// As [`matches`], without regard to the case of ASCII letters (but for those escaped inside a class, as in Redis).
pub fn matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, Case::Ignored)
}

/// Whether `pattern` is the one that `KEYS` and `SCAN` take for "no pattern", so that it finds the empty key too.
pub fn is_everything(pattern: &[u8]) -> bool {
    pattern == b"*"
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Ignored,
}

impl Case {
    fn fold(self, byte: u8) -> u8 {
        if self == Case::Ignored { byte.to_ascii_lowercase() } else { byte }
    }
}

/// Goes back to the last star only: whatever an earlier one could take as well, the last one can.
fn search(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut text) = (pattern, text);
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            last_star = Some((after, text));
            pattern = after;
            continue;
        }
        let Some((&byte, after)) = text.split_first() else { return pattern.is_empty() };
        if let Some(rest) = one(pattern, byte, case) {
            (pattern, text) = (rest, after);
        } else if let Some((resume, [_, skipped @ ..])) = last_star {
            last_star = Some((resume, skipped));
            (pattern, text) = (resume, skipped);
        } else {
            return false;
        }
    }
}

/// The pattern after its first element if that matches `byte`.
fn one(pattern: &[u8], byte: u8, case: Case) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', b'^', class @ ..] => in_class(class, byte, case, false),
        [b'[', class @ ..] => in_class(class, byte, case, true),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (case.fold(*literal) == case.fold(byte)).then_some(rest),
    }
}

/// What follows the class that `rest` begins with, if `byte` is in it, or is not, as `wanted`.
fn in_class(mut rest: &[u8], byte: u8, case: Case, wanted: bool) -> Option<&[u8]> {
    let mut found = false;
    loop {
        rest = match rest {
            [b'\\', escaped, after @ ..] => {
                found |= *escaped == byte;
                after
            }
            [b']', after @ ..] => return (found == wanted).then_some(after),
            [] => return (found == wanted).then_some(rest),
            [from, b'-', to, after @ ..] => {
                found |= in_range(*from, *to, byte, case);
                after
            }
            [literal, after @ ..] => {
                found |= case.fold(*literal) == case.fold(byte);
                after
            }
        }
    }
}

/// Both ends may come in any order. They are put in order before their case is folded, as in Redis.
fn in_range(from: u8, to: u8, byte: u8, case: Case) -> bool {
    let (from, to) = if from as i8 > to as i8 { (to, from) } else { (from, to) };
    (case.fold(from) as i8..=case.fold(to) as i8).contains(&(case.fold(byte) as i8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Redis' own rules by plain recursion, a star tried in every way; exponential, for short texts only.
    fn slow(pattern: &[u8], text: &[u8], case: Case) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| slow(rest, &text[taken..], case)),
            (_, []) | ([], _) => false,
            (_, [byte, after @ ..]) => {
                let (taken, accepted) = slow_element(pattern, case);
                accepted.contains(byte) && slow(&pattern[taken..], after, case)
            }
        }
    }

    /// Length of the first element and every byte that it accepts.
    fn slow_element(pattern: &[u8], case: Case) -> (usize, Vec<u8>) {
        let same = |a: u8| move |b: &u8| if case == Case::Kept { a == *b } else { a.eq_ignore_ascii_case(b) };
        let all = || 0..=255u8;
        match pattern {
            [b'?', ..] => (1, all().collect()),
            [b'\\', literal, ..] => (2, all().filter(same(*literal)).collect()),
            [b'[', ..] => slow_class(pattern, case),
            [literal, ..] => (1, all().filter(same(*literal)).collect()),
            [] => unreachable!("asked of an empty pattern"),
        }
    }

    fn slow_class(pattern: &[u8], case: Case) -> (usize, Vec<u8>) {
        let lower = |c: i32| if (65..=90).contains(&c) && case == Case::Ignored { c + 32 } else { c };
        let signed = |byte: u8| i32::from(byte as i8);
        let negated = pattern.get(1) == Some(&b'^');
        let mut at = if negated { 2 } else { 1 };
        let mut set = [false; 256];
        while at < pattern.len() && pattern[at] != b']' {
            if pattern[at] == b'\\' && at + 1 < pattern.len() {
                set[usize::from(pattern[at + 1])] = true;
                at += 2;
            } else if at + 2 < pattern.len() && pattern[at + 1] == b'-' {
                let (a, b) = (signed(pattern[at]), signed(pattern[at + 2]));
                let (low, high) = (lower(a.min(b)), lower(a.max(b)));
                (0..=255u8)
                    .filter(|&byte| (low..=high).contains(&lower(signed(byte))))
                    .for_each(|b| set[usize::from(b)] = true);
                at += 3;
            } else {
                let literal = lower(signed(pattern[at]));
                (0..=255u8).filter(|&byte| lower(signed(byte)) == literal).for_each(|b| set[usize::from(b)] = true);
                at += 1;
            }
        }
        ((at + 1).min(pattern.len()), (0..=255u8).filter(|&byte| set[usize::from(byte)] != negated).collect())
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"**??[[]]^^--\\\\abAB\xff\x80".to_vec()), 0..12)
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"aabbABc-]^\\[\xff\x81".to_vec()), 1..9)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn the_fast_way_agrees_with_the_slow_one(pattern in pattern(), text in text()) {
            prop_assert_eq!(matches(&pattern, &text), slow(&pattern, &text, Case::Kept));
            prop_assert_eq!(matches_nocase(&pattern, &text), slow(&pattern, &text, Case::Ignored));
        }
    }

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: [(&str, &str, bool); 34] = [
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("*", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "hllo", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("[a-]b]", "^", true),
            ("[a-", "-", true),
            ("[abc", "c", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[]", "]", false),
            ("[^]", "]", true),
            ("[\\]]", "]", true),
            ("[\\", "\\", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("a**", "a", true),
            ("a*b*c", "aXbXc", true),
            ("a*b*c", "aXbXcX", false),
            ("*.*", "a.b", true),
            ("user:[0-9]*:name", "user:42:name", true),
            ("user:[0-9]*:name", "user:x:name", false),
            ("A*", "abc", false),
            ("[[]", "[", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_is_ignored_on_request_but_for_what_is_escaped_in_a_class() {
        assert!(matches_nocase(b"SaVe*", b"save"));
        assert!(matches_nocase(b"[A-C]x", b"bX"));
        assert!(!matches_nocase(b"[\\A]", b"a"));
    }

    #[test]
    fn hostile_patterns_end_and_do_not_recurse() {
        let text = vec![b'a'; 10_000];
        assert!(!matches(&[b"a*".repeat(1_000), b"b".to_vec()].concat(), &text));
        assert!(!matches(&b"*a".repeat(100_000), &text));
        assert!(!matches(&[b"*".to_vec(), vec![b'?'; 1_000], b"b".to_vec()].concat(), &text));
        assert!(!matches(&vec![b'['; 100_000], &text));
    }
}

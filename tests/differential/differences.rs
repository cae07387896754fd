//! What differs from Redis 7.0 on purpose, with the reason. A line that is listed here must differ, and as it says: so the
//! list cannot outlive its reasons.

/// A line that is answered otherwise.
pub struct Difference {
    /// The line of a script.
    line: &'static str,
    /// How our reply begins.
    ours: &'static str,
    /// Why.
    why: &'static str,
}

const ENCODING: &str = "nothing is kept in Redis' encodings: the answer is that of a string written whole";
const CURSOR: &str = "a cursor is a token and below 2^63, where clients that read it as a signed number are safe; \
                      what we never gave out is refused rather than wrapped around";

const WORDS: &str = "help is drawn from the tables, in our own words";
const LATER: &str = "Redis 7.2 brought it, the one compared with is 7.0";
const TRACKING: &str = "values must not be kept by clients that would never be told of a change";

const DIFFERENCES: &[Difference] = &[
    Difference {
        line: "PFADD runs a",
        ours: "-INVALIDOBJ Corrupted HLL object detected\r\n",
        why: "what is damaged is found before something is added to it",
    },
    Difference { line: "OBJECT HELP", ours: "*11\r\n+OBJECT <subcommand> [<arg> [value]", why: WORDS },
    Difference { line: "OBJECT help", ours: "*11\r\n+OBJECT <subcommand> [<arg> [value]", why: WORDS },
    Difference { line: "CLIENT HELP", ours: "*37\r\n+CLIENT <subcommand> [<arg> [value]", why: WORDS },
    Difference { line: "CLIENT NO-TOUCH on", ours: "+OK\r\n", why: LATER },
    Difference { line: "CLIENT SETINFO lib-name library", ours: "+OK\r\n", why: LATER },
    Difference { line: "CLIENT TRACKING on", ours: "-ERR CLIENT TRACKING is not supported", why: TRACKING },
    Difference { line: "OBJECT ENCODING appended", ours: "$3\r\nint\r\n", why: ENCODING },
    Difference { line: "OBJECT ENCODING ranged", ours: "$6\r\nembstr\r\n", why: ENCODING },
    Difference { line: "OBJECT ENCODING floated", ours: "$3\r\nint\r\n", why: ENCODING },
    Difference { line: "OBJECT REFCOUNT floated", ours: ":2147483647\r\n", why: ENCODING },
    Difference { line: "SCAN -1 MATCH nothing", ours: "-ERR invalid cursor\r\n", why: CURSOR },
    Difference { line: "SCAN +0 COUNT 1000", ours: "-ERR invalid cursor\r\n", why: CURSOR },
    Difference { line: "SCAN '' COUNT 1000", ours: "-ERR invalid cursor\r\n", why: CURSOR },
    Difference { line: "SCAN 18446744073709551615 MATCH nothing", ours: "-ERR invalid cursor\r\n", why: CURSOR },
    Difference {
        line: "SWAPDB 0 1",
        ours: "-ERR SWAPDB is not supported",
        why: "two databases cannot change places at once on every replica",
    },
    Difference {
        line: "WAIT 0 9223372036854775807",
        ours: "-ERR timeout is out of range\r\n",
        why: "Redis 7.2 refuses a timeout that overflows its clock, 7.0 does not",
    },
    Difference {
        line: r#"SET k v "NX\x00""#,
        ours: "-ERR syntax error\r\n",
        why: "an option is its whole word; Redis reads some up to a NUL byte",
    },
    Difference { line: "WAITAOF 0 0 0", ours: "*2\r\n", why: LATER },
];

/// The difference that a line is known for.
pub fn of(line: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.line == line)
}

impl Difference {
    /// What is wrong, if the answer is not as the list says.
    pub fn check(&self, redis: &[u8], ours: &[u8]) -> Option<String> {
        let as_said = redis != ours && ours.starts_with(self.ours.as_bytes());
        let shown = String::from_utf8_lossy(ours).escape_debug().to_string();
        (!as_said).then(|| format!("{}\n    is to differ, since {};\n    other: {shown}", self.line, self.why))
    }
}

#[test]
fn every_difference_is_a_line_of_some_script() {
    let scripts = super::script::all();
    for difference in DIFFERENCES {
        let mut lines = scripts.iter().flat_map(|script| &script.lines);
        assert!(lines.any(|line| line.text() == difference.line), "{}", difference.line);
    }
}

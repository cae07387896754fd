//! Scripts: one command a line, quoted as in redis-cli.
//!
//! `# ` begins a comment. `! ` before a command compares only the shape of the reply (what depends on the clock), `~ ` its
//! elements in any order. `@sleep 20` waits so many milliseconds on both sides.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use redynamo::resp::inline;

/// A file of lines that are played in order on an empty store.
pub struct Script {
    /// The file's name.
    pub name: String,
    /// What it says.
    pub lines: Vec<Line>,
}

/// A line that is no comment.
pub enum Line {
    /// Waits.
    Sleep(Duration),
    /// Calls.
    Call {
        /// The line without its mark.
        text: String,
        /// The command and its arguments.
        args: Vec<Bytes>,
        /// How much of the reply must agree.
        compared: Compared,
    },
}

/// How much of two replies must agree.
#[derive(Clone, Copy)]
pub enum Compared {
    /// Every byte.
    Exactly,
    /// Types, and how many elements.
    InShape,
    /// Every byte, but elements may stand in any order.
    InAnyOrder,
}

impl Line {
    /// The command as it is written.
    pub fn text(&self) -> &str {
        match self {
            Line::Sleep(_) => "",
            Line::Call { text, .. } => text,
        }
    }

    fn parse(line: &str) -> Option<Line> {
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        if let Some(ms) = line.strip_prefix("@sleep ") {
            return Some(Line::Sleep(Duration::from_millis(ms.parse().expect("milliseconds"))));
        }
        let (text, compared) = match line.split_at_checked(2) {
            Some(("! ", rest)) => (rest, Compared::InShape),
            Some(("~ ", rest)) => (rest, Compared::InAnyOrder),
            _ => (line, Compared::Exactly),
        };
        Some(Line::Call { text: text.to_owned(), args: words(text), compared })
    }
}

/// Every script, by name.
pub fn all() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/scripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Script {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Script { name, lines: text.lines().map(str::trim).filter_map(Line::parse).collect() }
}

/// A line's words.
pub fn words(line: &str) -> Vec<Bytes> {
    inline::split(line.as_bytes()).unwrap_or_else(|_| panic!("unbalanced quotes: {line}")).into_vec()
}

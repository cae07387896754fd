//! The rules of this house that the compiler does not check: which room may know of which, words that only some rooms may
//! say, the length of files, and what does not belong into a file at all.
//!
//! The checks are functions over texts, so that the tests below can plant what each must find.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/` from the ground up: one imports only those before it, and itself.
///
/// `metrics` and `config` lie low because they know of nobody; `commands` lies below `replica` and `replication` because a
/// command is a pure function over rows, whoever stores or ships them. `sim` stands beside `server` and `runtime` and
/// instead of them: it may know of neither, see [`FORBIDDEN`].
const ROOMS: &[&str] = &[
    "base",
    "causality",
    "ring",
    "resp",
    "model",
    "commands",
    "metrics",
    "config",
    "storage",
    "replica",
    "cluster",
    "peer",
    "env",
    "replication",
    "node",
    "sim",
    "server",
    "runtime",
    "log",
    "cli",
];

/// Imports that the order of the rooms would allow: from, of, why not.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("server", "sim", "the program holds nothing of the test world"),
    ("runtime", "sim", "the program holds nothing of the test world"),
    ("cli", "sim", "the program holds nothing of the test world"),
    ("causality", "ring", "causality knows nothing of where data lies"),
    ("replica", "commands", "what is stored and shipped is rows, never a command"),
    ("storage", "commands", "what is stored and shipped is rows, never a command"),
    ("storage", "resp", "what is stored and shipped is rows, never a command"),
];

/// Words that only these rooms say, outside of tests.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("tokio::net", &["runtime", "server"], "sockets end where the node begins"),
    ("std::net::Tcp", &["cli", "runtime", "server"], "sockets end where the node begins"),
    ("socket2::", &["runtime", "server"], "sockets end where the node begins"),
    ("fjall::", &["storage"], "other rooms know a Store"),
    ("redis_protocol::", &[], "it is what tests compare with"),
    ("SystemTime", &["log", "runtime", "server"], "time comes through Env, so that the simulator rules it"),
    (
        "std::time::Instant",
        &["cli", "runtime", "server", "storage"],
        "tokio's clock is the one that the simulator rules",
    ),
    (
        "tokio::spawn",
        &["cli", "runtime", "server", "sim"],
        "tasks begin through Env, so that the simulator orders them",
    ),
    (
        "spawn_blocking",
        &["cli", "runtime", "server", "sim"],
        "tasks begin through Env, so that the simulator orders them",
    ),
    ("std::thread", &["runtime", "server", "storage"], "tasks begin through Env, so that the simulator orders them"),
    ("getrandom::", &["runtime", "server"], "chance comes through Env, so that a seed is a run"),
    ("dashmap::", &["runtime", "server"], "its order is another one in each run"),
    ("tokio::fs", &[], "files belong to the store, which has threads of its own"),
];

/// Words that belong into no file.
const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "for now,", "for now.", "FIXME", "#[ignore"];

/// Lines that a file should not, and must not exceed.
const LONG: usize = 600;
const TOO_LONG: usize = 800;

/// A file below the root, and what is in it.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// The room that a file of `src/` belongs to: its first directory, or its own name.
    fn room(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        let name = inner.split('/').next().unwrap_or(inner);
        Some(name.strip_suffix(".rs").unwrap_or(name))
    }

    /// Whether the file is there for tests only.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        !self.path.starts_with("src/")
            || name.starts_with("test")
            || ["_tests.rs", "suite.rs", "harness.rs"].iter().any(|end| name.ends_with(end))
    }

    /// Numbered lines of code without comments and without what is compiled for tests only.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]")).map(|(at, line)| (at, without_comment(line)))
    }

    fn report(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn without_comment(line: &str) -> &str {
    let code = line.split("//").next().unwrap_or(line);
    if line.contains("://") { line } else { code }
}

/// Every file of ours that is written in Rust or Python.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for room in ["src", "tests", "benches"] {
        collect(&root.join(room), &mut files);
    }
    files.sort();
    let read = |file: PathBuf| Source {
        path: file.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&file).unwrap(),
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| ["rs", "py"].iter().any(|known| extension == *known)) {
            files.push(path);
        }
    }
}

/// Imports of rooms that lie above, or that are forbidden.
fn imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    if ["lib", "main"].contains(&room) {
        return Vec::new();
    }
    let Some(height) = ROOMS.iter().position(|known| *known == room) else {
        return vec![source.report(1, &format!("the room '{room}' has no place in the order of rooms"))];
    };
    let mut found = Vec::new();
    for (line, code) in source.code() {
        for rest in code.split("crate::").skip(1) {
            let other: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if other.is_empty() {
                found.push(source.report(line, "rooms are imported one by one, so that this test sees them"));
            }
            if ROOMS.iter().position(|known| *known == other).is_some_and(|of| of > height) {
                found.push(source.report(line, &format!("'{room}' lies below '{other}' and may not know of it")));
            }
            let forbidden = FORBIDDEN.iter().find(|(from, of, _)| *from == room && *of == other);
            found.extend(forbidden.map(|(.., why)| source.report(line, &format!("'{room}' and '{other}': {why}"))));
        }
    }
    found
}

/// Words that another room keeps for itself.
fn reserved_words(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|_| !source.is_test()) else { return Vec::new() };
    let mut found = Vec::new();
    for (line, code) in source.code() {
        for (word, rooms, why) in RESERVED {
            if says(code, word) && !rooms.contains(&room) {
                found.push(source.report(line, &format!("'{word}' in '{room}': {why}")));
            }
        }
    }
    found
}

/// Whether a line says a word; `std::time::{Duration, Instant}` says `std::time::Instant`.
fn says(code: &str, word: &str) -> bool {
    let in_braces = || {
        let (path, name) = word.rsplit_once("::")?;
        let list = code.split(&format!("{path}::{{")).nth(1)?;
        list.split(['{', '}', ',']).any(|item| !name.is_empty() && item.trim() == name).then_some(())
    };
    code.contains(word) || in_braces().is_some()
}

/// Words that belong nowhere.
fn banned_words(source: &Source) -> Vec<String> {
    if source.path == "tests/tidy.rs" {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let of_line = |(at, line): (usize, &str)| {
        let found = BANNED.iter().filter(|word| line.contains(**word));
        found.map(|word| source.report(at + 1, &format!("'{word}'"))).collect::<Vec<_>>()
    };
    lines.flat_map(of_line).collect()
}

/// A file without a first line that says what it is for, or too long to be about one thing.
fn shape(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let first = source.text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
    let documented = if source.path.ends_with(".py") { first.starts_with("\"\"\"") } else { first.starts_with("//!") };
    if !documented && source.path != "src/lib.rs" {
        found.push(source.report(1, "the first line does not say what the file is for"));
    }
    let lines = source.text.lines().count();
    if lines > TOO_LONG {
        found.push(source.report(lines, &format!("longer than {TOO_LONG} lines")));
    }
    found
}

fn check(rule: fn(&Source) -> Vec<String>) {
    let found: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), found.join("\n"));
}

#[test]
fn rooms_know_only_of_rooms_below_them() {
    check(imports);
}

#[test]
fn every_room_has_its_place_and_every_place_its_room() {
    let sources = sources();
    for room in ROOMS {
        assert!(sources.iter().any(|source| source.room() == Some(room)), "there is no room '{room}'");
    }
}

#[test]
fn words_stay_in_their_rooms() {
    check(reserved_words);
}

#[test]
fn nothing_unfinished_is_left_lying_about() {
    check(banned_words);
}

#[test]
fn files_say_what_they_are_for_and_are_no_longer_than_one_can_read() {
    check(shape);
    for source in sources().iter().filter(|source| source.text.lines().count() > LONG) {
        println!("{} has more than {LONG} lines", source.path);
    }
}

#[test]
fn metrics_are_named_as_prometheus_wants_and_explained() {
    use redynamo::metrics::Kind;
    for metric in redynamo::metrics::declared() {
        let known = ["redynamo_", "process_"].iter().any(|prefix| metric.name.starts_with(prefix));
        assert!(known, "{}", metric.name);
        let counts = matches!(metric.kind, Kind::Counter | Kind::Fractions);
        assert_eq!(counts, metric.name.ends_with("_total"), "{}: only counters end so", metric.name);
        assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{}: {}", metric.name, metric.help);
    }
}

#[test]
fn what_is_planted_is_found() {
    let found = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str| rule(&Source::new(path, text));
    let import = |path, text| found(imports, path, text);
    assert_eq!(
        import("src/ring/mod.rs", "//! x\nuse crate::base::num;\nuse crate::node::Node;\n"),
        ["src/ring/mod.rs:3: 'ring' lies below 'node' and may not know of it"]
    );
    assert_eq!(import("src/env.rs", "fn f(x: &crate::server::Server) {}").len(), 1);
    assert_eq!(import("src/ring/a.rs", "use crate::{node::Node, base::num};").len(), 1);
    assert_eq!(import("src/cupboard.rs", "").len(), 1);
    assert_eq!(import("src/commands/get.rs", "use crate::metrics;").len(), 1, "who runs a command counts");
    assert_eq!(import("src/runtime/a.rs", "use crate::sim::World;").len(), 1);
    assert!(
        import("src/node/a.rs", "use crate::node::b;\nuse crate::base::id;\n// crate::runtime is above\n").is_empty()
    );
    assert!(import("src/node/a.rs", "#[cfg(test)]\nmod tests { use crate::runtime::x; }").is_empty());

    let word = |path, text| found(reserved_words, path, text);
    assert_eq!(word("src/node/a.rs", "use tokio::net::TcpStream;").len(), 1);
    assert_eq!(word("src/node/a.rs", "use std::time::{Duration, Instant};").len(), 1);
    assert_eq!(word("src/replica/a.rs", "let now = SystemTime::now();").len(), 1);
    assert_eq!(word("src/replica/a.rs", "use ::fjall::Database;").len(), 1);
    assert!(word("src/node/a.rs", "use tokio::time::Instant;\nuse std::time::Duration;").is_empty());
    assert!(word("src/storage/fjall.rs", "use ::fjall::Database;").is_empty());
    assert!(word("src/resp/encode.rs", "#[cfg(test)]\nmod tests { use redis_protocol::resp2; }").is_empty());

    assert_eq!(found(banned_words, "src/a.rs", "fn f() {\n    todo!()\n}"), ["src/a.rs:2: 'todo!'"]);
    assert_eq!(found(banned_words, "src/a.rs", "// Good enough for now.").len(), 1);
    assert!(found(banned_words, "src/a.rs", "for now in 1..2 {}").is_empty());

    assert_eq!(found(shape, "src/a.rs", "use x;\n//! Late.").len(), 1);
    assert_eq!(found(shape, "tests/clients/a.py", "#!/usr/bin/env python3\nimport os").len(), 1);
    assert_eq!(found(shape, "src/a.rs", &format!("//! Long.\n{}", "x\n".repeat(800))).len(), 1);
    assert!(found(shape, "src/a.rs", "//! Short.").is_empty());
}

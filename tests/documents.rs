//! Documents that are made from tables: what is checked in is what the tables say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

/// Writes `expected` to a file of the project's root, and fails, if that is not what is in it.
fn is_up_to_date(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::fs::read_to_string(&path).unwrap_or_default() != expected {
        std::fs::write(&path, expected).unwrap();
        panic!("{name} was not up to date; it is now: look at it and commit it");
    }
}

#[test]
fn the_list_of_commands_is_what_the_tables_say() {
    is_up_to_date("COMMANDS.md", &redynamo::commands::markdown::commands_markdown());
}

//! `COMMANDS.md`, from the tables.

use std::fmt::Write;

use super::docs::commands;
use super::spec::{Group, Keys, Run, Spec};

/// The whole document. A test compares it with the one that is checked in.
pub fn commands_markdown() -> String {
    let mut out = String::from(
        "# Commands\n\n\
         Made from the tables of commands; a test keeps it up to date. A version is that of the Redis that brought the \
         command, or of this store for its own. `COMMAND DOCS name` tells the same, and redis-cli shows it while you type.\n",
    );
    for group in GROUPS {
        let rows: Vec<String> = commands().iter().copied().filter(|spec| spec.group == group).flat_map(rows).collect();
        if !rows.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "\n## {}\n\n| command | what it does | since | remarks |\n|---|---|---|---|\n",
                group.name()
            );
            out.extend(rows);
        }
    }
    out
}

const GROUPS: [Group; 12] = [
    Group::String,
    Group::Hash,
    Group::Set,
    Group::Bitmap,
    Group::Hyperloglog,
    Group::Generic,
    Group::Connection,
    Group::PubSub,
    Group::Transactions,
    Group::Server,
    Group::Cluster,
    Group::Dynamo,
];

/// A command's row; a container's subcommands each have theirs in the place of its own.
fn rows(spec: &Spec) -> impl Iterator<Item = String> {
    let own = (!matches!(spec.run, Run::Container)).then(|| row(spec));
    own.into_iter().chain(spec.children.iter().filter(|child| child.name != "HELP").map(row))
}

fn row(spec: &Spec) -> String {
    let call = [spec.container, spec.name, spec.syntax].join(" ").replace('|', "\\|");
    format!("| `{}` | {} | {} | {} |\n", call.trim(), spec.summary.replace('|', "\\|"), spec.since, remarks(spec))
}

fn remarks(spec: &Spec) -> String {
    let mut remarks: Vec<String> = Vec::new();
    if let Some((since, instead)) = spec.deprecated {
        // Redis marks arguments with an exclamation mark.
        let instead = instead.replace("`!", "`");
        remarks.push(format!("deprecated since {since}: {instead}"));
    }
    if several_keys(spec) {
        remarks.push("keys of several partitions: not atomic".to_owned());
    }
    remarks.join("; ")
}

fn several_keys(spec: &Spec) -> bool {
    matches!(spec.keys, Keys::Range { first, last, .. } if last != first as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_row_under_its_family() {
        let text = commands_markdown();
        let family = text.split("\n## connection\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        assert!(family.contains(
            "\n| `CLIENT REPLY <ON \\| OFF \\| SKIP>` | Chooses which commands are answered. | 3.2.0 |  |\n"
        ));
        assert!(family.contains("| deprecated since 7.2.0: just closing the connection |\n"));
        let callable = commands().iter().copied().flat_map(|spec| std::iter::once(spec).chain(spec.children));
        for spec in callable.filter(|spec| !matches!(spec.run, Run::Container) && spec.name != "HELP") {
            let name = [spec.container, spec.name].join(" ");
            assert!(
                text.contains(&format!("| `{} ", name.trim())) || text.contains(&format!("| `{}`", name.trim())),
                "{name}"
            );
        }
    }

    #[test]
    fn rows_are_whole() {
        for row in commands_markdown().lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        }
    }
}

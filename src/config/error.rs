//! What is said when a configuration cannot be used: where, which line, why, and what was probably meant.

use std::fmt;
use std::path::PathBuf;

/// Where a statement was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a configuration file, counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A line of the standard input, counted from 1.
    Stdin {
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flags,
    /// No single statement: settings that do not fit together.
    Whole,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "Reading the configuration file, at {}:{line}", path.display()),
            Origin::Stdin { line } => write!(f, "Reading the configuration from stdin, at line {line}"),
            Origin::Environment(name) => write!(f, "Reading the environment, at {name}"),
            Origin::Flags => write!(f, "Reading the command line"),
            Origin::Whole => write!(f, "Checking the configuration as a whole"),
        }
    }
}

/// A configuration that cannot be used. Printed the way redis-server prints it, so that what people grep for is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the statement was read.
    pub origin: Origin,
    /// The statement as it was written; empty if the error belongs to none.
    pub statement: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n*** FATAL CONFIG FILE ERROR (redynamo {}) ***", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "{}", self.origin)?;
        if !self.statement.is_empty() {
            writeln!(f, ">>> '{}'", self.statement)?;
        }
        write!(f, "{}", self.why)
    }
}

impl std::error::Error for ConfigError {}

/// What is said of a name that no directive has, with the nearest name there is.
pub(super) fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(known) => format!("Bad directive or wrong number of arguments. Did you mean '{known}'?"),
        None => "Bad directive or wrong number of arguments".to_owned(),
    }
}

/// The directive whose name is fewest edits away from `name`, if that is near enough to be a slip of the hand.
fn nearest(name: &str) -> Option<&'static str> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    super::table::all()
        .filter(|directive| !directive.hidden)
        .flat_map(|directive| std::iter::once(directive.name).chain(directive.alias))
        .map(|known| (edits(name, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Levenshtein's distance: how many characters must be put in, taken out or changed.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, b) in row.iter_mut().skip(1).zip(&to) {
            let here = (diagonal + usize::from(a != *b)).min(left + 1).min(*slot + 1);
            diagonal = std::mem::replace(slot, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_as_levenshtein_counts_them() {
        for (a, b, distance) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("port", "prot", 2), ("x", "x", 0)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
            assert_eq!(edits(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn a_slip_of_the_hand_finds_its_directive_and_nonsense_finds_none() {
        assert_eq!(nearest("prt"), Some("port"));
        assert_eq!(nearest("maxmemry"), Some("maxmemory"));
        assert_eq!(nearest("read-qorum"), Some("read-quorum"));
        assert_eq!(nearest("slave-prioritiy"), Some("slave-priority"));
        assert_eq!(nearest("completely-unheard-of"), None);
    }

    #[test]
    fn an_error_names_file_and_line_and_shows_the_statement() {
        let error = ConfigError {
            origin: Origin::File { path: "/etc/x.conf".into(), line: 7 },
            statement: "prt 1".into(),
            why: unknown("prt"),
        };
        let text = error.to_string();
        assert!(text.contains("/etc/x.conf:7\n>>> 'prt 1'\nBad directive"), "{text}");
        assert!(text.ends_with("Did you mean 'port'?"), "{text}");
    }
}

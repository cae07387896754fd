//! redis.conf text to statements, `include` followed. A statement is a line's words and where it was.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::words;
use crate::base::glob;

/// How deep files may include files: an own limit, so that a file that includes itself is an error and not a hang.
const MAX_INCLUDE_DEPTH: usize = 16;

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) origin: Origin,
    /// The line as written, without blanks around it.
    pub(super) text: String,
    /// Its words; never empty.
    pub(super) words: Vec<String>,
}

impl Statement {
    /// A statement that was given as words.
    pub(super) fn from_words(origin: Origin, text: String, words: Vec<String>) -> Statement {
        Statement { origin, text, words }
    }

    /// The error that `why` makes of this statement.
    pub(super) fn wrong(&self, why: impl Into<String>) -> ConfigError {
        ConfigError { origin: self.origin.clone(), statement: self.text.clone(), why: why.into() }
    }
}

/// The statements of a file and of the files that it includes, in the place of the include.
pub(super) fn from_file(path: &Path) -> Result<Vec<Statement>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError {
        origin: Origin::File { path: path.to_owned(), line: 0 },
        statement: String::new(),
        why: cannot_open(path, &error),
    })?;
    let mut statements = Vec::new();
    read_text(&text, &|line| Origin::File { path: path.to_owned(), line }, 0, &mut statements)?;
    Ok(statements)
}

/// The statements of what stands on the standard input.
pub(super) fn from_stdin(text: &str) -> Result<Vec<Statement>, ConfigError> {
    let mut statements = Vec::new();
    read_text(text, &|line| Origin::Stdin { line }, 0, &mut statements)?;
    Ok(statements)
}

fn read_text(
    text: &str,
    origin: &dyn Fn(usize) -> Origin,
    depth: usize,
    statements: &mut Vec<Statement>,
) -> Result<(), ConfigError> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut statement = Statement { origin: origin(index + 1), text: line.to_owned(), words: Vec::new() };
        statement.words = words::split(line).map_err(|why| statement.wrong(why))?;
        match statement.words.as_slice() {
            [] => {}
            [name, path] if name.eq_ignore_ascii_case("include") => include(&statement, path, depth, statements)?,
            _ => statements.push(statement),
        }
    }
    Ok(())
}

/// A pattern that matches nothing includes nothing, so that a directory of snippets may be empty; a plain path that is
/// not there is an error. Relative paths start at the working directory, as in Redis.
fn include(from: &Statement, path: &str, depth: usize, statements: &mut Vec<Statement>) -> Result<(), ConfigError> {
    if depth >= MAX_INCLUDE_DEPTH {
        return Err(from.wrong(format!("Files include each other more than {MAX_INCLUDE_DEPTH} deep")));
    }
    for path in expand(path) {
        let text = fs::read_to_string(&path).map_err(|error| from.wrong(cannot_open(&path, &error)))?;
        read_text(&text, &|line| Origin::File { path: path.clone(), line }, depth + 1, statements)?;
    }
    Ok(())
}

fn cannot_open(path: &Path, error: &std::io::Error) -> String {
    format!("Fatal error, can't open config file '{}': {error}", path.display())
}

/// The paths that a pattern matches, sorted; a path that is no pattern as it is.
fn expand(path: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in Path::new(path).components() {
        let name = component.as_os_str().as_encoded_bytes();
        found = match is_pattern(name) {
            true => found.iter().flat_map(|directory| entries(directory, name)).collect(),
            false => found.into_iter().map(|directory| directory.join(component)).collect(),
        };
    }
    if is_pattern(path.as_bytes()) {
        found.retain(|path| path.is_file());
        found.sort();
    }
    found
}

/// Whether `text` stands for several names, in the eyes of Redis' `include` and `CONFIG GET`.
pub(super) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// What in `directory` matches; hidden files only if the pattern begins with a dot, as in a shell.
fn entries(directory: &Path, name: &[u8]) -> Vec<PathBuf> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let visible = |entry: &[u8]| !entry.starts_with(b".") || name.starts_with(b".");
    fs::read_dir(here)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|entry| visible(entry.as_encoded_bytes()) && glob::matches(name, entry.as_encoded_bytes()))
        .map(|entry| directory.join(entry))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        from_file(path).unwrap().into_iter().map(|statement| statement.words.join(" ")).collect()
    }

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        let statements = from_stdin("# a\n\n  port 1 \r\n\t# b\nbind a \"b c\"").unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0].origin, Origin::Stdin { line: 3 });
        assert_eq!(statements[0].text, "port 1");
        assert_eq!(statements[1].words, ["bind", "a", "b c"]);
    }

    #[test]
    fn an_include_stands_for_the_lines_of_its_files_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.conf");
        for (name, text) in [("10-b.conf", "b 1"), ("05-a.conf", "a 1"), (".hidden.conf", "h 1"), ("c.txt", "c 1")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(&main, format!("x 1\ninclude {}/[01]*.conf\ninclude /no/such/*.conf\ny 1", dir.path().display()))
            .unwrap();
        assert_eq!(lines(&main), ["x 1", "a 1", "b 1", "y 1"]);
    }

    #[test]
    fn an_included_file_that_is_not_there_is_named_with_the_line_that_asks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.conf");
        fs::write(&main, "port 1\ninclude /no/such.conf\n").unwrap();
        let error = from_file(&main).unwrap_err();
        assert_eq!(error.origin, Origin::File { path: main, line: 2 });
        assert!(error.why.starts_with("Fatal error, can't open config file '/no/such.conf': No such file"), "{error}");
    }

    #[test]
    fn a_file_that_includes_itself_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.conf");
        fs::write(&main, format!("include {}", main.display())).unwrap();
        assert!(from_file(&main).unwrap_err().why.contains("more than 16 deep"));
    }

    #[test]
    fn quotes_that_do_not_balance_are_shown_with_their_line() {
        let error = from_stdin("port 1\nrequirepass \"x").unwrap_err();
        assert_eq!(error.origin, Origin::Stdin { line: 2 });
        assert_eq!(error.why, "Unbalanced quotes in configuration line");
    }
}

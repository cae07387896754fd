//! Where values come from, in the order in which one overrides the other: file, standard input, environment, flags.

use std::path::PathBuf;

use super::error::{self, ConfigError, Origin};
use super::settings::Settings;
use super::statement::{self, Statement};
use super::table::{self, Directive, Meaning};
use super::typed::{Config, Values};
use super::words;

/// Everything that may give settings a value.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of redis.conf's form.
    pub file: Option<PathBuf>,
    /// Text of that form from the standard input.
    pub stdin: Option<String>,
    /// Environment variables; those that do not begin with `REDYNAMO_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Arguments from the first `--directive` on.
    pub flags: Vec<String>,
}

impl Sources {
    /// Reads all sources. The first statement that cannot be used is the error.
    pub fn load(self) -> Result<Settings, ConfigError> {
        let mut loader = Loader::default();
        if let Some(path) = &self.file {
            loader.source(statement::from_file(path)?)?;
        }
        if let Some(text) = &self.stdin {
            loader.source(statement::from_stdin(text)?)?;
        }
        let environment = loader.environment(self.environment);
        loader.source(environment)?;
        loader.source(flags(&self.flags)?)?;
        loader.finish(self.file)
    }
}

/// The statements that arguments make: `--name` and the words up to the next `--name`. The first word after a name is a
/// value whatever it looks like; a name and its values may be one argument, or parted by `=`.
fn flags(arguments: &[String]) -> Result<Vec<Statement>, ConfigError> {
    let mut statements: Vec<Statement> = Vec::new();
    for argument in arguments {
        let name = argument.strip_prefix("--");
        match (statements.last_mut(), name) {
            (Some(last), _) if last.words.len() == 1 && !leaves_save_empty(last, argument) => push(last, argument),
            (_, Some(name)) => statements.push(flag(name, argument)?),
            (Some(last), None) => push(last, argument),
            (None, None) => {
                let words = vec![argument.clone()];
                let stray = Statement::from_words(Origin::Flags, argument.clone(), words);
                return Err(stray.wrong("Directives begin with '--', and the configuration file comes first"));
            }
        }
    }
    for statement in statements.iter_mut().filter(|statement| is_save(statement) && statement.words.len() == 1) {
        statement.words.push(String::new());
    }
    Ok(statements)
}

/// `--save --port 1`: people build command lines from arrays, and Redis reads an empty one as `save ""`.
fn leaves_save_empty(last: &Statement, next: &str) -> bool {
    is_save(last) && next.starts_with("--")
}

fn is_save(statement: &Statement) -> bool {
    statement.words.first().is_some_and(|name| name.eq_ignore_ascii_case("save"))
}

fn push(statement: &mut Statement, argument: &str) {
    statement.text.push(' ');
    statement.text.push_str(argument);
    statement.words.push(argument.to_owned());
}

fn flag(name: &str, argument: &str) -> Result<Statement, ConfigError> {
    let mut statement = Statement::from_words(Origin::Flags, argument.to_owned(), Vec::new());
    statement.words = match name.split_once('=') {
        Some((name, value)) if table::find(name).is_some() => vec![name.to_owned(), value.to_owned()],
        _ => words::split(name).map_err(|why| statement.wrong(why))?,
    };
    if statement.words.is_empty() {
        return Err(statement.wrong("a directive must follow '--'"));
    }
    Ok(statement)
}

/// Takes statements, source by source.
#[derive(Default)]
struct Loader {
    values: Values,
    /// Directives without meaning that were given another value than their default.
    ignored: Vec<&'static str>,
    notes: Vec<String>,
    renamed: Vec<(String, String)>,
    /// Lists to which the present source has added.
    begun: Vec<&'static str>,
    /// Directives that stand at a value that is refused.
    refused: Vec<(&'static str, ConfigError)>,
}

impl Loader {
    fn source(&mut self, statements: Vec<Statement>) -> Result<(), ConfigError> {
        self.begun.clear();
        statements.into_iter().try_for_each(|statement| self.take(&statement))
    }

    fn take(&mut self, statement: &Statement) -> Result<(), ConfigError> {
        let [name, arguments @ ..] = statement.words.as_slice() else { return Ok(()) };
        match table::find(name) {
            Some(directive) => {
                self.assign(directive, arguments).map_err(|why| statement.wrong(why))?;
                self.judge(directive, statement);
                Ok(())
            }
            None => self.other(&name.to_ascii_lowercase(), arguments).map_err(|why| statement.wrong(why)),
        }
    }

    fn assign(&mut self, directive: &'static Directive, arguments: &[String]) -> Result<(), String> {
        let afresh = directive.accumulates() && !self.begun.contains(&directive.name);
        let previous = if afresh { "" } else { self.values.text(directive) };
        let text = directive.kind.read(&spread(directive, arguments)?, previous)?;
        if directive.meaning == Meaning::Ignored && text != directive.default && !self.ignored.contains(&directive.name)
        {
            self.ignored.push(directive.name);
        }
        if directive.accumulates() {
            self.begun.push(directive.name);
        }
        self.values.put(directive, text);
        Ok(())
    }

    /// Keeps the error of a value that is refused, unless a later source takes it back: `--daemonize no` after a file
    /// with `daemonize yes` is how Debian starts Redis.
    fn judge(&mut self, directive: &'static Directive, statement: &Statement) {
        self.refused.retain(|(name, _)| *name != directive.name);
        if directive.meaning == Meaning::Refused && self.values.text(directive) != directive.default {
            self.refused.push((directive.name, statement.wrong(refusal(directive))));
        }
    }

    /// What redis.conf may hold that is no setting.
    fn other(&mut self, name: &str, arguments: &[String]) -> Result<(), String> {
        match (name, arguments) {
            ("rename-command", [from, to]) => self.renamed.push((from.clone(), to.clone())),
            ("list-max-ziplist-entries" | "list-max-ziplist-value" | "lua-replicate-commands", [_]) => {}
            ("user", [_, ..]) => return Err("there are no ACL users in this version: use requirepass".to_owned()),
            ("loadmodule", [_, ..]) => return Err("modules of Redis cannot be loaded here".to_owned()),
            ("sentinel", _) => return Err("there is no sentinel mode: nodes watch each other".to_owned()),
            _ => return Err(error::unknown(name)),
        }
        Ok(())
    }

    /// The statements of the environment. A variable that names no directive may belong to somebody else, as those that
    /// Kubernetes sets for a service called redynamo: it is noted, not an error.
    fn environment(&mut self, variables: Vec<(String, String)>) -> Vec<Statement> {
        let mut statements = Vec::new();
        for (variable, value) in variables {
            let Some(part) = variable.strip_prefix(super::ENVIRONMENT_PREFIX) else { continue };
            let is = |name: &str| table::variable_part(name) == part;
            let directive = table::all().find(|directive| is(directive.name) || directive.alias.is_some_and(is));
            match directive {
                Some(_) if value.starts_with("tcp://") => {
                    self.notes.push(format!("{variable}={value} is a service link, not a setting: passed over"));
                }
                Some(directive) => {
                    let words = vec![directive.name.to_owned(), value.clone()];
                    let origin = Origin::Environment(variable.clone());
                    statements.push(Statement::from_words(origin, format!("{variable}={value}"), words));
                }
                None => self.notes.push(format!("{variable} in the environment names no directive: passed over")),
            }
        }
        statements
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Settings, ConfigError> {
        if let Some((_, error)) = self.refused.into_iter().next() {
            return Err(error);
        }
        let config = Config::from_values(&self.values).map_err(|unfit| ConfigError {
            origin: Origin::Whole,
            statement: unfit.name.to_owned(),
            why: unfit.why,
        })?;
        if !self.ignored.is_empty() {
            self.notes.insert(0, format!("Directives without meaning here, ignored: {}", self.ignored.join(", ")));
        }
        Ok(Settings::new(self.values, config, file, self.notes, self.renamed, self.ignored))
    }
}

/// The words of a list that was given as one word with blanks in it, as from the environment or in quotes.
fn spread(directive: &Directive, arguments: &[String]) -> Result<Vec<String>, String> {
    match arguments {
        [] => Err("wrong number of arguments".to_owned()),
        [one] if directive.kind.takes_many() && !one.is_empty() => words::split(one).map_err(str::to_owned),
        many => Ok(many.to_vec()),
    }
}

/// Why a directive of Redis cannot be had here.
pub(super) fn refusal(directive: &Directive) -> String {
    format!("{} can only be '{}' here: {}", directive.name, directive.default, directive.doc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn from_flags(words: &[&str]) -> Result<Settings, ConfigError> {
        Sources { flags: strings(words), ..Sources::default() }.load()
    }

    fn from_text(text: &str) -> Result<Settings, ConfigError> {
        Sources { stdin: Some(text.to_owned()), ..Sources::default() }.load()
    }

    fn value(settings: &Settings, name: &str) -> String {
        settings.get(&[name.as_bytes()]).pop().map(|(_, text)| text).unwrap()
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.conf");
        std::fs::write(&file, "port 1000\nweight 1000\nmaxclients 1000\ntimeout 1000\n").unwrap();
        let sources = Sources {
            file: Some(file),
            stdin: Some("weight 2000\nmaxclients 2000\ntimeout 2000".into()),
            environment: vec![
                ("REDYNAMO_MAXCLIENTS".into(), "3000".into()),
                ("REDYNAMO_TIMEOUT".into(), "3000".into()),
            ],
            flags: strings(&["--timeout", "4000"]),
        };
        let settings = sources.load().unwrap();
        let values = ["port", "weight", "maxclients", "timeout"].map(|name| value(&settings, name));
        assert_eq!(values, ["1000", "2000", "3000", "4000"]);
    }

    #[test]
    fn flags_are_read_as_redis_server_reads_them() {
        let flags = ["--port", "7777", "--bind", "127.0.0.1", "::1", "--requirepass", "--x", "--save", "--timeout=5"];
        let settings = from_flags(&flags).unwrap();
        let values = ["port", "bind", "requirepass", "save", "timeout"].map(|name| value(&settings, name));
        assert_eq!(values, ["7777", "127.0.0.1 ::1", "--x", "", "5"]);
        let settings = from_flags(&["--save 60 1", "--loglevel verbose", "--save", "20 2"]).unwrap();
        assert_eq!(["save", "loglevel"].map(|name| value(&settings, name)), ["60 1 20 2", "verbose"]);
        assert_eq!(value(&from_flags(&["--port", "1", "--save"]).unwrap(), "save"), "");
    }

    #[test]
    fn flags_that_make_no_sense_are_shown() {
        let error = from_flags(&["--prt", "1"]).unwrap_err();
        assert_eq!((error.statement.as_str(), &error.origin), ("--prt 1", &Origin::Flags));
        assert!(error.why.ends_with("Did you mean 'port'?"), "{error}");
        assert!(from_flags(&["stray"]).is_err());
        assert!(from_flags(&["--"]).is_err());
        assert_eq!(from_flags(&["--port"]).unwrap_err().why, "wrong number of arguments");
        assert_eq!(from_flags(&["--port", "1", "2"]).unwrap_err().why, "wrong number of arguments");
    }

    #[test]
    fn joins_of_one_source_add_up_and_the_next_source_begins_afresh() {
        let sources = Sources {
            stdin: Some("join localhost:1\njoin 127.0.0.1:2".into()),
            flags: strings(&["--join", "localhost:3", "--join", "localhost:4"]),
            ..Sources::default()
        };
        assert_eq!(value(&from_text("join localhost:1\njoin 127.0.0.1:2").unwrap(), "join"), "localhost:1 127.0.0.1:2");
        assert_eq!(sources.load().unwrap().config().join, ["localhost:3", "localhost:4"]);
    }

    #[test]
    fn lists_may_come_as_one_quoted_word() {
        assert_eq!(value(&from_text("bind \"127.0.0.1 ::1\"").unwrap(), "bind"), "127.0.0.1 ::1");
        let environment = vec![("REDYNAMO_JOIN".to_owned(), "localhost:1,localhost:2".to_owned())];
        let settings = Sources { environment, ..Sources::default() }.load().unwrap();
        assert_eq!(settings.config().join, ["localhost:1", "localhost:2"]);
    }

    #[test]
    fn an_existing_redis_conf_loads_and_what_it_cannot_mean_is_named_once() {
        let text = "save 900 1\nsave 300 10\nappendonly yes\nslave-priority 5\nlist-max-ziplist-entries 9\n\
                    rdbcompression yes\ndaemonize no\nappendonly yes\nrename-command FLUSHALL \"\"\nreplicaof no one";
        let settings = from_text(text).unwrap();
        assert_eq!(settings.notes(), ["Directives without meaning here, ignored: save, appendonly, replica-priority"]);
        assert_eq!(value(&settings, "save"), "900 1 300 10");
        assert_eq!(value(&settings, "replica-priority"), "5");
        assert_eq!(settings.renamed_commands(), [("FLUSHALL".to_owned(), String::new())]);
    }

    #[test]
    fn what_would_be_dangerous_to_ignore_is_refused_with_a_reason() {
        let cases = [
            ("daemonize yes", "service manager"),
            ("replicaof 10.0.0.1 6379", "join"),
            ("slaveof 10.0.0.1 6379", "join"),
            ("tls-port 6380", "TLS"),
            ("aclfile /etc/users.acl", "requirepass"),
            ("user default on nopass ~* +@all", "requirepass"),
            ("loadmodule /x.so", "modules"),
        ];
        for (line, reason) in cases {
            let error = from_text(line).unwrap_err();
            assert!(error.why.contains(reason), "{line}: {error}");
            assert_eq!(error.statement, line);
        }
        let taken_back = from_text("daemonize yes\nreplicaof a 1\ndaemonize no\nreplicaof no one").unwrap();
        assert_eq!(["daemonize", "slaveof"].map(|name| value(&taken_back, name)), ["no", ""]);
    }

    #[test]
    fn variables_that_are_no_settings_are_noted() {
        let variables = [
            ("REDYNAMO_PORT", "tcp://10.0.0.1:6379"),
            ("REDYNAMO_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/root"),
            ("REDYNAMO_SLAVE_PRIORITY", "7"),
        ];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let settings = Sources { environment, ..Sources::default() }.load().unwrap();
        assert_eq!(value(&settings, "port"), "6379");
        assert_eq!(value(&settings, "slave-priority"), "7");
        assert_eq!(settings.notes().len(), 3);
        let environment = vec![("REDYNAMO_PORT".to_owned(), "x".to_owned())];
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err();
        assert_eq!(error.origin, Origin::Environment("REDYNAMO_PORT".into()));
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused_as_a_whole() {
        let cases = [
            ("replicas 3\nread-quorum 4", "read-quorum"),
            ("replicas 1", "read-quorum"),
            ("partitions 100", "partitions"),
            ("port 0", "port"),
            ("port 60000", "peer-port"),
            ("peer-port 6379", "peer-port"),
            ("bind \"\"", "bind"),
            ("zone \"a b\"", "zone"),
            ("peer-bind 10.0.0.1", "peer-bind"),
            ("join 10.0.0.1:16379", "cluster-secret"),
        ];
        for (text, name) in cases {
            let error = from_text(text).unwrap_err();
            assert_eq!((error.statement.as_str(), &error.origin), (name, &Origin::Whole), "{text}");
        }
    }
}

//! The settings of a running node: texts for `CONFIG`, and the typed snapshot that everything else reads.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::source::refusal;
use super::table::{self, Change, Directive, Meaning};
use super::typed::{Config, Values};
use super::value::Kind;
use super::{rewrite, statement};
use crate::base::glob;

/// Called with the new snapshot after each change.
type Watcher = Box<dyn Fn(&Config) + Send + Sync>;

/// The settings. Reading a snapshot takes no lock; changes are made one after the other, each whole or not at all.
pub struct Settings {
    values: Mutex<Values>,
    config: ArcSwap<Config>,
    file: Option<PathBuf>,
    notes: Vec<String>,
    renamed: Vec<(String, String)>,
    /// Ignored directives that the log has named.
    named: Mutex<HashSet<&'static str>>,
    watchers: Mutex<Vec<Watcher>>,
}

/// Values are left out: among them are passwords.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn new(
        values: Values,
        config: Config,
        file: Option<PathBuf>,
        notes: Vec<String>,
        renamed: Vec<(String, String)>,
        ignored: Vec<&'static str>,
    ) -> Settings {
        Settings {
            values: Mutex::new(values),
            config: ArcSwap::from_pointee(config),
            file: file.map(|path| std::path::absolute(&path).unwrap_or(path)),
            notes,
            renamed,
            named: Mutex::new(ignored.into_iter().collect()),
            watchers: Mutex::new(Vec::new()),
        }
    }

    /// The present snapshot.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The configuration file, absolute; `None`: the node was started without one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What an operator should be told about the configuration, one line each: directives that were ignored, variables
    /// that were passed over.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Pairs of `rename-command`: the command and its new name, which is empty if it is to be refused.
    pub fn renamed_commands(&self) -> &[(String, String)] {
        &self.renamed
    }

    /// Has `watcher` called with the new snapshot after each change from now on. It must not change settings itself.
    pub fn watch(&self, watcher: impl Fn(&Config) + Send + Sync + 'static) {
        self.watchers.lock().push(Box::new(watcher));
    }

    /// `CONFIG GET`: names and texts of what `patterns` name. A pattern without wildcards is answered as it was spelt;
    /// aliases are names of their own; each name is answered once.
    pub fn get<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Vec<(String, String)> {
        let values = self.values.lock();
        let mut found: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, directive: &Directive| {
            if !found.iter().any(|(known, _)| known == name) {
                found.push((name.to_owned(), shown(&values, directive)));
            }
        };
        for pattern in patterns.iter().map(AsRef::as_ref) {
            if !statement::is_pattern(pattern) {
                let name = str::from_utf8(pattern).unwrap_or_default();
                table::find(name).into_iter().for_each(|directive| add(name, directive));
                continue;
            }
            for directive in table::all().filter(|directive| !directive.hidden) {
                let names = std::iter::once(directive.name).chain(directive.alias);
                names
                    .filter(|name| glob::matches_nocase(pattern, name.as_bytes()))
                    .for_each(|name| add(name, directive));
            }
        }
        found
    }

    /// `CONFIG SET`: all of `pairs` or none. The answer is the names that got another value; the error is Redis' reply.
    pub fn set<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, pairs: &[(N, V)]) -> Result<Vec<&'static str>, String> {
        let pairs = resolve(pairs)?;
        let mut values = self.values.lock();
        let mut next = values.clone();
        for (directive, name, value) in &pairs {
            let text = read(directive, value, &next).map_err(|why| failed(name, &why))?;
            next.put(directive, text);
        }
        let config = Config::from_values(&next).map_err(|unfit| failed(unfit.name, &unfit.why))?;
        let changed = |directive: &Directive| values.text(directive) != next.text(directive);
        let changed: Vec<&'static Directive> =
            pairs.iter().map(|(directive, ..)| *directive).filter(|directive| changed(directive)).collect();
        *values = next;
        self.config.store(Arc::new(config));
        drop(values);
        self.tell(&changed);
        Ok(changed.iter().map(|directive| directive.name).collect())
    }

    /// Gives a setting its default again, under the rules of [`Settings::set`].
    pub fn reset(&self, name: &str) -> Result<(), String> {
        let directive = table::find(name).ok_or_else(|| unknown(name))?;
        self.set(&[(directive.name, directive.default)]).map(drop)
    }

    /// `CONFIG REWRITE`: writes what differs from the defaults into the file that the node was started with, keeping
    /// its comments and order. The error is Redis' reply.
    pub fn rewrite(&self) -> Result<(), String> {
        let Some(path) = self.file() else {
            return Err("ERR The server is running without a config file".to_owned());
        };
        let values = self.values.lock();
        rewrite::rewrite(path, |directive| values.text(directive).to_owned())
            .map_err(|error| format!("ERR Rewriting config file: {error}"))
    }

    fn tell(&self, changed: &[&'static Directive]) {
        for directive in changed.iter().filter(|directive| directive.meaning == Meaning::Ignored) {
            if self.named.lock().insert(directive.name) {
                tracing::info!("Directive without meaning here, kept and ignored: {}", directive.name);
            }
        }
        let config = self.config();
        self.watchers.lock().iter().for_each(|watcher| watcher(&config));
    }
}

/// The text as clients may see it.
fn shown(values: &Values, directive: &Directive) -> String {
    let text = values.text(directive);
    match directive.kind {
        Kind::Path => directive.kind.read(&[text.to_owned()], "").unwrap_or_else(|_| text.to_owned()),
        _ if directive.concealed() && !text.is_empty() => "***".to_owned(),
        _ => text.to_owned(),
    }
}

/// A directive, the one of its names that was used, and a value for it.
type Assignment<'v> = (&'static Directive, &'static str, &'v [u8]);

/// The directives that the names stand for, checked in Redis' order: unknown, not to be changed, named twice.
fn resolve<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Result<Vec<Assignment<'_>>, String> {
    let names: Vec<_> = pairs.iter().map(|(name, _)| String::from_utf8_lossy(name.as_ref())).collect();
    let mut resolved: Vec<Assignment<'_>> = Vec::with_capacity(pairs.len());
    let mut refused = None;
    for (name, (_, value)) in names.iter().zip(pairs) {
        let directive = table::find(name).ok_or_else(|| unknown(name))?;
        let used = directive.alias.filter(|alias| alias.eq_ignore_ascii_case(name)).unwrap_or(directive.name);
        // Two names of one setting are not noticed: the later value stands, as in Redis.
        let twice = resolved.iter().any(|(_, known, _)| *known == used);
        let why = match directive.change {
            Change::Fixed => Some("can't set immutable config"),
            Change::Protected => Some("can't set protected config"),
            Change::Live => twice.then_some("duplicate parameter"),
        };
        if let (None, Some(why)) = (&refused, why) {
            refused = Some(failed(name, why));
        }
        resolved.push((directive, used, value.as_ref()));
    }
    refused.map_or(Ok(resolved), Err)
}

/// The new text of a setting. Lists are parted at single blanks, and nothing has no parts, as in Redis.
fn read(directive: &Directive, value: &[u8], values: &Values) -> Result<String, String> {
    let value = str::from_utf8(value).map_err(|_| "argument must be UTF-8 text")?;
    let words: Vec<String> = match directive.kind.takes_many() && directive.name != "notify-keyspace-events" {
        true if value.is_empty() => Vec::new(),
        true => value.split(' ').map(str::to_owned).collect(),
        false => vec![value.to_owned()],
    };
    let previous = if directive.accumulates() { "" } else { values.text(directive) };
    let text = directive.kind.read(&words, previous)?;
    if directive.meaning == Meaning::Refused && text != directive.default {
        return Err(refusal(directive));
    }
    Ok(text)
}

fn unknown(name: &str) -> String {
    format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
}

fn failed(name: &str, why: &str) -> String {
    format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn settings() -> Settings {
        Sources::default().load().unwrap()
    }

    fn get(settings: &Settings, name: &str) -> String {
        settings.get(&[name]).pop().map(|(_, text)| text).unwrap()
    }

    #[test]
    fn get_answers_patterns_names_and_aliases_each_once() {
        let settings = settings();
        let names =
            |patterns: &[&str]| -> Vec<String> { settings.get(patterns).into_iter().map(|(name, _)| name).collect() };
        assert_eq!(names(&["MAXmemory", "maxmemory-e*y", "nothing"]), ["MAXmemory", "maxmemory-eviction-tenacity"]);
        assert_eq!(names(&["hash-max-*-value"]), ["hash-max-listpack-value", "hash-max-ziplist-value"]);
        assert_eq!(names(&["rdb-key-*"]), [""; 0], "hidden ones take their exact name");
        assert_eq!(names(&["rdb-key-save-delay"]), ["rdb-key-save-delay"]);
        assert!(names(&["*"]).len() > 210);
    }

    #[test]
    fn values_are_printed_as_redis_prints_them() {
        let settings = settings();
        let cases = [
            ("save", "3600 1 300 100 60 10000"),
            ("proto-max-bulk-len", "536870912"),
            ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "no"),
        ];
        for (name, text) in cases {
            assert_eq!(get(&settings, name), text);
        }
        assert!(Path::new(&get(&settings, "dir")).is_absolute());
    }

    #[test]
    fn set_errors_are_those_of_redis() {
        let settings = settings();
        let failed =
            |name: &str, why: &str| format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
        let cases: [(&[(&str, &str)], String); 9] = [
            (&[("x", "1")], "ERR Unknown option or number of arguments for CONFIG SET - 'x'".into()),
            (&[("port", "1"), ("x", "1")], "ERR Unknown option or number of arguments for CONFIG SET - 'x'".into()),
            (&[("timeout", "abc")], failed("timeout", "argument couldn't be parsed into an integer")),
            (&[("maxclients", "0")], failed("maxclients", "argument must be between 1 and 4294967295 inclusive")),
            (&[("DATABASES", "4")], failed("DATABASES", "can't set immutable config")),
            (&[("dir", "/")], failed("dir", "can't set protected config")),
            (&[("timeout", "1"), ("Timeout", "2")], failed("Timeout", "duplicate parameter")),
            (&[("save", "1")], failed("save", "Invalid save parameters")),
            (&[("read-quorum", "4")], failed("read-quorum", "no more than replicas (3) can answer a read")),
        ];
        for (pairs, error) in cases {
            assert_eq!(settings.set(pairs), Err(error));
        }
        let error = settings.set(&[("loglevel", "loud")]).unwrap_err();
        assert!(error.ends_with("argument(s) must be one of the following: debug, verbose, notice, warning, nothing"));
        assert!(settings.set(&[("tls-port", "6380")]).unwrap_err().contains("there is no TLS"));
        assert!(settings.set(&[("requirepass", b"\xff")]).is_err());
    }

    #[test]
    fn errors_name_a_setting_as_it_was_called_and_nothing_may_be_a_value() {
        let settings = settings();
        let error = settings.set(&[("HASH-max-ziplist-value", "x")]).unwrap_err();
        assert!(error.contains("argument 'hash-max-ziplist-value'"), "{error}");
        assert_eq!(settings.set(&[("client-output-buffer-limit", "")]), Ok(vec![]));
        assert_eq!(settings.set(&[("maxmemory", ""), ("cluster-announce-hostname", "")]), Ok(vec![]));
        assert!(settings.set(&[("shutdown-on-sigterm", "")]).is_err());
        assert!(settings.set(&[("cluster-announce-hostname", "a b")]).unwrap_err().ends_with("hyphens or dots"));
    }

    #[test]
    fn a_set_changes_everything_or_nothing() {
        let settings = settings();
        assert!(settings.set(&[("timeout", "5"), ("maxclients", "x")]).is_err());
        assert_eq!((get(&settings, "timeout").as_str(), settings.config().timeout), ("0", None));
        assert_eq!(settings.set(&[("timeout", "5"), ("maxclients", "10000")]), Ok(vec!["timeout"]));
        assert_eq!(settings.config().timeout, Some(std::time::Duration::from_secs(5)));
        assert_eq!(settings.reset("timeout"), Ok(()));
        assert_eq!(settings.config().timeout, None);
    }

    #[test]
    fn quorums_of_databases_are_set_one_by_one_and_whole_or_not_at_all() {
        let settings = settings();
        assert_eq!(settings.set(&[("database-quorum", "5 2 2")]), Ok(vec!["database-quorum"]));
        settings.set(&[("database-quorum", "0 1 3")]).unwrap();
        for wrong in ["1 1 1 2 1 4", "1 1 1 16 1 1", "1 1 1 2", "1 1 1 2 0 1"] {
            let error = settings.set(&[("timeout", "5"), ("database-quorum", wrong)]).unwrap_err();
            assert!(error.contains("argument 'database-quorum'"), "{error}");
        }
        assert_eq!(
            (get(&settings, "database-quorum").as_str(), get(&settings, "timeout").as_str()),
            ("0 1 3 5 2 2", "0")
        );
        settings.set(&[("database-quorum", "")]).unwrap();
        assert_eq!((get(&settings, "database-quorum").as_str(), settings.config().database_quorums.len()), ("", 0));
    }

    #[test]
    fn sets_that_redis_test_suites_make_are_accepted() {
        let settings = settings();
        let pairs = [
            ("save", ""),
            ("list-max-ziplist-size", "16"),
            ("set-max-intset-entries", "512"),
            ("slowlog-log-slower-than", "-1"),
            ("rdb-key-save-delay", "10000"),
            ("client-query-buffer-limit", "2gb"),
            ("client-output-buffer-limit", "normal 1mb 0 0"),
            ("notify-keyspace-events", "KEA"),
            ("latency-tracking-info-percentiles", "50 99"),
            ("appendonly", "yes"),
        ];
        for (name, value) in pairs {
            settings.set(&[(name, value)]).unwrap();
        }
        assert_eq!(get(&settings, "list-max-listpack-size"), "16");
        assert_eq!(get(&settings, "notify-keyspace-events"), "AKE");
        assert_eq!(settings.config().client_query_buffer_limit, 2 << 30);
        assert_eq!(settings.config().output_limit.hard, 1 << 20);
        assert_eq!(settings.config().pubsub_output_limit.hard, 32 << 20);
    }

    #[test]
    fn watchers_see_each_change() {
        let settings = settings();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        settings.watch(move |config| count.store(config.maxclients as usize, Ordering::SeqCst));
        settings.set(&[("maxclients", "77")]).unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 77);
    }

    #[test]
    fn the_secret_of_the_cluster_is_shown_to_nobody() {
        let flags = ["--cluster-secret", "hush"].map(str::to_owned).to_vec();
        let settings = Sources { flags, ..Sources::default() }.load().unwrap();
        assert_eq!(get(&settings, "cluster-secret"), "***");
        assert_eq!(settings.config().cluster_secret.as_ref().map(|secret| secret.as_str()), Some("hush"));
        assert!(!format!("{:?} {:?}", settings, settings.config()).contains("hush"));
    }

    #[test]
    fn a_rewrite_without_a_file_is_refused() {
        assert_eq!(settings().rewrite(), Err("ERR The server is running without a config file".to_owned()));
    }
}

//! The slow log: the latest commands that took at least `slowlog-log-slower-than`, as SLOWLOG shows them.
//!
//! A command's arguments are gone once it has run, so they are held on the side from its start: some reference counts,
//! no copies. Only what turns out slow is shortened, freed of secrets and kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::commands::facts::SlowEntry;
use crate::commands::spec::Flags;
use crate::commands::{Session, Spec};
use crate::config::Config;
use crate::resp::Arguments;

/// Redis keeps so many arguments of a command; the last place says how many more there were.
const MAX_ARGUMENTS: usize = 32;
/// Redis keeps so many bytes of an argument.
const MAX_BYTES: usize = 128;
/// Stands for what nobody may read.
const REDACTED: Bytes = Bytes::from_static(b"(redacted)");
/// Settings whose values are secrets, on any server whose configuration somebody may try here.
const SECRETS: [&[u8]; 5] = [b"requirepass", b"masterauth", b"masteruser", b"cluster-secret", b"tls-key-file-pass"];

/// See the module.
#[derive(Debug, Default)]
pub struct SlowLog {
    /// In microseconds; `u64::MAX`: nothing is slow.
    threshold: AtomicU64,
    limit: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next_id: u64,
    /// Latest first.
    entries: VecDeque<SlowEntry>,
}

/// A command's arguments, held while it runs.
#[derive(Debug)]
pub struct Held {
    spec: &'static Spec,
    args: Arguments,
    /// How many there were.
    count: usize,
}

impl SlowLog {
    /// An empty log with the bounds of `config`.
    pub fn new(config: &Config) -> SlowLog {
        let log = SlowLog::default();
        log.configure(config);
        log
    }

    /// Takes over the bounds of `config`.
    pub fn configure(&self, config: &Config) {
        let micros = |slow: Duration| u64::try_from(slow.as_micros()).unwrap_or(u64::MAX);
        self.threshold.store(config.slowlog_slower_than.map_or(u64::MAX, micros), Ordering::Relaxed);
        self.limit.store(config.slowlog_max_len, Ordering::Relaxed);
        self.kept.lock().entries.truncate(config.slowlog_max_len);
    }

    /// Holds the arguments of a command that may turn out slow.
    pub fn hold(&self, spec: Option<&'static Spec>, args: &Arguments) -> Option<Held> {
        let spec = spec.filter(|spec| !spec.flags.has(Flags::SKIP_SLOWLOG))?;
        if self.threshold.load(Ordering::Relaxed) == u64::MAX {
            return None;
        }
        let args_held = args.iter().take(MAX_ARGUMENTS).cloned().collect();
        Some(Held { spec, args: args_held, count: args.len() })
    }

    /// Keeps a command that has run, if it was slow.
    pub fn note(&self, held: Held, took: Duration, session: &Session) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if took_us >= self.threshold.load(Ordering::Relaxed) {
            self.keep(SlowEntry {
                id: 0,
                at_s: super::system::wall().as_secs(),
                took_us,
                args: held.shown(),
                addr: session.addr.clone(),
                name: Bytes::copy_from_slice(&session.name),
            });
        }
    }

    /// The latest `count`, latest first.
    pub fn latest(&self, count: usize) -> Vec<SlowEntry> {
        self.kept.lock().entries.iter().take(count).cloned().collect()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets them; ids go on.
    pub fn reset(&self) {
        self.kept.lock().entries.clear();
    }

    fn keep(&self, entry: SlowEntry) {
        let mut kept = self.kept.lock();
        let id = kept.next_id;
        kept.next_id = id.wrapping_add(1);
        kept.entries.push_front(SlowEntry { id, ..entry });
        kept.entries.truncate(self.limit.load(Ordering::Relaxed));
    }
}

impl Held {
    /// The arguments, shortened, without secrets, in memory of their own.
    fn shown(&self) -> Vec<Bytes> {
        let secret = secrets(self.spec, &self.args);
        let shown = |(at, arg): (usize, &Bytes)| if secret(at) { REDACTED } else { shortened(arg) };
        if self.count <= MAX_ARGUMENTS {
            return self.args.iter().enumerate().map(shown).collect();
        }
        let more = format!("... ({} more arguments)", self.count - (MAX_ARGUMENTS - 1));
        let first = self.args.iter().enumerate().take(MAX_ARGUMENTS - 1).map(shown);
        first.chain([Bytes::from(more)]).collect()
    }
}

/// The argument in memory of its own: a slice would keep the whole request alive.
fn shortened(arg: &Bytes) -> Bytes {
    match arg.get(..MAX_BYTES).filter(|_| arg.len() > MAX_BYTES) {
        Some(first) => [first, format!("... ({} more bytes)", arg.len() - MAX_BYTES).as_bytes()].concat().into(),
        None => Bytes::copy_from_slice(arg),
    }
}

/// Which arguments nobody may read afterwards.
fn secrets<'a>(spec: &Spec, args: &'a [Bytes]) -> Box<dyn Fn(usize) -> bool + 'a> {
    let named =
        |at: usize| args.get(at).is_some_and(|name| SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret)));
    match (spec.container, spec.name) {
        (_, "AUTH") => Box::new(|at| at > 0),
        ("ACL", _) => Box::new(|at| at > 1),
        ("CONFIG", "SET") => Box::new(move |at| at > 2 && at % 2 == 1 && named(at - 1)),
        (_, "HELLO") => {
            let auth = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"auth")).unwrap_or(usize::MAX);
            Box::new(move |at| at > auth && at - auth <= 2)
        }
        _ => Box::new(|_| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::lookup;
    use crate::config::Sources;

    fn log(slower_than: &str, max_len: &str) -> SlowLog {
        let settings = Sources::default().load().unwrap();
        settings.set(&[("slowlog-log-slower-than", slower_than), ("slowlog-max-len", max_len)]).unwrap();
        SlowLog::new(&settings.config())
    }

    fn run(log: &SlowLog, command: &str, took_us: u64) -> Vec<String> {
        let args: Arguments = command.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        let held = log.hold(lookup(&args).ok(), &args);
        if let Some(held) = held {
            log.note(held, Duration::from_micros(took_us), &Session::default());
        }
        let text = |arg: &Bytes| String::from_utf8_lossy(arg).into_owned();
        log.latest(1).first().map(|entry| entry.args.iter().map(text).collect()).unwrap_or_default()
    }

    #[test]
    fn what_took_long_enough_is_kept_latest_first_and_ids_go_on() {
        let log = log("100", "2");
        for took in [99, 100, 101, 102] {
            run(&log, "get k", took);
        }
        let kept: Vec<_> = log.latest(9).iter().map(|entry| (entry.id, entry.took_us)).collect();
        assert_eq!(kept, [(2, 102), (1, 101)]);
        log.reset();
        assert!(log.is_empty());
        run(&log, "get k", 500);
        assert_eq!(log.latest(9)[0].id, 3);
    }

    #[test]
    fn zero_keeps_everything_and_a_negative_bound_nothing() {
        assert_eq!(run(&log("0", "9"), "get k", 0), ["get", "k"]);
        assert!(run(&log("-1", "9"), "get k", u64::MAX).is_empty());
        assert!(run(&log("0", "0"), "get k", 9).is_empty());
    }

    #[test]
    fn long_commands_are_shortened_as_redis_shortens_them() {
        let log = log("0", "9");
        let many = format!("mget{}", " k".repeat(40));
        let shown = run(&log, &many, 1);
        assert_eq!((shown.len(), shown[31].as_str()), (32, "... (10 more arguments)"));
        assert_eq!(run(&log, &format!("mget{}", " k".repeat(31)), 1).len(), 32);
        let shown = run(&log, &format!("set k {}", "x".repeat(130)), 1);
        assert_eq!(shown[2], format!("{}... (2 more bytes)", "x".repeat(128)));
    }

    #[test]
    fn secrets_are_not_kept() {
        let log = log("0", "9");
        let cases = [
            ("auth me hush", "auth (redacted) (redacted)"),
            ("hello 3 auth me hush setname x", "hello 3 auth (redacted) (redacted) setname x"),
            ("config set timeout 5 requirepass hush", "config set timeout 5 requirepass (redacted)"),
            ("acl setuser me >hush", "acl setuser (redacted) (redacted)"),
            ("set auth hush", "set auth hush"),
        ];
        for (command, shown) in cases {
            assert_eq!(run(&log, command, 1).join(" "), shown);
        }
    }

    #[test]
    fn bounds_follow_the_configuration() {
        let (first, settings) = (log("0", "9"), Sources::default().load().unwrap());
        run(&first, "get a", 1);
        run(&first, "get b", 1);
        settings.set(&[("slowlog-max-len", "1")]).unwrap();
        first.configure(&settings.config());
        assert_eq!(first.len(), 1);
        run(&first, "get c", 9_999);
        assert_eq!(first.latest(1)[0].args[1], "b", "10 ms is the default");
    }
}

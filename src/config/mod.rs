//! Every setting, declared once, and the ways a value gets into it: a redis.conf style file, the environment, flags,
//! `CONFIG SET`. One name everywhere: `port` in a file, `--port` as a flag, `REDYNAMO_PORT` in the environment.
//!
//! The path of a value: [`source`] collects statements from file, environment and flags in that order; each statement
//! finds its row in the [`table`]; the row's [`Kind`] reads the words and gives the canonical text that `CONFIG GET`
//! prints; [`Config::from_values`] makes the typed snapshot that the program reads; [`Settings`] holds both and swaps
//! them whole, so that a reader never sees half of a change.
//!
//! Deliberately absent: what a setting does. No socket is bound, no file is opened for data and no log is written here,
//! except that a directive without meaning here is named once in the log.

mod error;
pub mod example;
mod redis;
mod rewrite;
mod settings;
pub mod source;
mod special;
mod statement;
pub mod table;
mod typed;
mod types;
mod value;
mod words;

pub use error::{ConfigError, Origin};
pub use settings::Settings;
pub use source::Sources;
pub use table::{Change, Directive, Meaning, find};
pub use typed::Config;
pub use types::{Bind, Fsync, LogFormat, LogLevel, OutputLimit, Secret, StrictDatabases, Supervised};
pub use value::Kind;

/// The version of Redis whose commands, replies and settings are spoken here: what `INFO` calls `redis_version`.
pub const REDIS_VERSION: &str = "7.2.4";

/// What names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "REDYNAMO_";

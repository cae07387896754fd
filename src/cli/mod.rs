//! The command line: what is to be done, and with which settings.
//!
//! `redynamo [config-file] [--directive value ...]` is what redis-server takes, read by [`crate::config::Sources`]:
//! values may look like flags there, so that clap hands these words on as they are. clap does the rest: subcommands,
//! help, version.

mod help;
pub mod local;
pub mod ping;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{ConfigError, REDIS_VERSION, Settings, Sources};

/// What is to be done.
#[derive(Debug)]
pub enum Invocation {
    /// Run a node.
    Serve(Settings),
    /// Say that the settings are sound, and what of them is ignored.
    Check(Settings),
    /// Run several nodes on this machine.
    Local(local::Plan),
    /// Ask the node at this address whether it answers.
    Ping(String),
}

/// Why nothing is to be done, or nothing more than to show a text.
#[derive(Debug)]
pub enum Refusal {
    /// The settings cannot be used.
    Config(ConfigError),
    /// The words cannot be understood, or ask for the help or the version.
    Usage(clap::Error),
    /// The words ask for something that cannot be.
    Other(String),
}

impl Refusal {
    /// Shows it and gives the exit code: 0 for help and version, else 1 for settings and 2 for usage.
    pub fn report(&self) -> ExitCode {
        match self {
            Refusal::Usage(error) => {
                // With nowhere to show it, the exit code says it.
                let _ = error.print();
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
            }
            _ => {
                eprintln!("{self}");
                ExitCode::FAILURE
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Config(error) => error.fmt(f),
            Refusal::Usage(error) => error.fmt(f),
            Refusal::Other(why) => f.write_str(why),
        }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Refusal {
        Refusal::Config(error)
    }
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Refusal {
        Refusal::Usage(error)
    }
}

/// What a command line consists of besides its words.
pub struct Surroundings<'a> {
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// Reads the standard input to its end; called only if the words ask for it.
    pub stdin: &'a dyn Fn() -> std::io::Result<String>,
}

/// Reads a command line. `words` begin with the program's name.
pub fn read(words: impl IntoIterator<Item = OsString>, around: Surroundings<'_>) -> Result<Invocation, Refusal> {
    let matches = command().try_get_matches_from(words)?;
    match matches.subcommand() {
        Some(("local", matches)) => {
            let nodes = matches.get_one::<u16>("nodes").copied().unwrap_or(3);
            Ok(Invocation::Local(local::Plan::new(nodes, directives(matches), around.environment)?))
        }
        Some((_, matches)) => {
            let settings =
                Sources { environment: around.environment, flags: directives(matches), ..Sources::default() };
            Ok(Invocation::Ping(settings.load()?.config().client_address()))
        }
        None => serve(&matches, around),
    }
}

fn serve(matches: &ArgMatches, around: Surroundings<'_>) -> Result<Invocation, Refusal> {
    let mut words = directives(matches);
    let mut check = matches.get_flag("check-config");
    words.retain(|word| {
        let is_check = word == "--check-config";
        check |= is_check;
        !is_check
    });
    for shown in ["--help", "-h", "--version", "-v"] {
        if words.iter().any(|word| word == shown) {
            command().try_get_matches_from(["redynamo", shown])?;
        }
    }
    let file = words.first().filter(|word| !word.starts_with('-')).map(PathBuf::from);
    let mut flags = words.split_off(usize::from(file.is_some()));
    let from_stdin = take_dash(&mut flags);
    let stdin = from_stdin.then(|| (around.stdin)()).transpose();
    let stdin = stdin.map_err(|error| Refusal::Other(format!("Can't read the configuration from stdin: {error}")))?;
    let settings = Sources { file, stdin, environment: around.environment, flags }.load()?;
    Ok(if check { Invocation::Check(settings) } else { Invocation::Serve(settings) })
}

/// Takes out a `-` that is the first or the last word: the standard input has more configuration.
fn take_dash(flags: &mut Vec<String>) -> bool {
    if flags.last().is_some_and(|word| word == "-") {
        flags.pop();
        return true;
    }
    if flags.first().is_some_and(|word| word == "-") {
        flags.remove(0);
        return true;
    }
    false
}

fn directives(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("directives").into_iter().flatten().cloned().collect()
}

static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("v={} redis_version={REDIS_VERSION} bits={}", env!("CARGO_PKG_VERSION"), usize::BITS));

fn command() -> Command {
    Command::new("redynamo")
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .version(VERSION.as_str())
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .override_usage(help::USAGE)
        .after_help(help::after())
        .arg(
            Arg::new("version")
                .short('v')
                .short_alias('V')
                .long("version")
                .action(ArgAction::Version)
                .help("Show the version"),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Check the configuration and exit"),
        )
        .arg(raw_words())
        .subcommand(
            Command::new("local")
                .about("Run a cluster of several nodes on this machine, to try things out")
                .override_usage("redynamo local [N] [--port 6379] [--dir DIR] [--DIRECTIVE VALUE ...]")
                .after_help(help::LOCAL)
                .arg(
                    Arg::new("nodes")
                        .value_name("N")
                        .default_value("3")
                        .value_parser(clap::value_parser!(u16).range(1..=32))
                        .help("Number of nodes"),
                )
                .arg(raw_words()),
        )
        .subcommand(
            Command::new("ping")
                .about("Ask the node of these settings whether it answers; exit code 0 if so")
                .override_usage("redynamo ping [--port 6379] [--bind ADDRESS]")
                .arg(raw_words()),
        )
}

/// Words that are handed on as they are.
fn raw_words() -> Arg {
    Arg::new("directives").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Invocation, Refusal> {
        let stdin = || Ok("maxclients 77\ntimeout 7".to_owned());
        let words = std::iter::once("redynamo").chain(words.iter().copied()).map(OsString::from);
        read(words, Surroundings { environment: Vec::new(), stdin: &stdin })
    }

    fn serving(words: &[&str]) -> Settings {
        match run(words) {
            Ok(Invocation::Serve(settings)) => settings,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn clap_has_nothing_to_complain_about() {
        command().debug_assert();
    }

    #[test]
    fn words_of_redis_server_are_handed_on_as_they_are() {
        assert_eq!(serving(&[]).config().port, Some(6379));
        assert_eq!(serving(&["--port", "7777", "--bind", "127.0.0.1", "-::1"]).config().bind.len(), 2);
        assert_eq!(serving(&["--zone", "local", "--port", "7"]).config().zone, "local");
        assert_eq!(serving(&["--requirepass", "--port"]).config().requirepass.as_ref().unwrap().as_str(), "--port");
    }

    #[test]
    fn the_first_word_may_be_a_file_and_flags_override_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.conf");
        std::fs::write(&file, "port 7000\nmaxclients 5").unwrap();
        let file = file.to_str().unwrap();
        let settings = serving(&[file, "--port", "7001"]);
        assert_eq!((settings.config().port, settings.config().maxclients), (Some(7001), 5));
        assert_eq!(settings.file().and_then(|path| path.to_str()), Some(file));
        assert_eq!(serving(&[file, "-"]).config().maxclients, 77);
    }

    #[test]
    fn a_dash_reads_the_standard_input() {
        assert_eq!(serving(&["-"]).config().maxclients, 77);
        assert_eq!(serving(&["-", "--maxclients", "5"]).config().maxclients, 5);
        assert_eq!(serving(&["--maxclients", "5", "-"]).config().maxclients, 5);
        assert_eq!(serving(&["--port", "1"]).config().maxclients, 10_000);
    }

    #[test]
    fn checking_help_and_version_work_wherever_they_stand() {
        assert!(matches!(run(&["--check-config"]), Ok(Invocation::Check(_))));
        assert!(matches!(run(&["--port", "1", "--check-config"]), Ok(Invocation::Check(_))));
        for words in [&["--help"][..], &["--port", "1", "--help"], &["-v"], &["-V"], &["--port", "1", "--version"]] {
            let Err(Refusal::Usage(error)) = run(words) else { panic!("{words:?}") };
            assert_eq!(error.exit_code(), 0, "{words:?}");
        }
    }

    #[test]
    fn an_unknown_directive_is_refused_with_what_was_probably_meant() {
        let Err(Refusal::Config(error)) = run(&["--pot", "1"]) else { panic!() };
        assert!(error.why.ends_with("Did you mean 'port'?"), "{error}");
    }

    #[test]
    fn subcommands_have_their_own_words() {
        assert!(matches!(run(&["local"]), Ok(Invocation::Local(_))));
        assert!(matches!(run(&["local", "5", "--port", "7000"]), Ok(Invocation::Local(_))));
        assert!(matches!(run(&["local", "0"]), Err(Refusal::Usage(_))));
        assert!(matches!(run(&["local", "many"]), Err(Refusal::Usage(_))));
        let Ok(Invocation::Ping(address)) = run(&["ping", "--port", "7000", "--bind", "*"]) else { panic!() };
        assert_eq!(address, "127.0.0.1:7000");
    }
}

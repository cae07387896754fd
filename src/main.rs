//! The program: reads the command line, starts the log, runs what was asked for, and says with its exit code how it
//! went.

use std::io::{Read, stdin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use redynamo::cli::{self, Invocation, Surroundings};
use redynamo::config::Settings;
use redynamo::{log, runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let from_stdin = || {
        let mut text = String::new();
        stdin().read_to_string(&mut text).map(|_| text)
    };
    match cli::read(std::env::args_os(), Surroundings { environment, stdin: &from_stdin }) {
        Ok(Invocation::Serve(settings)) => serve(settings),
        Ok(Invocation::Check(settings)) => check(&settings),
        Ok(Invocation::Local(plan)) => ended(cli::local::run_until_signal(&plan)),
        Ok(Invocation::Ping(address)) => ping(&address),
        Err(refusal) => refusal.report(),
    }
}

fn serve(settings: Settings) -> ExitCode {
    let settings = Arc::new(settings);
    match log::start(&settings.config()) {
        Ok(handle) => settings.watch(move |config| handle.set_level(config.log_level)),
        Err(error) => return ended(Err(error)),
    }
    ended(runtime::run(settings))
}

fn check(settings: &Settings) -> ExitCode {
    settings.notes().iter().for_each(|note| println!("{note}"));
    settings.config().facts().iter().for_each(|fact| println!("{fact}"));
    println!("The configuration is sound");
    ExitCode::SUCCESS
}

fn ping(address: &str) -> ExitCode {
    match cli::ping::ping(address, Duration::from_secs(2)) {
        Ok(answer) => {
            println!("{answer}");
            if cli::ping::is_serving(&answer) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => ended(Err(format!("{address} does not answer: {error}"))),
    }
}

fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

//! A node as a process: threads, sockets, signals.

pub mod lifeline;

use std::fmt;
use std::sync::Arc;

use crate::config::Settings;

/// Why a node did not start, or stopped without being told to: one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Runs a node until it is told to stop.
pub fn run(settings: Arc<Settings>) -> Result<(), StartError> {
    settings.notes().iter().for_each(|note| tracing::warn!("{note}"));
    settings.config().facts().iter().for_each(|fact| tracing::info!("{fact}"));
    Ok(())
}

//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

// Test harnesses that `tests/` includes as well name the crate as it is named there.
#[cfg(test)]
extern crate self as redynamo;

pub mod base;
pub mod causality;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod env;
pub mod log;
pub mod metrics;
pub mod model;
pub mod node;
pub mod peer;
pub mod replica;
pub mod replication;
pub mod resp;
pub mod ring;
pub mod runtime;
pub mod server;
pub mod sim;
pub mod storage;

//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

pub mod base;
pub mod cli;
pub mod config;
pub mod log;
pub mod runtime;

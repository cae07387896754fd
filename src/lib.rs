//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

// A harness that unit tests share with `tests/` names this crate as outsiders do.
#[cfg(test)]
extern crate self as redynamo;

pub mod base;
pub mod causality;
pub mod ring;

pub mod resp;

pub mod model;

pub mod commands;

//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

pub mod base;
pub mod causality;
pub mod ring;

pub mod resp;

pub mod model;

pub mod commands;

pub mod config;

pub mod runtime;

pub mod cli;
pub mod log;

//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

pub mod base;
pub mod causality;
pub mod ring;

pub mod resp;

pub mod model;

pub mod commands;

pub mod metrics;

pub mod storage;

pub mod replica;

pub mod cluster;

pub mod peer;

pub mod env;

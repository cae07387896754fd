//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.

pub mod base;
pub mod storage;

//! Containers: their OCI configuration and their life.

pub mod create;
pub mod exec;
pub mod leftover;
pub mod lifecycle;
pub mod mounts;
pub mod resources;
pub mod seccomp;
pub mod security;
pub mod spec;
pub mod stats;
pub mod user;
mod volumes;

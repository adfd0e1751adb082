//! The test runner: groups of checks that run side by side, and their tally.

pub mod bundle;
pub mod cgroups;
pub mod cli;
pub mod command;
pub mod cri;
pub mod engines;
pub mod guest;
pub mod known;
pub mod long;
pub mod network;
pub mod oci;
pub mod options;
pub mod pod;
pub mod pods;
pub mod pool;
pub mod programs;
pub mod robust;
pub mod security;
pub mod tables;
pub mod tally;
pub mod unit;
pub mod vm;

//! Integration tests: guest programs in `guest/`, real programs in
//! `programs/`, and the runner that drives them natively and in sandboxes.

#[cfg(test)]
mod rules;
pub mod runner;

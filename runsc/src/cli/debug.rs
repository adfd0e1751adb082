//! `runsc debug`: look inside a running sandbox.

use anyhow::{Result, bail, ensure};
use clap::Args;

use super::Global;
use crate::control::{Reply, Request};
use crate::launch::Created;

#[derive(Args)]
pub struct Debug {
    /// Print each guest task with its state and current system call.
    #[arg(long)]
    stacks: bool,
    /// Print how many system calls of each program have come to the sentry
    /// without a signal (FAST) and by one (TRAPPED).
    #[arg(long, conflicts_with = "stacks")]
    stats: bool,
    id: String,
}

impl Debug {
    pub fn run(self, global: &Global) -> Result<u8> {
        ensure!(
            self.stacks || self.stats,
            "say what to show: --stacks or --stats"
        );
        let request = if self.stats {
            Request::Stats
        } else {
            Request::Stacks
        };
        let client = Created::open(global, &self.id)?.client();
        match client.call(&request, &[])? {
            Reply::Text { text } => {
                print!("{text}");
                Ok(0)
            }
            _ => bail!("the sandbox answered something else than text"),
        }
    }
}

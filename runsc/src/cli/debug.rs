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
    id: String,
}

impl Debug {
    pub fn run(self, global: &Global) -> Result<u8> {
        ensure!(self.stacks, "say what to show: --stacks");
        let client = Created::open(global, &self.id)?.client();
        match client.call(&Request::Stacks, &[])? {
            Reply::Text { text } => {
                print!("{text}");
                Ok(0)
            }
            _ => bail!("the sandbox answered something else than stacks"),
        }
    }
}

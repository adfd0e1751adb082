//! `runsc help`.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use syscall_tables::render;

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Args)]
pub struct Help {
    /// A command, `syscalls` or `platforms`.
    topic: Option<String>,
    /// Format of `help syscalls`.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Help {
    pub fn run(self) -> Result<u8> {
        match self.topic.as_deref() {
            None => super::description().print_help()?,
            Some("syscalls") => {
                let format = match self.format {
                    Format::Table => render::Format::Table,
                    Format::Json => render::Format::Json,
                    Format::Csv => render::Format::Csv,
                };
                print!("{}", render::syscalls(format));
            }
            Some("platforms") => {
                println!("systrap  seccomp traps and shared memory (default)");
                println!("ptrace   PTRACE_SYSEMU, slow, needs no seccomp traps");
            }
            Some(topic) => {
                let mut description = super::description();
                description
                    .find_subcommand_mut(topic)
                    .with_context(|| format!("there is no command or topic {topic:?}"))?
                    .print_help()?;
            }
        }
        Ok(0)
    }
}

//! The command line. Names and flags follow `runc` and gVisor's `runsc`.

mod bundle;
mod debug;
mod do_command;
mod doctor;
mod events;
mod exec;
mod features;
mod help;
mod idmap;
mod install;
mod lifecycle;
mod port_forward;
mod ps;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::plan::Overlay;
use crate::state::{self, Store};

/// Runs untrusted Linux programs on a userspace kernel.
#[derive(Parser)]
#[command(name = "runsc", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of all commands.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Directory for the state of containers.
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// How guest code is run.
    #[arg(long, global = true, value_enum, default_value_t = PlatformName::Systrap)]
    pub platform: PlatformName,
    /// Whether systrap makes the guest's system calls jump to the sentry, once
    /// they have trapped a few times, instead of trapping each time.
    #[arg(long, global = true, value_enum, default_value_t = Switch::On, value_name = "WHETHER")]
    pub systrap_patching: Switch,
    /// Network of the container: `none` is loopback inside the sandbox, the
    /// default of `do`; `host` makes inet sockets in the container's network
    /// namespace on the host, the default of bundles.
    #[arg(long, global = true, value_enum)]
    pub network: Option<Network>,
    /// Where writes to the root file system go: `none` (through to the host
    /// directory) or `root:memory`.
    #[arg(long, global = true, value_name = "WHERE", default_value = "none")]
    overlay2: String,
    /// Log each system call of the guest.
    #[arg(long, global = true)]
    pub strace: bool,
    /// File for the sentry's log (and `--strace`); stderr without it.
    #[arg(long, global = true, value_name = "FILE")]
    pub debug_log: Option<PathBuf>,
    /// Log more.
    #[arg(long, global = true)]
    pub debug: bool,
    /// Let systemd make the containers' cgroups.
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Accepted for engines: whether this is root is looked up.
    #[arg(long, global = true, value_name = "WHETHER")]
    rootless: Option<String>,
    /// Accepted for engines: checkpoints don't need criu.
    #[arg(long, global = true, value_name = "FILE")]
    criu: Option<String>,
    /// File for errors of this command, beside stderr.
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of that file.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// A choice that can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How guest code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformName {
    Systrap,
    Ptrace,
}

/// Why `--network=sandbox` is refused.
pub const NO_STACK: &str = "--network=sandbox is not supported yet: the sandbox has no network \
                            stack of its own; use --network=host or --network=none";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    None,
    Host,
    /// Refused: the sandbox has no network stack of its own yet.
    Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program on this machine's files, with a throw-away overlay.
    Do(do_command::Do),
    /// Create a container of a bundle and start it.
    Run(bundle::Run),
    /// Create a container of a bundle.
    Create(bundle::Create),
    /// Start the process of a created container.
    Start(lifecycle::Start),
    /// Print the state of a container as JSON.
    State(lifecycle::State),
    /// Send a signal to a container.
    Kill(lifecycle::Kill),
    /// Delete a stopped container.
    Delete(lifecycle::Delete),
    /// Run a further process in a container.
    Exec(exec::Exec),
    /// List the processes of a container.
    Ps(ps::Ps),
    /// Stop all processes of a container until `resume`.
    Pause(lifecycle::Pause),
    /// Let a paused container go on.
    Resume(lifecycle::Resume),
    /// Print events and statistics of a container.
    Events(events::Events),
    /// Change the limits of a container.
    Update(update::Update),
    /// Print what this runtime supports as JSON.
    Features(features::Features),
    /// Forward connections to a port inside a container.
    PortForward(port_forward::PortForward),
    /// List containers.
    List(lifecycle::List),
    /// Wait for a container to end and print its exit status.
    Wait(lifecycle::Wait),
    /// Write a config.json to start from.
    Spec(bundle::Spec),
    /// Name this runtime in an engine's configuration.
    Install(install::Install),
    /// Take it out of there.
    Uninstall(install::Uninstall),
    /// Say whether this host, or a bundle, can be run, and what to change.
    Doctor(doctor::Doctor),
    /// Look inside a running sandbox.
    Debug(debug::Debug),
    /// Clone mounts with the ids of a user namespace; for `runsc-cri`.
    #[command(hide = true)]
    Idmap(idmap::Idmap),
    /// Print help: for a command, on `syscalls` or on `platforms`.
    Help(help::Help),
}

impl Global {
    pub fn store(&self) -> Store {
        Store::new(self.root.clone().unwrap_or_else(state::default_root))
    }

    pub fn overlay(&self) -> Result<Overlay> {
        match self.overlay2.as_str() {
            "none" => Ok(Overlay::None),
            "root:memory" | "all:memory" => Ok(Overlay::Memory),
            other => anyhow::bail!(
                "--overlay2={other} is not supported; known values are none and root:memory"
            ),
        }
    }
}

/// Runs the command line; answers the exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let global = cli.global;
    let result = match cli.command {
        Command::Do(command) => command.run(&global),
        Command::Run(command) => command.run(&global),
        Command::Create(command) => command.run(&global),
        Command::Start(command) => command.run(&global),
        Command::State(command) => command.run(&global),
        Command::Kill(command) => command.run(&global),
        Command::Delete(command) => command.run(&global),
        Command::Exec(command) => command.run(&global),
        Command::Ps(command) => command.run(&global),
        Command::PortForward(command) => command.run(&global),
        Command::Pause(command) => command.run(&global),
        Command::Resume(command) => command.run(&global),
        Command::Events(command) => command.run(&global),
        Command::Update(command) => command.run(&global),
        Command::Features(command) => command.run(),
        Command::List(command) => command.run(&global),
        Command::Wait(command) => command.run(&global),
        Command::Install(command) => command.run(),
        Command::Uninstall(command) => command.run(),
        Command::Doctor(command) => command.run(&global),
        Command::Spec(command) => command.run(),
        Command::Debug(command) => command.run(&global),
        Command::Help(command) => command.run(),
        Command::Idmap(command) => command.run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            report(&global, &err);
            ExitCode::FAILURE
        }
    }
}

/// Builds the clap description, for `runsc help COMMAND`.
fn description() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Prints an error on one line and appends it to `--log`, where engines look
/// for it.
fn report(global: &Global, err: &anyhow::Error) {
    let message = format!("{err:#}");
    eprintln!("runsc: {message}");
    global.log("error", &message);
}

impl Global {
    /// Tells of something that is done differently than asked for: in the log
    /// if there is one, since stderr may be the container's.
    pub fn warn(&self, message: &str) {
        if self.log.is_none() {
            eprintln!("runsc: warning: {message}");
        }
        self.log("warning", message);
    }

    fn log(&self, level: &str, message: &str) {
        let Some(path) = &self.log else { return };
        let time = crate::time::rfc3339(std::time::SystemTime::now());
        let record = match self.log_format {
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            LogFormat::Json => {
                let record = serde_json::json!({"level": level, "msg": message, "time": time});
                format!("{record}\n")
            }
        };
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, record.as_bytes()));
        if let Err(err) = written {
            eprintln!("runsc: log file {} can't be written: {err}", path.display());
        }
    }
}

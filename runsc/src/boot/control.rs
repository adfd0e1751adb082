//! Carries out what commands ask of this sentry.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::{Condvar, Mutex};
use sentry_kernel::sandbox::{CacheUsage, Sandbox};
use sentry_kernel::tty::Bridge;
use sentry_platform::ProgramCalls;
use sentry_platform::executor::block_on;
use syscall_tables::abi::Signal;

use super::{Given, process};
use crate::cgroup;
use crate::control::{Handler, ProcessInfo, Reply, Request};
use crate::gofer_process::GoferLink;

/// How long the sentry waits at its end for replies to be picked up.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Commands of this sandbox.
pub struct Commands {
    sandbox: Arc<Sandbox>,
    /// Id of the sandbox's first container.
    root: String,
    /// Terminals by container and process they were made for; 0 is the first.
    bridges: Mutex<BTreeMap<(String, i32), Arc<Bridge>>>,
    /// Requests being handled.
    busy: Mutex<usize>,
    idle: Condvar,
}

impl Commands {
    /// `root` is the sandbox's first container, `bridge` the terminal of its
    /// first process.
    pub fn new(sandbox: Arc<Sandbox>, root: &str, bridge: Option<Bridge>) -> Self {
        let bridges = bridge.map(|bridge| ((root.to_owned(), 0), Arc::new(bridge)));
        Self {
            sandbox,
            root: root.to_owned(),
            bridges: Mutex::new(bridges.into_iter().collect()),
            busy: Mutex::new(0),
            idle: Condvar::new(),
        }
    }

    /// The terminal of the first process.
    pub fn terminal(&self) -> Option<Arc<Bridge>> {
        self.bridges.lock().get(&(self.root.clone(), 0)).cloned()
    }

    /// Waits until the first process's last words are out and nobody waits
    /// for a reply, within bounds.
    pub fn finish(&self) {
        if let Some(bridge) = self.terminal() {
            bridge.flush(FINISH_TIMEOUT);
        }
        let mut busy = self.busy.lock();
        self.idle
            .wait_while_for(&mut busy, |busy| *busy > 0, FINISH_TIMEOUT);
    }

    fn add_bridge(&self, container: String, pid: i32, bridge: Option<Bridge>) {
        if let Some(bridge) = bridge {
            self.bridges
                .lock()
                .insert((container, pid), Arc::new(bridge));
        }
    }

    fn run(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply> {
        let sandbox = &self.sandbox;
        Ok(match request {
            Request::Start { container } => {
                sandbox.start(&container)?;
                Reply::Done
            }
            Request::Exec {
                container,
                process: plan,
            } => {
                let root = sandbox.root(&container)?;
                let user_ns = sandbox.user_ns(&container)?;
                let console = process::Console::Unbound;
                let (config, bridge) =
                    process::config(sandbox.kernel(), &root, &user_ns, &plan, fds, console)?;
                let pid = block_on(sandbox.exec(&container, config))?;
                self.add_bridge(container, pid, bridge);
                Reply::Started { pid }
            }
            Request::Limits {
                container,
                resources,
            } => {
                let limits = cgroup::limits(Some(&resources));
                sandbox.kernel().limits.set(&container, limits);
                Reply::Done
            }
            Request::Create {
                plan,
                shares,
                cgroup,
            } => {
                let mut fds = fds.into_iter();
                let (ring, socket) = fds.next().zip(fds.next()).context("no gofer came along")?;
                ensure!(cgroup.len() <= fds.len(), "descriptors are missing");
                let given = Given {
                    gofer: GoferLink { ring, socket },
                    cgroup: cgroup.into_iter().zip(fds.by_ref()).collect(),
                    stdio: fds.collect(),
                };
                let bridge = super::create_container(sandbox, &plan, given, shares)?;
                self.add_bridge(plan.id, 0, bridge);
                Reply::Done
            }
            Request::Nursery { container } => {
                let pid = block_on(sandbox.kernel().add_nursery(&container))
                    .context("the first process of the container can't be made")?;
                Reply::Started { pid }
            }
            Request::Remove { container } => {
                ensure!(
                    container != self.root,
                    "the first container ends with the sandbox"
                );
                block_on(sandbox.remove_container(&container))?;
                self.bridges.lock().retain(|(id, _), _| *id != container);
                Reply::Done
            }
            Request::Pause { container } => {
                sandbox.pause(&container)?;
                Reply::Done
            }
            Request::Resume { container } => {
                sandbox.resume(&container)?;
                Reply::Done
            }
            Request::Wait { container, pid } | Request::Attend { container, pid } => {
                let status = match pid {
                    0 => block_on(sandbox.wait(&container))?,
                    pid => block_on(sandbox.wait_process(&container, pid))?,
                };
                let bridge = self.bridges.lock().remove(&(container, pid));
                if let Some(bridge) = bridge {
                    bridge.flush(FINISH_TIMEOUT);
                }
                Reply::Exited {
                    status: status.shell_code(),
                }
            }
            Request::Signal {
                container,
                signal,
                pid,
                all,
            } => {
                let signal = Signal::from_raw(signal)
                    .with_context(|| format!("signal {signal} does not exist"))?;
                match pid {
                    0 => sandbox.signal(&container, signal, all)?,
                    pid => sandbox.signal_process(&container, pid, signal)?,
                }
                Reply::Done
            }
            Request::Resize {
                container,
                pid,
                rows,
                columns,
            } => {
                let bridge = self.bridges.lock().get(&(container, pid)).cloned();
                bridge
                    .context("the process has no terminal")?
                    .resize(rows, columns);
                Reply::Done
            }
            Request::Processes { container } => {
                let processes = sandbox.processes(&container)?;
                let processes = processes.into_iter().map(|process| ProcessInfo {
                    pid: process.pid,
                    ppid: process.ppid,
                    uid: process.uid,
                    threads: process.threads,
                    cpu_seconds: process.cpu_time.as_secs_f64(),
                    start_seconds: process.start_time.as_secs_f64(),
                    command: process.comm,
                });
                Reply::Processes {
                    processes: processes.collect(),
                }
            }
            Request::Stats => Reply::Text {
                text: stats(sandbox.calls()) + &caches(sandbox.name_cache()),
            },
            Request::Stacks => {
                let lines = sandbox.stacks().into_iter().map(|task| {
                    let call = task.call.unwrap_or("-");
                    format!(
                        "{} pid {} tid {} {} {:?} in {call} pending {:x} blocked {:x}{}\n",
                        task.container,
                        task.pid,
                        task.tid,
                        task.comm,
                        task.state,
                        task.pending,
                        task.blocked,
                        if task.dying { " dying" } else { "" },
                    )
                });
                Reply::Text {
                    text: lines.collect(),
                }
            }
        })
    }
}

/// A table of system calls by program, most calls first.
fn stats(mut calls: Vec<ProgramCalls>) -> String {
    calls.sort_by_key(|calls| Reverse(calls.fast.saturating_add(calls.trapped)));
    let mut text = format!("{:>12} {:>12} {:>7} PROGRAM\n", "FAST", "TRAPPED", "SHARE");
    for ProgramCalls {
        program,
        fast,
        trapped,
    } in calls
    {
        let all = fast.saturating_add(trapped).max(1);
        let share = u128::from(fast) * 10_000 / u128::from(all);
        let (whole, part) = (share / 100, share % 100);
        text += &format!("{fast:>12} {trapped:>12} {whole:>3}.{part:02} {program}\n");
    }
    text
}

/// What the names and attributes of files take that the sentry remembers.
fn caches(names: CacheUsage) -> String {
    let CacheUsage { entries, bytes } = names;
    let each = bytes / entries.max(1);
    format!("\n{entries} files remembered in {bytes} bytes, {each} each\n")
}

impl Handler for Commands {
    fn handle(&self, request: Request, fds: Vec<OwnedFd>) -> Reply {
        self.run(request, fds).unwrap_or_else(|err| Reply::Error {
            message: format!("{err:#}"),
        })
    }

    fn abandoned(&self, container: &str, pid: i32) {
        let killed = match pid {
            0 => self.sandbox.signal(container, Signal::SIGKILL, false),
            pid => self.sandbox.signal_process(container, pid, Signal::SIGKILL),
        };
        // It may have ended at the same time.
        drop(killed);
    }

    fn unwanted(&self, container: &str) {
        // Somebody may have removed it at the same time.
        let _ = block_on(self.sandbox.remove_container(container));
        self.bridges.lock().retain(|(id, _), _| id != container);
    }

    fn begin(&self) {
        *self.busy.lock() += 1;
    }

    fn end(&self) {
        *self.busy.lock() -= 1;
        self.idle.notify_all();
    }
}

//! The task service: requests of containerd to actions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};
use prost::Message;

use crate::containers::Container;
use crate::events::Events;
use crate::logger::LoggerFor;
use crate::messages::{
    Any, CloseIoRequest, ConnectResponse, ContainerRequest, CreateTaskRequest, DeleteResponse,
    Empty, ExecProcessRequest, KillRequest, Pid, PidsResponse, ProcessRequest, ResizePtyRequest,
    ShutdownRequest, StateResponse, StatsResponse, TaskCreate, TaskDelete, TaskEvent, TaskExec,
    TaskExit, TaskIo, TaskStatus, UpdateTaskRequest, WaitResponse,
};
use crate::options::Options;
use crate::process::Process;
use crate::reaper::Reaper;
use crate::runtime::{Runtime, write_private};
use crate::stdio::StreamPaths;
use crate::ttrpc::{Code, Error, Service};
use crate::{oom, rootfs, serve, stats};

/// Names of the service: of containerd 1.x and 2.x.
const NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// How long a process whose creation failed half-way may take to end.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// All containers of a shim.
pub struct TaskService {
    namespace: String,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    events: Arc<Events>,
    reaper: Reaper,
    stopped: Mutex<bool>,
    stop: Condvar,
}

type Reply = Result<Vec<u8>, Error>;

fn reply(message: &impl Message) -> Reply {
    Ok(message.encode_to_vec())
}

impl Service for TaskService {
    fn call(&self, service: &str, method: &str, payload: &[u8]) -> Reply {
        if !NAMES.contains(&service) {
            let message = format!("service {service} is not served here");
            return Err(Error::new(Code::Unimplemented, message));
        }
        match method {
            "Create" => self.create(&CreateTaskRequest::decode(payload)?),
            "Start" => self.start(&ProcessRequest::decode(payload)?),
            "State" => self.state(&ProcessRequest::decode(payload)?),
            "Delete" => self.delete(&ProcessRequest::decode(payload)?),
            "Wait" => self.wait(&ProcessRequest::decode(payload)?),
            "Exec" => self.exec(&ExecProcessRequest::decode(payload)?),
            "Kill" => self.kill(&KillRequest::decode(payload)?),
            "ResizePty" => self.resize(&ResizePtyRequest::decode(payload)?),
            "CloseIO" => self.close_io(&CloseIoRequest::decode(payload)?),
            "Pids" => self.pids(&ContainerRequest::decode(payload)?),
            "Stats" => self.stats(&ContainerRequest::decode(payload)?),
            "Pause" => self.pause(&ContainerRequest::decode(payload)?),
            "Resume" => self.resume(&ContainerRequest::decode(payload)?),
            "Update" => self.update(&UpdateTaskRequest::decode(payload)?),
            "Connect" => self.connect(&ContainerRequest::decode(payload)?),
            "Shutdown" => self.shutdown(&ShutdownRequest::decode(payload)?),
            "Checkpoint" => Err(Error::new(
                Code::Unimplemented,
                "checkpoint is not supported by runsc",
            )),
            other => {
                let message = format!("method {other} does not exist");
                Err(Error::new(Code::Unimplemented, message))
            }
        }
    }
}

impl TaskService {
    pub fn new(namespace: &str, events: Arc<Events>, reaper: Reaper) -> Self {
        Self {
            namespace: namespace.to_owned(),
            containers: Mutex::default(),
            events,
            reaper,
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        }
    }

    /// Waits for `Shutdown`.
    pub fn wait_for_shutdown(&self) {
        let mut stopped = self.stopped.lock();
        while !*stopped {
            self.stop.wait(&mut stopped);
        }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| Error::new(Code::NotFound, format!("container {id} does not exist")))
    }

    fn logger<'a>(&'a self, container: &'a str) -> LoggerFor<'a> {
        LoggerFor {
            container,
            namespace: &self.namespace,
        }
    }

    fn create(&self, request: &CreateTaskRequest) -> Reply {
        if !request.checkpoint.is_empty() {
            let message = "restoring a checkpoint is not supported by runsc";
            return Err(Error::new(Code::Unimplemented, message));
        }
        let id = &request.id;
        if self.containers.lock().contains_key(id) {
            let message = format!("container {id} exists already");
            return Err(Error::new(Code::AlreadyExists, message));
        }
        let bundle = Path::new(&request.bundle);
        let options = Options::load(request.options.as_ref(), &self.namespace)?;
        options.save(bundle)?;
        let paths = StreamPaths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let runtime = Runtime::new(options, &self.reaper, bundle);
        let process = Process::new("", paths);
        let container = Arc::new(Container::new(id, bundle, runtime, process));
        rootfs::mount_all(&request.rootfs, &container.rootfs()).inspect_err(|_| {
            rootfs::unmount_all(&container.rootfs());
        })?;
        let ordered = container.init.order.lock();
        let args = ["--bundle", &request.bundle, id];
        let (runtime, logger) = (&container.runtime, self.logger(id));
        let launched = container
            .init
            .launch(runtime, "create", &args, logger, &self.reaper);
        let started = launched.inspect_err(|_| {
            // It may be there half.
            let _ = runtime.call("delete", &["--force", id]);
            rootfs::unmount_all(&container.rootfs());
        })?;
        self.containers.lock().insert(id.clone(), container.clone());
        let event = TaskCreate {
            container_id: id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIo {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            }),
            pid: container.init.pid(),
        };
        self.events.publish("/tasks/create", "TaskCreate", &event);
        drop(ordered);
        self.watch(&container, &container.init, started.pid)?;
        self.watch_memory(&container, started.pid);
        let pid = container.init.pid();
        reply(&Pid { pid })
    }

    fn watch_memory(&self, container: &Container, pid: i32) {
        let events = self.events.clone();
        let event = TaskEvent {
            container_id: container.id.clone(),
            pid: 0,
        };
        let watched = oom::watch(pid, move || events.publish("/tasks/oom", "TaskOOM", &event));
        if let Err(err) = watched {
            // It runs all the same; nobody will be told of this one thing.
            serve::note(format_args!("memory of {}: {err:#}", container.id));
        }
    }

    /// Waits for the end of a process on a thread of its own.
    fn watch(&self, container: &Arc<Container>, process: &Arc<Process>, pid: i32) -> Result<()> {
        let (container, process) = (container.id.clone(), process.clone());
        let (events, reaper) = (self.events.clone(), self.reaper.clone());
        std::thread::Builder::new()
            .name("watch".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                let exit = reaper.wait(pid);
                let _ordered = process.order.lock();
                process.set_exit(exit);
                let id = match process.exec_id.as_str() {
                    "" => container.clone(),
                    exec_id => exec_id.to_owned(),
                };
                let event = TaskExit {
                    container_id: container,
                    id,
                    pid: pid.unsigned_abs(),
                    exit_status: exit.status,
                    exited_at: Some(exit.at.into()),
                };
                events.publish("/tasks/exit", "TaskExit", &event);
            })
            .context("a thread can't be made")?;
        Ok(())
    }

    fn start(&self, request: &ProcessRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.exec_id.is_empty() {
            let ordered = process.order.lock();
            container.runtime.call("start", &[&container.id])?;
            process.set_running();
            let event = TaskEvent {
                container_id: container.id.clone(),
                pid: process.pid(),
            };
            self.events.publish("/tasks/start", "TaskStart", &event);
            drop(ordered);
        } else {
            self.start_exec(&container, &process)?;
        }
        reply(&Pid { pid: process.pid() })
    }

    fn start_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<(), Error> {
        let ordered = process.order.lock();
        if !process.is_added() {
            let message = format!("process {} has been started already", process.exec_id);
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        let spec = exec_spec_path(container, &process.exec_id);
        let path = spec.to_string_lossy();
        let args = ["--detach", "--process", &path, &container.id];
        let (runtime, logger) = (&container.runtime, self.logger(&container.id));
        let launched = process.launch(runtime, "exec", &args, logger, &self.reaper);
        let _ = std::fs::remove_file(&spec);
        let pid = launched?.pid;
        process.set_running();
        let event = TaskExec {
            container_id: container.id.clone(),
            exec_id: process.exec_id.clone(),
            pid: process.pid(),
        };
        self.events
            .publish("/tasks/exec-started", "TaskExecStarted", &event);
        drop(ordered);
        Ok(self.watch(container, process, pid)?)
    }

    fn exec(&self, request: &ExecProcessRequest) -> Reply {
        let container = self.container(&request.id)?;
        let spec = request.spec.as_ref();
        let spec = spec.ok_or_else(|| {
            Error::new(Code::InvalidArgument, "the process to start is not given")
        })?;
        let paths = StreamPaths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        if !request
            .exec_id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        {
            let message = format!("id {:?} of the process is not valid", request.exec_id);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        container.add_exec(Process::new(&request.exec_id, paths))?;
        let path = exec_spec_path(&container, &request.exec_id);
        write_private(&path, &spec.value)?;
        let event = TaskExec {
            container_id: container.id.clone(),
            exec_id: request.exec_id.clone(),
            pid: 0,
        };
        self.events
            .publish("/tasks/exec-added", "TaskExecAdded", &event);
        reply(&Empty {})
    }

    fn state(&self, request: &ProcessRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let mut status = process.status();
        if container.paused.load(Ordering::SeqCst) && status == TaskStatus::Running {
            status = TaskStatus::Paused;
        }
        let exit = process.exit();
        reply(&StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: status as i32,
            stdin: process.paths.stdin.clone(),
            stdout: process.paths.stdout.clone(),
            stderr: process.paths.stderr.clone(),
            terminal: process.paths.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at.into()),
            exec_id: request.exec_id.clone(),
        })
    }

    fn delete(&self, request: &ProcessRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.status() == TaskStatus::Running {
            let message = "the process is running; kill it first";
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        if process.exec_id.is_empty() {
            container
                .runtime
                .call("delete", &["--force", &container.id])?;
            // One that was never started has been killed by that.
            process.wait_for(UNDO_TIMEOUT);
        } else if process.exit().is_none() && !process.is_added() {
            let message = "the process is running; kill it first";
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        process.drain();
        let exit = process.exit();
        let response = DeleteResponse {
            pid: process.pid(),
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at.into()),
        };
        if process.exec_id.is_empty() {
            rootfs::unmount_all(&container.rootfs());
            self.containers.lock().remove(&container.id);
            let event = TaskDelete {
                container_id: container.id.clone(),
                pid: response.pid,
                exit_status: response.exit_status,
                exited_at: response.exited_at,
                id: String::new(),
            };
            self.events.publish("/tasks/delete", "TaskDelete", &event);
        } else {
            container.remove_exec(&process.exec_id);
        }
        reply(&response)
    }

    fn wait(&self, request: &ProcessRequest) -> Reply {
        let container = self.container(&request.id)?;
        let exit = container.process(&request.exec_id)?.wait();
        reply(&WaitResponse {
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        })
    }

    fn kill(&self, request: &KillRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if !request.exec_id.is_empty() {
            process.signal(request.signal)?;
            return reply(&Empty {});
        }
        if process.exit().is_some() && !request.all {
            return Err(Error::new(Code::NotFound, "process already finished"));
        }
        let signal = request.signal.to_string();
        let mut args = vec![container.id.as_str(), &signal];
        if request.all {
            args.insert(0, "--all");
        }
        match container.runtime.call("kill", &args) {
            Ok(()) => reply(&Empty {}),
            Err(err) => {
                let message = format!("{err:#}");
                let gone = ["not running", "already finished", "does not exist"];
                // It may have ended meanwhile.
                if gone.iter().any(|words| message.contains(words)) {
                    return Err(Error::new(Code::NotFound, "process already finished"));
                }
                Err(err.into())
            }
        }
    }

    fn resize(&self, request: &ResizePtyRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        process.resize(request.width, request.height)?;
        reply(&Empty {})
    }

    fn close_io(&self, request: &CloseIoRequest) -> Reply {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        reply(&Empty {})
    }

    fn pids(&self, request: &ContainerRequest) -> Reply {
        let container = self.container(&request.id)?;
        let text = container
            .runtime
            .output("ps", &["--format", "json", &container.id])?;
        let pids: Vec<u32> = serde_json::from_slice(&text).context("ps has said no list")?;
        let processes = pids.into_iter().map(|pid| Pid { pid }).collect();
        reply(&PidsResponse { processes })
    }

    fn stats(&self, request: &ContainerRequest) -> Reply {
        let container = self.container(&request.id)?;
        let text = container
            .runtime
            .output("events", &["--stats", &container.id])?;
        let stats: Any = stats::metrics(&text)?;
        reply(&StatsResponse { stats: Some(stats) })
    }

    fn pause(&self, request: &ContainerRequest) -> Reply {
        let container = self.container(&request.id)?;
        container.runtime.call("pause", &[&container.id])?;
        container.paused.store(true, Ordering::SeqCst);
        self.publish_change("/tasks/paused", "TaskPaused", &container);
        reply(&Empty {})
    }

    fn resume(&self, request: &ContainerRequest) -> Reply {
        let container = self.container(&request.id)?;
        container.runtime.call("resume", &[&container.id])?;
        container.paused.store(false, Ordering::SeqCst);
        self.publish_change("/tasks/resumed", "TaskResumed", &container);
        reply(&Empty {})
    }

    fn publish_change(&self, topic: &str, name: &str, container: &Container) {
        let event = TaskEvent {
            container_id: container.id.clone(),
            pid: 0,
        };
        self.events.publish(topic, name, &event);
    }

    fn update(&self, request: &UpdateTaskRequest) -> Reply {
        let container = self.container(&request.id)?;
        let resources = request.resources.as_ref();
        let resources =
            resources.ok_or_else(|| Error::new(Code::InvalidArgument, "no resources are given"))?;
        let args = ["--resources", "-", &container.id];
        container
            .runtime
            .call_with_input("update", &args, &resources.value)?;
        reply(&Empty {})
    }

    fn connect(&self, request: &ContainerRequest) -> Reply {
        let task_pid = self
            .container(&request.id)
            .map_or(0, |container| container.init.pid());
        reply(&ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn shutdown(&self, request: &ShutdownRequest) -> Reply {
        // Other containers of the pod are served on.
        if request.now || self.containers.lock().is_empty() {
            *self.stopped.lock() = true;
            self.stop.notify_all();
        }
        reply(&Empty {})
    }
}

/// Where the process of an `exec` waits for its start.
fn exec_spec_path(container: &Container, exec_id: &str) -> std::path::PathBuf {
    container.bundle.join(format!("shim-exec-{exec_id}.json"))
}

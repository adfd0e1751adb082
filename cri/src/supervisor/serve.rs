//! The poll loop: signals, connections of the daemon, stdio of containers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pipe::PipeFlags;

use super::connection::{Connection, Input};
use super::container::{self, Attachment, Container, Output};
use super::log::{Log, Stream};
use super::protocol::{ContainerState, Create, Event, Exec, Exit, PodSpec, Request};
use super::reaper::Reaper;
use crate::store::atomic;
use crate::time;

/// What a known child is.
#[derive(Debug)]
enum Child {
    /// The runtime's `create`; the connection waits for its answer.
    Creating {
        connection: u64,
        container: String,
    },
    /// The runtime's `exec`.
    Starting {
        connection: u64,
        exec: Exec,
    },
    Init {
        container: String,
    },
    Exec {
        connection: u64,
        container: String,
    },
    Holder,
}

/// What a ready descriptor belongs to. Containers are named by their id,
/// clients by their place, which is stable within a round.
#[derive(Clone, Debug)]
enum Token {
    Signal,
    Listener,
    Connection(u64),
    Output(String, Stream),
    Stdin(String),
    ClientInput(String, usize),
    ClientOutput(String, usize, Stream),
}

#[derive(Debug)]
pub struct Server {
    spec: PodSpec,
    listener: UnixListener,
    signals: SignalFd,
    reaper: Reaper,
    children: HashMap<i32, Child>,
    containers: BTreeMap<String, Container>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    watchers: Vec<u64>,
    stop: bool,
    holder: Option<i32>,
}

impl Server {
    pub fn new(spec: PodSpec, listener: UnixListener, holder: Option<i32>) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            spec,
            listener,
            signals,
            reaper: Reaper::default(),
            children: holder.map(|pid| (pid, Child::Holder)).into_iter().collect(),
            containers: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            watchers: Vec::new(),
            stop: false,
            holder,
        })
    }

    pub fn run(mut self) -> Result<()> {
        let mut buffer = vec![0u8; 32 << 10];
        while !self.stop {
            for token in self.wait()? {
                self.handle(token, &mut buffer);
            }
            self.tidy();
        }
        let _ = fs::remove_file(&self.spec.socket);
        if let Some(holder) = self.holder {
            let _ = nix::sys::signal::kill(Pid::from_raw(holder), Signal::SIGKILL);
        }
        for connection in self.connections.values_mut() {
            connection.flush();
        }
        Ok(())
    }

    /// Waits until something is ready.
    fn wait(&self) -> Result<Vec<Token>> {
        let mut watched: Vec<(Token, BorrowedFd<'_>, PollFlags)> = vec![
            (Token::Signal, self.signals.as_fd(), PollFlags::IN),
            (Token::Listener, self.listener.as_fd(), PollFlags::IN),
        ];
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.has_output());
            watched.push((Token::Connection(*id), connection.stream.as_fd(), flags));
        }
        let mut stalled = false;
        for (id, c) in &self.containers {
            if c.may_read() {
                for (stream, fd) in [
                    (Stream::Stdout, c.terminal.as_ref().or(c.stdout.as_ref())),
                    (Stream::Stderr, c.stderr.as_ref()),
                ] {
                    if let Some(fd) = fd {
                        let token = Token::Output(id.clone(), stream);
                        watched.push((token, fd.as_fd(), PollFlags::IN));
                    }
                }
            }
            if !c.stdin_pending.is_empty()
                && let Some(fd) = c.terminal.as_ref().or(c.stdin.as_ref())
            {
                watched.push((Token::Stdin(id.clone()), fd.as_fd(), PollFlags::OUT));
            }
            for (place, client) in c.attached.iter().enumerate() {
                if c.stdin_pending.is_empty()
                    && let Some(fd) = &client.stdin
                {
                    let token = Token::ClientInput(id.clone(), place);
                    watched.push((token, fd.as_fd(), PollFlags::IN));
                }
                for (stream, output) in [
                    (Stream::Stdout, &client.stdout),
                    (Stream::Stderr, &client.stderr),
                ] {
                    if let Some(o) = output
                        && !o.pending.is_empty()
                    {
                        stalled = true;
                        let token = Token::ClientOutput(id.clone(), place, stream);
                        watched.push((token, o.fd.as_fd(), PollFlags::OUT));
                    }
                }
            }
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        // Stalled clients are looked at again without an event.
        let timeout = stalled.then_some(Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(watched
            .into_iter()
            .zip(ready)
            .filter(|((token, _, _), ready)| {
                *ready || (stalled && matches!(token, Token::ClientOutput(..)))
            })
            .map(|((token, _, _), _)| token)
            .collect())
    }

    fn handle(&mut self, token: Token, buffer: &mut [u8]) {
        match token {
            Token::Signal => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap(buffer);
            }
            Token::Listener => self.accept(),
            Token::Connection(id) => self.receive(id),
            Token::Output(id, stream) => {
                if let Some(c) = self.containers.get_mut(&id) {
                    c.pump(stream, buffer);
                }
            }
            Token::Stdin(id) => {
                if let Some(c) = self.containers.get_mut(&id) {
                    c.write_stdin();
                }
            }
            Token::ClientInput(id, place) => {
                if let Some(c) = self.containers.get_mut(&id) {
                    c.read_client(place, buffer);
                }
            }
            Token::ClientOutput(id, place, stream) => {
                let client = self
                    .containers
                    .get_mut(&id)
                    .and_then(|c| c.attached.get_mut(place));
                if let Some(client) = client {
                    let output = match stream {
                        Stream::Stdout => &mut client.stdout,
                        Stream::Stderr => &mut client.stderr,
                    };
                    if output.as_mut().is_some_and(|o| !o.flush()) {
                        *output = None;
                    }
                }
            }
        }
    }

    /// Between rounds: clients whose container has ended are told and dropped.
    fn tidy(&mut self) {
        for c in self.containers.values_mut() {
            let ended = c.output_ended() && c.created;
            let connections = &mut self.connections;
            let stdin_once = c.create.stdin_once;
            let mut input_gone = false;
            c.attached.retain(|client| {
                let hung_up = !connections.contains_key(&client.connection);
                let drained = [&client.stdout, &client.stderr]
                    .into_iter()
                    .flatten()
                    .all(|o| o.pending.is_empty());
                if hung_up {
                    input_gone |= client.stdin.is_some();
                    return false;
                }
                if ended && drained {
                    if let Some(connection) = connections.get_mut(&client.connection) {
                        connection.send(&Event::Done);
                    }
                    return false;
                }
                true
            });
            if input_gone && stdin_once {
                c.stdin = None;
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(stream) {
                self.connections.insert(self.next_connection, connection);
                self.next_connection = self.next_connection.wrapping_add(1);
            }
        }
    }

    fn receive(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.flush();
        match connection.receive() {
            Input::Nothing => {}
            Input::Closed => self.hang_up(id),
            Input::Request(request, fds) => {
                if let Err(err) = self.request(id, *request, fds) {
                    self.answer(
                        id,
                        &Event::Failed {
                            message: format!("{err:#}"),
                        },
                    );
                }
            }
        }
    }

    /// The daemon (or its task) is gone: an exec of its does not live on.
    fn hang_up(&mut self, id: u64) {
        self.connections.remove(&id);
        self.watchers.retain(|w| *w != id);
        for (pid, child) in &self.children {
            if let Child::Exec { connection, .. } = child
                && *connection == id
            {
                let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
    }

    fn answer(&mut self, id: u64, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(event);
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers
            .get_mut(id)
            .with_context(|| format!("container {id} is not of this pod"))
    }

    fn request(&mut self, id: u64, request: Request, fds: Vec<OwnedFd>) -> Result<()> {
        match request {
            Request::Create(create) => return self.create(id, create),
            Request::Exec(exec) => return self.exec(id, exec, fds),
            Request::Watch => {
                let states = self
                    .containers
                    .iter()
                    .filter(|(_, c)| c.created)
                    .map(|(id, c)| ContainerState {
                        container: id.clone(),
                        pid: c.pid,
                        exit: c.exit.clone(),
                    })
                    .collect();
                self.watchers.push(id);
                self.answer(id, &Event::Containers(states));
                return Ok(());
            }
            Request::ReopenLog { container } => self
                .container(&container)?
                .log
                .reopen()
                .context("the log can't be opened")?,
            Request::Attach {
                container,
                stdin,
                stdout,
                stderr,
            } => {
                let mut fds = fds.into_iter();
                let mut next = |wanted: bool| wanted.then(|| fds.next()).flatten();
                let client = Attachment {
                    connection: id,
                    stdin: next(stdin),
                    stdout: next(stdout).map(Output::new),
                    stderr: next(stderr).map(Output::new),
                };
                if let Some(fd) = &client.stdin {
                    rustix::io::ioctl_fionbio(fd, true)?;
                }
                self.container(&container)?.attached.push(client);
                return Ok(());
            }
            Request::Resize {
                container,
                columns,
                rows,
            } => {
                let c = self.container(&container)?;
                if let Some(terminal) = &c.terminal {
                    rustix::termios::tcsetwinsize(
                        terminal,
                        rustix::termios::Winsize {
                            ws_col: columns,
                            ws_row: rows,
                            ws_xpixel: 0,
                            ws_ypixel: 0,
                        },
                    )?;
                }
            }
            Request::Forget { container } => {
                self.containers.remove(&container);
                self.children.retain(
                    |_, child| !matches!(child, Child::Init { container: c } if *c == container),
                );
            }
            Request::Shutdown => self.stop = true,
        }
        self.answer(id, &Event::Done);
        Ok(())
    }

    fn create(&mut self, id: u64, create: Create) -> Result<()> {
        if self.containers.contains_key(&create.container) {
            bail!("container {} exists already", create.container);
        }
        let log = Log::new(create.log_path.clone(), create.max_log_line)
            .with_context(|| format!("the log {:?} can't be opened", create.log_path))?;
        let _ = fs::remove_file(&create.pid_file);
        let Some((program, args)) = create.command.split_first() else {
            bail!("no command");
        };
        let mut command = Command::new(program);
        command.args(args);
        let mut c = Container::new(create.clone(), log);
        let mut console = None;
        if create.tty {
            let _ = fs::remove_file(&create.console_socket);
            let listener = UnixListener::bind(&create.console_socket)?;
            listener.set_nonblocking(true)?;
            console = Some(listener);
            command.arg("--console-socket").arg(&create.console_socket);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        } else {
            let (out_read, out_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            let (err_read, err_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&out_read, true)?;
            rustix::io::ioctl_fionbio(&err_read, true)?;
            command.stdout(out_write).stderr(err_write);
            if create.stdin {
                let (in_read, in_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&in_write, true)?;
                command.stdin(in_read);
                c.stdin = Some(in_write);
            } else {
                command.stdin(Stdio::null());
            }
            c.stdout = Some(out_read);
            c.stderr = Some(err_read);
        }
        command.args(&create.tail);
        let pid = spawn(&mut command)?;
        c.console = console;
        self.children.insert(
            pid,
            Child::Creating {
                connection: id,
                container: create.container.clone(),
            },
        );
        self.containers.insert(create.container, c);
        Ok(())
    }

    fn exec(&mut self, id: u64, exec: Exec, fds: Vec<OwnedFd>) -> Result<()> {
        let _ = fs::remove_file(&exec.pid_file);
        let Some((program, args)) = exec.command.split_first() else {
            bail!("no command");
        };
        let mut command = Command::new(program);
        let mut fds = fds.into_iter();
        let mut stdio = || fds.next().map_or_else(Stdio::null, Stdio::from);
        command
            .args(args)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        let pid = spawn(&mut command)?;
        self.children.insert(
            pid,
            Child::Starting {
                connection: id,
                exec,
            },
        );
        Ok(())
    }

    fn reap(&mut self, buffer: &mut [u8]) {
        let ended = self.reaper.reap();
        for (pid, code) in &ended {
            if !self.children.contains_key(pid) {
                self.reaper.keep(*pid, *code);
            }
        }
        for (pid, code) in ended {
            if let Some(child) = self.children.remove(&pid) {
                self.ended(child, code, buffer);
            }
        }
        if !self
            .children
            .values()
            .any(|c| matches!(c, Child::Creating { .. } | Child::Starting { .. }))
        {
            self.reaper.forget_unclaimed();
        }
    }

    fn ended(&mut self, child: Child, code: i32, buffer: &mut [u8]) {
        match child {
            Child::Creating {
                connection,
                container,
            } => {
                let event = match self.finish_create(&container, code) {
                    Ok(pid) => Event::Created { pid },
                    Err(err) => {
                        self.containers.remove(&container);
                        Event::Failed {
                            message: format!("{err:#}"),
                        }
                    }
                };
                let pid = match &event {
                    Event::Created { pid } => *pid,
                    _ => 0,
                };
                self.answer(connection, &event);
                if pid != 0 {
                    self.adopt(pid, Child::Init { container }, buffer);
                }
            }
            Child::Starting { connection, exec } => {
                let started = if code == 0 {
                    read_pid(&exec.pid_file)
                } else {
                    Err(runtime_error(&exec.runtime_log, "exec", code))
                };
                let _ = fs::remove_file(&exec.pid_file);
                match started {
                    Ok(pid) => {
                        self.answer(connection, &Event::Started { pid });
                        if !self.connections.contains_key(&connection) {
                            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                        }
                        let container = exec.container;
                        self.adopt(
                            pid,
                            Child::Exec {
                                connection,
                                container,
                            },
                            buffer,
                        );
                    }
                    Err(err) => self.answer(
                        connection,
                        &Event::Failed {
                            message: format!("{err:#}"),
                        },
                    ),
                }
                let _ = fs::remove_file(&exec.runtime_log);
            }
            Child::Init { container } => self.exited(&container, code, buffer),
            Child::Exec {
                connection,
                container,
            } => self.answer(
                connection,
                &Event::Exited(Exit {
                    container,
                    code,
                    finished_at: time::now_ns(),
                    oom_killed: false,
                }),
            ),
            Child::Holder => self.holder = None,
        }
    }

    /// A process is known from now on; it may have ended already.
    fn adopt(&mut self, pid: i32, child: Child, buffer: &mut [u8]) {
        match self.reaper.claim(pid) {
            Some(code) => self.ended(child, code, buffer),
            None => {
                self.children.insert(pid, child);
            }
        }
    }

    fn finish_create(&mut self, id: &str, code: i32) -> Result<i32> {
        let c = self.container(id)?;
        let console = c.console.take();
        let _ = fs::remove_file(&c.create.console_socket);
        if code != 0 {
            return Err(runtime_error(&c.create.runtime_log, "create", code));
        }
        c.pid = read_pid(&c.create.pid_file)?;
        c.oom_file = container::oom_file(c.pid);
        if let Some(listener) = console {
            let terminal = receive_terminal(&listener)?;
            rustix::io::ioctl_fionbio(&terminal, true)?;
            c.terminal = Some(terminal);
        }
        c.created = true;
        Ok(c.pid)
    }

    fn exited(&mut self, id: &str, code: i32, buffer: &mut [u8]) {
        let Some(c) = self.containers.get_mut(id) else {
            return;
        };
        c.drain(buffer);
        let exit = Exit {
            container: id.to_owned(),
            code,
            finished_at: time::now_ns(),
            oom_killed: c.oom_kills() > 0,
        };
        // Nobody to report a full disk to: the daemon hears of the exit below.
        let _ = atomic::write_json(&c.create.exit_file, &exit);
        c.exit = Some(exit.clone());
        for watcher in self.watchers.clone() {
            self.answer(watcher, &Event::Exited(exit.clone()));
        }
    }
}

/// The child is reaped by the loop, not through its handle.
fn spawn(command: &mut Command) -> Result<i32> {
    let child = command
        .spawn()
        .with_context(|| format!("{} can't be run", command.get_program().display()))?;
    Ok(i32::try_from(child.id())?)
}

fn read_pid(path: &Path) -> Result<i32> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the runtime left no pid in {}", path.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("{} holds no pid", path.display()))
}

/// The last error in the runtime's JSON log.
pub fn runtime_error(log: &Path, verb: &str, code: i32) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    match crate::runtime::last_error(&text) {
        Some(message) => anyhow::anyhow!("{message}"),
        None => anyhow::anyhow!("the runtime's {verb} failed with status {code}"),
    }
}

/// Takes the terminal's descriptor from the runtime's connection.
pub fn receive_terminal(listener: &UnixListener) -> Result<OwnedFd> {
    let (stream, _) = listener.accept().context("the runtime sent no terminal")?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0u8; 4096];
    rustix::net::recvmsg(
        &stream,
        &mut [std::io::IoSliceMut::new(&mut name)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    bail!("the runtime sent no terminal")
}

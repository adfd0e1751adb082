//! `port-forward`: connections to ports inside a container.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use nix::sched::{CloneFlags, setns};

use super::Global;
use crate::launch::Created;
use crate::network::NetworkPlan;
use crate::state::Status;

/// How long a connection may take to be made; those to loopback are made at
/// once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct PortForward {
    /// Forward one connection over standard input and output.
    #[arg(long, conflicts_with = "stream")]
    stdio: bool,
    /// Forward one connection over this unix socket, to which to connect.
    #[arg(long, value_name = "SOCKET")]
    stream: Option<PathBuf>,
    id: String,
    /// Port inside, and the one to listen on outside if that is another.
    #[arg(value_name = "[LOCAL_PORT:]PORT")]
    ports: String,
}

/// Makes connections to one port of a container.
struct Dialer {
    /// Its network namespace.
    network: File,
    port: u16,
}

impl PortForward {
    pub fn run(self, global: &Global) -> Result<u8> {
        let (local, port) = parse(&self.ports)?;
        let dialer = Arc::new(Dialer::new(global, &self.id, port)?);
        if self.stdio {
            let input = io::stdin().as_fd().try_clone_to_owned();
            let output = io::stdout().as_fd().try_clone_to_owned();
            let input = File::from(input.context("there is no standard input")?);
            let output = File::from(output.context("there is no standard output")?);
            exchange(input, output, |_| {}, &dialer.dial()?)?;
        } else if let Some(path) = &self.stream {
            let stream = UnixStream::connect(path)
                .with_context(|| format!("{} can't be connected to", path.display()))?;
            let (input, output) = (stream.try_clone()?, stream);
            let end = |output: &UnixStream| drop(output.shutdown(Shutdown::Write));
            exchange(input, output, end, &dialer.dial()?)?;
        } else {
            listen(&dialer, local)?;
        }
        Ok(0)
    }
}

/// `[LOCAL_PORT:]PORT`; the local one is the same if it is not given.
fn parse(ports: &str) -> Result<(u16, u16)> {
    let (local, port) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| anyhow!("{text:?} in {ports:?} is not a port"))
    };
    let (local, port) = (number(local)?, number(port)?);
    ensure!(port != 0, "there is no port 0 inside");
    Ok((local, port))
}

impl Dialer {
    fn new(global: &Global, id: &str, port: u16) -> Result<Self> {
        let created = Created::open(global, id)?;
        let record = &created.record;
        ensure!(
            matches!(record.status, Status::Created | Status::Running),
            "container {id} is {}",
            record.status.name()
        );
        let network = match &record.plan.pod {
            Some(pod) => global.store().peek(&pod.sandbox)?.plan.network,
            None => record.plan.network.clone(),
        };
        if network == NetworkPlan::None {
            bail!("container {id} runs with --network=none: its ports can't be reached");
        }
        let network = File::open(format!("/proc/{}/ns/net", record.pid))
            .with_context(|| format!("container {id} has ended"))?;
        Ok(Self { network, port })
    }

    /// Connects on a thread of its own, which alone is in the container's
    /// network namespace.
    fn dial(&self) -> Result<TcpStream> {
        let dialed = std::thread::scope(|scope| scope.spawn(|| self.dial_here()).join());
        dialed.map_err(|_| anyhow!("the connecting thread has ended"))?
    }

    fn dial_here(&self) -> Result<TcpStream> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)
            .context("the container's network namespace can't be entered")?;
        let connect = |address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
        connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
            .or_else(|err| {
                let address = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
                // Who listens on neither is told about the first.
                connect(address).map_err(|_| err)
            })
            .with_context(|| format!("port {} of the container can't be reached", self.port))
    }
}

/// Forwards what comes to a local port until this command is killed.
fn listen(dialer: &Arc<Dialer>, local: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))
        .with_context(|| format!("port {local} can't be listened on"))?;
    let address = listener.local_addr()?;
    println!("Forwarding from {address} -> {}", dialer.port);
    for client in listener.incoming() {
        let client = client.context("connections can't be accepted")?;
        let dialer = dialer.clone();
        // A client without a thread sees its connection closed.
        let _ = std::thread::Builder::new().spawn(move || {
            let forwarded = dialer.dial().and_then(|server| {
                let (input, output) = (client.try_clone()?, client);
                let end = |output: &TcpStream| drop(output.shutdown(Shutdown::Write));
                exchange(input, output, end, &server)
            });
            if let Err(err) = forwarded {
                eprintln!("{err:#}");
            }
        });
    }
    Ok(())
}

/// Copies both ways until the server has said everything and the end of that
/// has been passed on.
fn exchange<R, W>(input: R, output: W, end: impl FnOnce(&W), server: &TcpStream) -> Result<()>
where
    R: Read + Send + 'static,
    W: Write,
{
    let mut to_server = server.try_clone()?;
    // Not waited for: the client may never end what it says.
    std::thread::Builder::new()
        .spawn(move || {
            let mut input = input;
            let _ = io::copy(&mut input, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        })
        .context("a thread can't be made")?;
    let (mut server, mut output) = (server, output);
    let copied = io::copy(&mut server, &mut output);
    let flushed = copied.and_then(|_| output.flush());
    end(&output);
    flushed.context("the connection has been cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(parse("80").expect("valid"), (80, 80));
        assert_eq!(parse("0:80").expect("valid"), (0, 80));
        assert_eq!(parse("8080:80").expect("valid"), (8080, 80));
        for bad in ["", ":", "80:", "80:0", "70000", "a:b", "1:2:3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

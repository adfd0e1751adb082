//! From the CRI's requests to sessions: what is asked for is checked here, so
//! that a mistake is told to the caller instead of the client that follows the
//! URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::Status;

use super::backend::NodeBackend;
use super::{Attach, Config, Exec, PortForward, Server, Session, Wanted};
use crate::config::StreamingConfig;
use crate::node::Node;
use crate::proto::{AttachRequest, ExecRequest, PortForwardRequest};
use crate::store::{Container, ContainerStage, Pod, PodStage};

/// Listens as configured; URLs are handed out from here on.
pub async fn start(node: &Arc<Node>) -> Result<()> {
    let settings = &node.config.streaming;
    let listen = tokio::net::lookup_host((settings.address.as_str(), settings.port))
        .await
        .ok()
        .and_then(|mut found| found.next())
        .with_context(|| format!("streaming.address {:?} is no address", settings.address))?;
    let mut config = Config::new(listen);
    config.idle_timeout = Duration::from_secs(settings.idle_timeout_s.max(1));
    config.tls = tls(settings)?;
    let server = serve(node, config, listen).await?;
    // Called once, at the start.
    let _ = node.streaming.set(server);
    Ok(())
}

async fn serve(node: &Arc<Node>, config: Config, listen: SocketAddr) -> Result<Server> {
    Server::start(config, Arc::new(NodeBackend(Arc::clone(node))))
        .await
        .with_context(|| format!("streaming can't be served on {listen}"))
}

fn tls(settings: &StreamingConfig) -> Result<Option<Arc<rustls::ServerConfig>>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("{} holds no certificates", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} holds no key", key.display()))?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(Arc::new(config)))
}

fn url(node: &Node, session: Session) -> Result<String> {
    let server = node
        .streaming
        .get()
        .ok_or_else(|| Status::unavailable("the streaming server does not serve yet"))?;
    server
        .url(session)
        .map_err(|err| Status::resource_exhausted(err.to_string()).into())
}

pub fn exec(node: &Node, container: &Container, request: ExecRequest) -> Result<String> {
    running(container)?;
    if request.cmd.is_empty() {
        return Err(Status::invalid_argument("no command").into());
    }
    let streams = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
    let container_id = container.id.clone();
    let command = request.cmd;
    url(
        node,
        Session::Exec(Exec {
            container_id,
            command,
            streams,
        }),
    )
}

pub fn attach(node: &Node, container: &Container, request: AttachRequest) -> Result<String> {
    running(container)?;
    let streams = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
    let container_id = container.id.clone();
    url(
        node,
        Session::Attach(Attach {
            container_id,
            streams,
        }),
    )
}

pub fn port_forward(node: &Node, pod: &Pod, request: PortForwardRequest) -> Result<String> {
    if pod.stage() != PodStage::Ready {
        return Err(Status::failed_precondition("the sandbox is not ready").into());
    }
    let ports = request
        .port
        .iter()
        .map(|port| u16::try_from(*port).ok().filter(|port| *port != 0))
        .collect::<Option<Vec<u16>>>()
        .ok_or_else(|| Status::invalid_argument(format!("ports {:?}", request.port)))?;
    let sandbox_id = pod.id.clone();
    url(
        node,
        Session::PortForward(PortForward { sandbox_id, ports }),
    )
}

fn running(container: &Container) -> Result<()> {
    if container.stage() == ContainerStage::Running {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("container {} is not running", container.id)).into())
}

fn wanted(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<Wanted> {
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid_argument("none of stdin, stdout, stderr is asked for").into());
    }
    if tty && stderr {
        return Err(Status::invalid_argument("a terminal has no stderr").into());
    }
    Ok(Wanted {
        stdin,
        stdout,
        stderr,
        tty,
    })
}

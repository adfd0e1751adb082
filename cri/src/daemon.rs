//! The server: recovery, the socket, and a graceful end.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::node::Node;
use crate::proto::image_service_server::ImageServiceServer;
use crate::proto::images::images_server::ImagesServer;
use crate::proto::runtime_service_server::RuntimeServiceServer;
use crate::service::{archive, image, limits, runtime};
use crate::{accept, metrics, pods, streaming, systemd};

/// A client that does not answer a ping for so long has gone.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(config: Config) -> Result<()> {
    config.check()?;
    // From here on a request to end is heard, also one that comes too early.
    let term = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    // One provider of cryptography for all TLS; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node::open(config)?;
    pods::recover::recover(&node).await?;
    streaming::requests::start(&node).await?;
    metrics::start(&node).await?;
    let passed = systemd::passed_socket()?;
    let own_socket = passed.is_none();
    let listener = match passed {
        Some(listener) => UnixListener::from_std(listener)?,
        None => listen(&node)?,
    };
    let bounds = &node.config.limits;
    let runtime = RuntimeServiceServer::new(runtime::Service {
        node: Arc::clone(&node),
    })
    .max_decoding_message_size(bounds.request_bytes)
    .max_encoding_message_size(bounds.answer_bytes);
    let image = ImageServiceServer::new(image::Service {
        node: Arc::clone(&node),
    })
    .max_decoding_message_size(bounds.request_bytes)
    .max_encoding_message_size(bounds.answer_bytes);
    tracing::info!(
        socket = %node.config.listen.display(),
        root = %node.config.root.display(),
        default_handler = node.config.default_handler,
        "serves"
    );
    let incoming = accept::connections(listener, bounds);
    systemd::notify("READY=1");
    systemd::watch();
    let calls = usize::try_from(bounds.calls_per_connection)?.max(1);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(calls)
        .max_concurrent_streams(bounds.calls_per_connection.max(1))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(metrics::Layer(Arc::clone(&node.calls)))
        .layer(limits::Layer::new(bounds))
        .add_service(runtime)
        .add_service(image)
        .add_service(ImagesServer::new(archive::Service {
            node: Arc::clone(&node),
        }))
        .serve_with_incoming_shutdown(incoming, ended(term, interrupt))
        .await
        .context("the server failed")?;
    if own_socket {
        let _ = std::fs::remove_file(&node.config.listen);
    }
    tracing::info!("ends; pods go on");
    Ok(())
}

/// A socket that another daemon serves is not taken away from it.
fn listen(node: &Node) -> Result<UnixListener> {
    let path = &node.config.listen;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{} is served by another process", path.display());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("{} can't be removed", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("{} can't be bound", path.display()))?;
    let mode = std::fs::Permissions::from_mode(node.config.socket_mode);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

async fn ended(mut term: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    systemd::notify("STOPPING=1");
}

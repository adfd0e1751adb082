//! The server: recovery, the socket, and a graceful end.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::Config;
use crate::node::Node;
use crate::proto::image_service_server::ImageServiceServer;
use crate::proto::images::images_server::ImagesServer;
use crate::proto::runtime_service_server::RuntimeServiceServer;
use crate::service::{archive, image, runtime};
use crate::{metrics, pods, streaming};

/// Requests are small; a client that sends more is broken.
const MAX_REQUEST: usize = 16 << 20;
/// Lists of thousands of objects in one message.
const MAX_ANSWER: usize = 256 << 20;
/// Requests of one connection at a time; kubelets have one connection.
const MAX_CONCURRENT: usize = 1024;

pub async fn run(config: Config) -> Result<()> {
    config.check()?;
    // One provider of cryptography for all TLS; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node::open(config)?;
    pods::recover::recover(&node).await?;
    streaming::requests::start(&node).await?;
    metrics::start(&node).await?;
    let listener = listen(&node)?;
    let runtime = RuntimeServiceServer::new(runtime::Service {
        node: Arc::clone(&node),
    })
    .max_decoding_message_size(MAX_REQUEST)
    .max_encoding_message_size(MAX_ANSWER);
    let image = ImageServiceServer::new(image::Service {
        node: Arc::clone(&node),
    })
    .max_decoding_message_size(MAX_REQUEST)
    .max_encoding_message_size(MAX_ANSWER);
    tracing::info!(
        socket = %node.config.listen.display(),
        root = %node.config.root.display(),
        default_handler = node.config.default_handler,
        "serves"
    );
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(MAX_CONCURRENT)
        .http2_keepalive_interval(None)
        .layer(metrics::Layer(Arc::clone(&node.calls)))
        .add_service(runtime)
        .add_service(image)
        .add_service(ImagesServer::new(archive::Service {
            node: Arc::clone(&node),
        }))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), ended())
        .await
        .context("the server failed")?;
    let _ = std::fs::remove_file(&node.config.listen);
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

async fn ended() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

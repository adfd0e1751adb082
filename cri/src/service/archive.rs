//! The service behind `runsc-cri image`: pulls that tell how far they are, and
//! archives.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::images::pull::Progress;
use crate::node::{Node, status};
use crate::proto::AuthConfig;
use crate::proto::images::images_server::Images;
use crate::proto::images::{
    ExportRequest, ExportResponse, ImportRequest, ImportResponse, PullProgress, PullRequest,
};

/// Bytes of an archive in one message.
pub const CHUNK: usize = 1 << 20;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Service {
    pub node: Arc<Node>,
}

/// What a client sends, for a blocking reader. A client that goes away is an
/// error, not the end.
struct Incoming {
    stream: Streaming<ImportRequest>,
    chunk: Vec<u8>,
    read: usize,
    runtime: Handle,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read >= self.chunk.len() {
            match self.runtime.block_on(self.stream.message()) {
                Ok(Some(message)) => self.chunk = message.data,
                Ok(None) => return Ok(0),
                Err(err) => return Err(io::Error::other(err.message().to_owned())),
            }
            self.read = 0;
        }
        let mut rest = self.chunk.get(self.read..).unwrap_or_default();
        let n = rest.read(buffer)?;
        self.read = self.read.saturating_add(n);
        Ok(n)
    }
}

/// What a client receives, from a blocking writer.
struct Outgoing(mpsc::Sender<Result<ExportResponse, Status>>);

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..bytes.len().min(CHUNK)).unwrap_or_default();
        let data = chunk.to_vec();
        let sent = self.0.blocking_send(Ok(ExportResponse { data }));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tonic::async_trait]
impl Images for Service {
    type PullStream = Pin<Box<dyn Stream<Item = Result<PullProgress, Status>> + Send>>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let auth = (!request.username.is_empty()).then(|| AuthConfig {
            username: request.username,
            password: request.password,
            ..AuthConfig::default()
        });
        let (sender, receiver) = mpsc::channel(4);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move {
            let progress = Arc::new(Progress::default());
            let pull = node
                .images
                .pull_with(&request.image, auth.as_ref(), Arc::clone(&progress));
            tokio::pin!(pull);
            let told = |image_id: String| PullProgress {
                done_bytes: progress.done.load(Ordering::Relaxed),
                total_bytes: progress.total.load(Ordering::Relaxed),
                image_id,
            };
            let last = loop {
                tokio::select! {
                    done = &mut pull => break done,
                    () = tokio::time::sleep(TICK) => {
                        // Who has stopped looking does not stop the pull.
                        let _ = sender.try_send(Ok(told(String::new())));
                    }
                }
            };
            let last = last.map(|record| told(record.id)).map_err(status);
            let _ = sender.send(last).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send>>;

    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportResponse>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("no archive"))?;
        let archive = Incoming {
            stream,
            chunk: first.data,
            read: 0,
            runtime: Handle::current(),
        };
        let node = Arc::clone(&self.node);
        // A client that goes away does not leave half an import behind.
        let import = async move { node.images.import(archive, &first.name).await };
        let found = tokio::spawn(import)
            .await
            .map_err(|err| Status::internal(err.to_string()))?;
        let images = found.map_err(status)?.into_iter().map(|record| record.id);
        Ok(Response::new(ImportResponse {
            images: images.collect(),
        }))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let names = request.into_inner().images;
        let (sender, receiver) = mpsc::channel(4);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move {
            let done = node.images.export(&names, Outgoing(sender.clone())).await;
            if let Err(err) = done {
                let _ = sender.send(Err(status(err))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

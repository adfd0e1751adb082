//! The service behind `runsc-cri image`: pulls that tell how far they are, and
//! archives.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::images::pull::Progress;
use crate::node::{Node, status};
use crate::proto::AuthConfig;
use crate::proto::images::images_server::Images;
use crate::proto::images::{
    ExportRequest, ExportResponse, ImportRequest, ImportResponse, PullProgress, PullRequest,
};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Service {
    pub node: Arc<Node>,
}

fn absolute(path: &str) -> Result<&Path, Status> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Status::invalid_argument("the path is not absolute"))
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

    async fn import(
        &self,
        request: Request<ImportRequest>,
    ) -> Result<Response<ImportResponse>, Status> {
        let request = request.into_inner();
        let path = absolute(&request.path)?;
        let found = self.node.images.import(path, &request.name).await;
        let images = found.map_err(status)?.into_iter().map(|record| record.id);
        Ok(Response::new(ImportResponse {
            images: images.collect(),
        }))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        let request = request.into_inner();
        let path = absolute(&request.path)?;
        let done = self.node.images.export(&request.images, path).await;
        done.map_err(status)?;
        Ok(Response::new(ExportResponse {}))
    }
}

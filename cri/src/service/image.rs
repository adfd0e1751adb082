//! ImageService.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::convert;
use crate::containers::stats;
use crate::node::{Node, status};
use crate::proto::image_service_server::ImageService;
use crate::proto::{
    FilesystemIdentifier, FilesystemUsage, Image, ImageFilter, ImageFsInfoRequest,
    ImageFsInfoResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
    ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RemoveImageResponse, StreamImagesRequest, StreamImagesResponse,
};
use crate::time;

#[derive(Debug)]
pub struct Service {
    pub node: Arc<Node>,
}

fn name(spec: Option<ImageSpec>) -> Result<String, Status> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(Status::invalid_argument("no image is named")),
    }
}

impl Service {
    fn images(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let wanted = filter.and_then(|f| f.image).map(|i| i.image);
        let records = match wanted.as_deref() {
            None | Some("") => self.node.images.all(),
            Some(name) => self.node.images.find(name).into_iter().collect(),
        };
        records
            .iter()
            .map(|r| convert::image(&self.node, r))
            .collect()
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        Ok(Response::new(ListImagesResponse {
            images: self.images(request.into_inner().filter),
        }))
    }

    type StreamImagesStream =
        Pin<Box<dyn Stream<Item = Result<StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.images(request.into_inner().filter);
        Ok(Response::new(super::runtime::pages(images, |images| {
            StreamImagesResponse { images }
        })))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let record = self.node.images.find(&name);
        let mut response = ImageStatusResponse::default();
        if let Some(record) = record {
            response.image = Some(convert::image(&self.node, &record));
            if request.verbose
                && let Ok(text) = serde_json::to_string(&record)
            {
                response.info.insert("info".to_owned(), text);
            }
        }
        Ok(Response::new(response))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let handler = request.image.as_ref().map(|i| i.runtime_handler.clone());
        if let Some(handler) = handler.filter(|handler| !handler.is_empty()) {
            // The same image for all of them, but one that is not there would
            // only be noticed by the pod.
            self.node
                .runtime(&handler)
                .map_err(|err| Status::invalid_argument(format!("{err:#}")))?;
        }
        let name = name(request.image)?;
        let node = Arc::clone(&self.node);
        // A caller that goes away does not lose what is fetched already: the
        // kubelet asks again.
        let pull =
            tokio::spawn(async move { node.images.pull(&name, request.auth.as_ref()).await });
        let record = pull
            .await
            .map_err(|err| Status::internal(err.to_string()))?
            .map_err(status)?;
        tracing::info!(image = record.id, tags = ?record.tags, "pulled");
        Ok(Response::new(PullImageResponse {
            image_ref: record.id,
        }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = name(request.into_inner().image)?;
        let used = self.node.used_layers();
        self.node.images.remove(&name, used).await.map_err(status)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let node = Arc::clone(&self.node);
        let usage = tokio::task::spawn_blocking(move || {
            let mut own = (0u64, 0u64);
            for container in node.store.containers() {
                let (bytes, files) = stats::disk_usage(&container.dir.join("upper"));
                own = (own.0.saturating_add(bytes), own.1.saturating_add(files));
            }
            (node.images.usage(), own)
        });
        let (images, containers) = usage
            .await
            .map_err(|err| Status::internal(err.to_string()))?;
        let entry = |(bytes, files): (u64, u64)| FilesystemUsage {
            timestamp: time::now_ns(),
            fs_id: Some(FilesystemIdentifier {
                mountpoint: self.node.config.root.display().to_string(),
            }),
            used_bytes: stats::value(bytes),
            inodes_used: stats::value(files),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![entry(images)],
            container_filesystems: vec![entry(containers)],
        }))
    }
}

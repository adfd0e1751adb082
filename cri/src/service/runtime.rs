//! RuntimeService.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{convert, metrics, runtime_status};
use crate::containers::{self, exec, lifecycle, resources, stats};
use crate::node::{Node, status};
use crate::pods;
use crate::proto::runtime_service_server::RuntimeService;
use crate::proto::{self, *};
use crate::store::{Container, ContainerStage, PodStage};
use crate::streaming::requests;
use crate::supervisor::protocol::Request as SupervisorRequest;

/// Objects and bytes per message of the streaming lists: far below any message
/// limit.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 4 << 20;

type Answer<T> = Result<Response<T>, Status>;
type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
pub struct Service {
    pub node: Arc<Node>,
}

/// A list as a stream of pages; an empty list is one empty page.
pub fn pages<T, R>(items: Vec<T>, wrap: fn(Vec<T>) -> R) -> ResponseStream<R>
where
    T: prost::Message + 'static,
    R: Send + 'static,
{
    let mut pages = Vec::new();
    let mut page = Vec::new();
    let mut bytes = 0usize;
    for item in items {
        bytes = bytes.saturating_add(item.encoded_len());
        page.push(item);
        if page.len() >= PAGE || bytes >= PAGE_BYTES {
            pages.push(std::mem::take(&mut page));
            bytes = 0;
        }
    }
    if !page.is_empty() || pages.is_empty() {
        pages.push(page);
    }
    Box::pin(futures_util::stream::iter(pages).map(move |page| Ok(wrap(page))))
}

/// Work that is not to stop half-way when the caller goes away.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(status),
        Err(err) => Err(Status::internal(format!("the request failed: {err}"))),
    }
}

impl Service {
    fn pods(&self, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
        let filter = filter.unwrap_or_default();
        let all = self.node.store.pods().into_iter().map(|pod| pod.record());
        all.filter(|r| r.stage != PodStage::Creating)
            .filter(|r| {
                convert::id_matches(&filter.id, &r.id)
                    && filter
                        .state
                        .as_ref()
                        .is_none_or(|s| s.state() == convert::pod_state(r))
                    && convert::labels_match(&filter.label_selector, &r.config.labels)
            })
            .map(convert::pod_item)
            .collect()
    }

    fn containers(&self, filter: Option<ContainerFilter>) -> Vec<proto::Container> {
        let filter = filter.unwrap_or_default();
        let all = self.node.store.containers().into_iter().map(|c| c.record());
        all.filter(|r| {
            !matches!(r.stage, ContainerStage::Creating | ContainerStage::Removing)
                && convert::id_matches(&filter.id, &r.id)
                && convert::id_matches(&filter.pod_sandbox_id, &r.pod)
                && filter
                    .state
                    .as_ref()
                    .is_none_or(|s| s.state() == convert::container_state(r))
                && convert::labels_match(&filter.label_selector, &r.config.labels)
        })
        .map(convert::container_item)
        .collect()
    }

    async fn container_stats_list(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<proto::ContainerStats>, Status> {
        let filter = filter.unwrap_or_default();
        let node = Arc::clone(&self.node);
        let work = move || {
            let all = node.store.containers();
            all.iter()
                .filter(|c| {
                    let r = c.record();
                    r.alive()
                        && convert::id_matches(&filter.id, &r.id)
                        && convert::id_matches(&filter.pod_sandbox_id, &r.pod)
                        && convert::labels_match(&filter.label_selector, &r.config.labels)
                })
                .map(|c| stats::container(&node, c))
                .collect()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|err| Status::internal(err.to_string()))
    }

    async fn pod_stats_list(
        &self,
        filter: Option<PodSandboxStatsFilter>,
    ) -> Result<Vec<PodSandboxStats>, Status> {
        let filter = filter.unwrap_or_default();
        let node = Arc::clone(&self.node);
        let work = move || {
            let all = node.store.pods();
            all.iter()
                .filter(|p| {
                    let r = p.record();
                    r.stage == PodStage::Ready
                        && convert::id_matches(&filter.id, &r.id)
                        && convert::labels_match(&filter.label_selector, &r.config.labels)
                })
                .map(|p| stats::pod(&node, p))
                .collect()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|err| Status::internal(err.to_string()))
    }

    fn find(&self, id: &str) -> Result<Arc<Container>, Status> {
        self.node.container(id).map_err(status)
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _request: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "runsc-cri".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request
            .config
            .ok_or_else(|| Status::invalid_argument("no pod configuration"))?;
        let node = Arc::clone(&self.node);
        let id =
            detached(async move { pods::run::run(&node, config, &request.runtime_handler).await })
                .await?;
        tracing::info!(pod = id, "runs");
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        // A pod that is not there is stopped.
        if let Some(pod) = self.node.store.pod(&request.into_inner().pod_sandbox_id) {
            let node = Arc::clone(&self.node);
            detached(async move { pods::stop(&node, &pod).await }).await?;
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        if let Some(pod) = self.node.store.pod(&request.into_inner().pod_sandbox_id) {
            let node = Arc::clone(&self.node);
            tracing::info!(pod = pod.id, "is removed");
            detached(async move { pods::remove(&node, &pod).await }).await?;
        }
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let pod = self.node.pod(&request.pod_sandbox_id).map_err(status)?;
        let record = pod.record();
        let mut response = PodSandboxStatusResponse {
            status: Some(convert::pod_status(&record)),
            timestamp: crate::time::now_ns(),
            ..PodSandboxStatusResponse::default()
        };
        for container in self.node.store.containers_of(&pod.id) {
            let record = container.record();
            if !matches!(
                record.stage,
                ContainerStage::Creating | ContainerStage::Removing
            ) {
                response
                    .containers_statuses
                    .push(convert::container_status(&record));
            }
        }
        if request.verbose {
            let state = self.node.pod_state(&pod.id);
            let attached = record.network.as_ref().filter(|_| !record.network_released);
            let network = match attached {
                None => None,
                Some(attachment) => Some(match self.node.cni.check(attachment).await {
                    Ok(()) => "ok".to_owned(),
                    Err(err) => format!("{err:#}"),
                }),
            };
            let info = serde_json::json!({
                "networkCheck": network,
                "runtimeHandler": record.handler,
                "config": record.config,
                "cniResult": record.network.as_ref().and_then(|n| n.result.clone()),
                "pid": pods::supervisor_pid(&state).map_or(0, nix::unistd::Pid::as_raw),
            });
            response.info.insert("info".to_owned(), info.to_string());
        }
        Ok(Response::new(response))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        Ok(Response::new(ListPodSandboxResponse {
            items: self.pods(request.into_inner().filter),
        }))
    }

    type StreamPodSandboxesStream = ResponseStream<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let all = self.pods(request.into_inner().filter);
        Ok(Response::new(pages(all, |pod_sandboxes| {
            StreamPodSandboxesResponse { pod_sandboxes }
        })))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request
            .config
            .ok_or_else(|| Status::invalid_argument("no container configuration"))?;
        let pod = self.node.pod(&request.pod_sandbox_id).map_err(status)?;
        let node = Arc::clone(&self.node);
        let id =
            detached(async move { containers::create::create(&node, &pod, config).await }).await?;
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let container = self.find(&request.into_inner().container_id)?;
        let node = Arc::clone(&self.node);
        detached(async move { lifecycle::start(&node, &container).await }).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        if let Some(container) = self.node.store.container(&request.container_id) {
            let node = Arc::clone(&self.node);
            detached(async move { lifecycle::stop(&node, &container, grace).await }).await?;
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        if let Some(container) = self
            .node
            .store
            .container(&request.into_inner().container_id)
        {
            let node = Arc::clone(&self.node);
            detached(async move { lifecycle::remove(&node, &container).await }).await?;
        }
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        Ok(Response::new(ListContainersResponse {
            containers: self.containers(request.into_inner().filter),
        }))
    }

    type StreamContainersStream = ResponseStream<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let all = self.containers(request.into_inner().filter);
        Ok(Response::new(pages(all, |containers| {
            StreamContainersResponse { containers }
        })))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.find(&request.container_id)?;
        let record = container.record();
        let mut response = ContainerStatusResponse {
            status: Some(convert::container_status(&record)),
            ..ContainerStatusResponse::default()
        };
        if request.verbose {
            let bundle = self.node.bundle(&container.id);
            let spec: Option<serde_json::Value> =
                crate::store::atomic::read_json(&bundle.join("config.json"))
                    .ok()
                    .flatten();
            let info = serde_json::json!({
                "sandboxID": record.pod,
                "pid": record.pid,
                "config": record.config,
                "runtimeHandler": record.handler,
                "runtimeSpec": spec,
            });
            response.info.insert("info".to_owned(), info.to_string());
        }
        Ok(Response::new(response))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let container = self.find(&request.container_id)?;
        let Some(new) = request.linux else {
            return Err(Status::invalid_argument("no Linux resources"));
        };
        let node = Arc::clone(&self.node);
        detached(async move {
            let _operation = container.operation.lock().await;
            let record = container.record();
            if !record.alive() {
                return Err(Status::failed_precondition("the container has ended").into());
            }
            let mut merged = record.resources.clone().unwrap_or_default();
            resources::merge(&mut merged, &new);
            let limits = serde_json::Value::Object(resources::oci(Some(&merged)));
            node.runtime(&record.handler)?
                .update(&container.id, &limits)
                .await?;
            container.update(|record| record.resources = Some(merged))
        })
        .await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let container = self.find(&request.into_inner().container_id)?;
        if container.stage() != ContainerStage::Running {
            return Err(Status::failed_precondition("the container does not run"));
        }
        let request = SupervisorRequest::ReopenLog {
            container: container.id.clone(),
        };
        self.node
            .supervisor(&container.pod)
            .call(&request)
            .await
            .map_err(status)?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let container = self.find(&request.container_id)?;
        exec::sync(&self.node, &container, &request.cmd, request.timeout)
            .await
            .map(Response::new)
            .map_err(status)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let container = self.find(&request.container_id)?;
        let url = requests::exec(&self.node, &container, request).map_err(status)?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let container = self.find(&request.container_id)?;
        let url = requests::attach(&self.node, &container, request).map_err(status)?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<PortForwardRequest>,
    ) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let pod = self.node.pod(&request.pod_sandbox_id).map_err(status)?;
        let url = requests::port_forward(&self.node, &pod, request).map_err(status)?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        let container = self.find(&request.into_inner().container_id)?;
        let node = Arc::clone(&self.node);
        let stats = tokio::task::spawn_blocking(move || stats::container(&node, &container))
            .await
            .map_err(|err| Status::internal(err.to_string()))?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let stats = self
            .container_stats_list(request.into_inner().filter)
            .await?;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = ResponseStream<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let all = self
            .container_stats_list(request.into_inner().filter)
            .await?;
        Ok(Response::new(pages(all, |container_stats| {
            StreamContainerStatsResponse { container_stats }
        })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        let pod = self
            .node
            .pod(&request.into_inner().pod_sandbox_id)
            .map_err(status)?;
        let node = Arc::clone(&self.node);
        let stats = tokio::task::spawn_blocking(move || stats::pod(&node, &pod))
            .await
            .map_err(|err| Status::internal(err.to_string()))?;
        Ok(Response::new(PodSandboxStatsResponse {
            stats: Some(stats),
        }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = self.pod_stats_list(request.into_inner().filter).await?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = ResponseStream<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let all = self.pod_stats_list(request.into_inner().filter).await?;
        Ok(Response::new(pages(all, |pod_sandbox_stats| {
            StreamPodSandboxStatsResponse { pod_sandbox_stats }
        })))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let network = request
            .into_inner()
            .runtime_config
            .and_then(|c| c.network_config);
        if let Some(network) = network {
            self.node.cni.set_pod_cidr(&network.pod_cidr);
        }
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let node = Arc::clone(&self.node);
        let verbose = request.into_inner().verbose;
        let network = node.cni.ready().await;
        let work = move || runtime_status::status(&node, &network, verbose);
        let status = tokio::task::spawn_blocking(work)
            .await
            .map_err(|err| Status::internal(err.to_string()))?;
        Ok(Response::new(status))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented(
            "checkpoints are not supported by this version",
        ))
    }

    type GetContainerEventsStream = ResponseStream<ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.node.events.subscribe());
        // A listener that is too slow loses the oldest; it relists anyway.
        let events = events.filter_map(|event| async move { event.ok().map(Ok) });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse {
            descriptors: metrics::descriptors(),
        }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let pods = self.pod_stats_list(None).await?;
        Ok(Response::new(ListPodSandboxMetricsResponse {
            pod_metrics: pods.iter().map(metrics::of_pod).collect(),
        }))
    }

    type StreamPodSandboxMetricsStream = ResponseStream<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let pods = self.pod_stats_list(None).await?;
        let all = pods.iter().map(metrics::of_pod).collect();
        Ok(Response::new(pages(all, |pod_sandbox_metrics| {
            StreamPodSandboxMetricsResponse {
                pod_sandbox_metrics,
            }
        })))
    }

    async fn runtime_config(
        &self,
        _request: Request<RuntimeConfigRequest>,
    ) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(runtime_status::runtime_config(&self.node)))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let pod = self.node.pod(&request.pod_sandbox_id).map_err(status)?;
        // The pod's cgroup is the kubelet's own; what is kept is the record.
        pod.update(|record| {
            let linux = record.config.linux.get_or_insert_default();
            if request.overhead.is_some() {
                linux.overhead = request.overhead;
            }
            if request.resources.is_some() {
                linux.resources = request.resources;
            }
        })
        .map_err(status)?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}

//! The Prometheus endpoint (`metrics.listen`), and what it counts: RPCs by
//! method and code, and the node's objects.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::node::Node;
use crate::store::{ContainerStage, PodStage};

/// Calls so far by (method, gRPC code): how many, and their time.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<(String, String), (u64, Duration)>>);

impl Calls {
    fn count(&self, method: &str, code: &str, time: Duration) {
        let mut all = self.0.lock();
        let entry = all.entry((method.to_owned(), code.to_owned())).or_default();
        entry.0 = entry.0.saturating_add(1);
        entry.1 = entry.1.saturating_add(time);
    }
}

/// Counts what passes through a gRPC server.
#[derive(Clone, Debug)]
pub struct Layer(pub Arc<Calls>);

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        let calls = Arc::clone(&self.0);
        Counted { inner, calls }
    }
}

#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    calls: Arc<Calls>,
}

impl<S, B, R> tower_service::Service<Request<B>> for Counted<S>
where
    S: tower_service::Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let start = Instant::now();
        let call = self.inner.call(request);
        let calls = Arc::clone(&self.calls);
        Box::pin(async move {
            let response = call.await?;
            // An error without data has its code in the headers; what comes
            // with data has begun well.
            let status = response.headers().get("grpc-status");
            let code = status
                .and_then(|s| s.to_str().ok())
                .unwrap_or("0")
                .to_owned();
            let time = start.elapsed();
            tracing::debug!(method, code, ?time, "call");
            // Names of others' making would fill the memory.
            let known = code != "12";
            calls.count(if known { &method } else { "unknown" }, &code, time);
            Ok(response)
        })
    }
}

/// Serves the endpoint where it is configured.
pub async fn start(node: &Arc<Node>) -> Result<()> {
    let address = node.config.metrics.listen.clone();
    if address.is_empty() {
        return Ok(());
    }
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("metrics.listen {address:?}"))?;
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request: Request<_>| {
                    let answer = answer(&node, &request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(err) = served {
                    tracing::debug!("metrics: {err}");
                }
            });
        }
    });
    Ok(())
}

fn answer(node: &Node, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        let mut response = Response::new(Full::from("see /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    Response::new(Full::from(text(node)))
}

/// The exposition format of Prometheus.
fn text(node: &Node) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, String)>| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let pods = node.store.pods();
    let in_stage = |stage| {
        pods.iter()
            .filter(|p| p.stage() == stage)
            .count()
            .to_string()
    };
    family(
        "runsc_cri_pods",
        "gauge",
        "Pod sandboxes by state.",
        vec![
            ("{state=\"ready\"}".to_owned(), in_stage(PodStage::Ready)),
            (
                "{state=\"not_ready\"}".to_owned(),
                in_stage(PodStage::NotReady),
            ),
        ],
    );
    let containers = node.store.containers();
    let stages = [
        ("created", ContainerStage::Created),
        ("running", ContainerStage::Running),
        ("exited", ContainerStage::Exited),
    ];
    let rows = stages.map(|(name, stage)| {
        let count = containers.iter().filter(|c| c.stage() == stage).count();
        (format!("{{state=\"{name}\"}}"), count.to_string())
    });
    family(
        "runsc_cri_containers",
        "gauge",
        "Containers by state.",
        rows.to_vec(),
    );
    let images = node.images.all().len().to_string();
    family(
        "runsc_cri_images",
        "gauge",
        "Images.",
        vec![(String::new(), images)],
    );
    let calls = node.calls.0.lock().clone();
    let labels =
        |(method, code): &(String, String)| format!("{{method=\"{method}\",code=\"{code}\"}}");
    let counts = calls
        .iter()
        .map(|(key, (count, _))| (labels(key), count.to_string()));
    family(
        "runsc_cri_calls_total",
        "counter",
        "RPCs answered.",
        counts.collect(),
    );
    let times = calls
        .iter()
        .map(|(key, (_, time))| (labels(key), format!("{:.6}", time.as_secs_f64())));
    family(
        "runsc_cri_call_seconds_total",
        "counter",
        "Time from request to the beginning of the answer.",
        times.collect(),
    );
    out
}

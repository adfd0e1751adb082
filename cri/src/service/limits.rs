//! What one call may take: time from request to answer, bytes of requests that
//! are still coming in, time for an answer that nobody reads.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::{Request, Response};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::accept::Peer;
use crate::config::LimitsConfig;

/// Answers go to the connection in parts of this size, so that what a client
/// does not read stays with us and can be dropped.
const PART: usize = 64 << 10;

#[derive(Debug)]
struct Limits {
    call: Duration,
    calls: HashMap<String, Duration>,
    receive: Duration,
    answer: Duration,
    /// Of one process: bytes of requests that have begun, and calls.
    receiving: usize,
    calls_max: usize,
}

impl Limits {
    /// Zero is without end.
    fn of(&self, method: &str) -> Option<Duration> {
        let limit = self.calls.get(method).copied().unwrap_or(self.call);
        (!limit.is_zero()).then_some(limit)
    }
}

/// Keeps calls to the limits.
#[derive(Clone, Debug)]
pub struct Layer(Arc<Limits>);

impl Layer {
    pub fn new(config: &LimitsConfig) -> Self {
        let seconds = Duration::from_secs;
        let calls = config.call_timeouts_s.iter();
        Self(Arc::new(Limits {
            call: seconds(config.call_timeout_s),
            calls: calls.map(|(m, s)| (m.clone(), seconds(*s))).collect(),
            receive: seconds(config.receive_timeout_s.max(1)),
            answer: seconds(config.answer_timeout_s.max(1)),
            receiving: config.requests_bytes,
            calls_max: config.calls_per_process.max(1),
        }))
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        let limits = Arc::clone(&self.0);
        Limited { inner, limits }
    }
}

#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S> tower_service::Service<Request<Body>> for Limited<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        let limits = Arc::clone(&self.limits);
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.unwrap_or_default();
        let Some(turn) = Turn::take(&peer, limits.calls_max) else {
            let status = Status::resource_exhausted("the process has too many calls under way");
            return Box::pin(async { Ok(status.into_http()) });
        };
        let request = request.map(|body| {
            Body::new(Incoming {
                body,
                bytes: 0,
                peer,
                limits: Arc::clone(&limits),
                deadline: Box::pin(tokio::time::sleep(limits.receive)),
                ended: false,
            })
        });
        let call = self.inner.call(request);
        Box::pin(async move {
            let limit = limits.of(&method);
            let response = match limit {
                None => call.await?,
                Some(limit) => match tokio::time::timeout(limit, call).await {
                    Ok(done) => done?,
                    Err(_) => {
                        let text = format!("{method} took longer than {limit:?}");
                        tracing::warn!("{text}");
                        return Ok(Status::deadline_exceeded(text).into_http());
                    }
                },
            };
            // What has no end may wait for its client without one.
            let patience = limit.map(|_| limits.answer);
            Ok(response.map(|body| Body::new(Answer::new(body, turn, patience))))
        })
    }
}

/// A call that counts, until its answer is gone.
struct Turn(Peer);

impl Turn {
    fn take(peer: &Peer, max: usize) -> Option<Self> {
        let before = peer.0.calls.fetch_add(1, Ordering::Relaxed);
        // Taken back when it is dropped.
        let turn = Self(peer.clone());
        (before < max).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request on its way in.
struct Incoming {
    body: Body,
    bytes: usize,
    peer: Peer,
    limits: Arc<Limits>,
    deadline: Pin<Box<Sleep>>,
    ended: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.peer
            .0
            .receiving
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl hyper::body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                if self.deadline.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.ended = true;
                let text = format!("the request did not come in {:?}", self.limits.receive);
                Poll::Ready(Some(Err(Status::deadline_exceeded(text))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let more = frame.data_ref().map_or(0, Bytes::len);
                self.bytes = self.bytes.saturating_add(more);
                let before = self.peer.0.receiving.fetch_add(more, Ordering::Relaxed);
                if before.saturating_add(more) > self.limits.receiving {
                    self.ended = true;
                    let text = "too many bytes of requests are coming in at once";
                    return Poll::Ready(Some(Err(Status::resource_exhausted(text))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => {
                self.ended = true;
                Poll::Ready(other)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer on its way out. One that waits too long for its client is dropped
/// by a task: nobody polls it meanwhile.
struct Answer {
    rest: Arc<Mutex<Rest>>,
    watchdog: Option<AbortHandle>,
    _turn: Turn,
}

enum Rest {
    Open { body: Body, data: Bytes },
    Dropped,
}

impl Answer {
    fn new(body: Body, turn: Turn, patience: Option<Duration>) -> Self {
        let data = Bytes::new();
        let done = body.is_end_stream();
        let rest = Arc::new(Mutex::new(Rest::Open { body, data }));
        let watchdog = patience.filter(|_| !done).map(|patience| {
            let rest = Arc::clone(&rest);
            let wait = async move {
                tokio::time::sleep(patience).await;
                // Dropped outside of the lock.
                let old = std::mem::replace(&mut *rest.lock(), Rest::Dropped);
                drop(old);
            };
            tokio::spawn(wait).abort_handle()
        });
        Self {
            rest,
            watchdog,
            _turn: turn,
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut rest = self.rest.lock();
        let Rest::Open { body, data } = &mut *rest else {
            let text = "the client did not read the answer";
            return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
        };
        if data.is_empty() {
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(bytes) => *data = bytes,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let part = data.split_to(data.len().min(PART));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        match &*self.rest.lock() {
            Rest::Open { body, data } => data.is_empty() && body.is_end_stream(),
            Rest::Dropped => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tower_layer::Layer as _;
    use tower_service::Service;

    /// Reads the request, then answers with as many bytes; method `/x/Never`
    /// has no answer.
    #[derive(Clone)]
    struct Echo;

    impl Service<Request<Body>> for Echo {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            Box::pin(async move {
                if request.uri().path() == "/x/Never" {
                    std::future::pending::<()>().await;
                }
                Ok(match request.into_body().collect().await {
                    Ok(body) => Response::new(Body::new(Full::new(body.to_bytes()))),
                    Err(status) => status.into_http(),
                })
            })
        }
    }

    fn limits() -> LimitsConfig {
        LimitsConfig {
            call_timeout_s: 1,
            receive_timeout_s: 1,
            answer_timeout_s: 1,
            requests_bytes: 1 << 20,
            calls_per_process: 2,
            ..LimitsConfig::default()
        }
    }

    fn request(method: &str, body: Body) -> Request<Body> {
        let request = Request::builder().uri(format!("/x/{method}"));
        request.body(body).expect("request")
    }

    fn code(response: &Response<Body>) -> tonic::Code {
        let status = response.headers().get("grpc-status");
        status.map_or(tonic::Code::Ok, |code| {
            tonic::Code::from_bytes(code.as_bytes())
        })
    }

    fn bytes(len: usize) -> Body {
        Body::new(Full::new(Bytes::from(vec![7; len])))
    }

    #[tokio::test]
    async fn calls_end_in_time() {
        let mut service = Layer::new(&limits()).layer(Echo);
        let answer = service
            .call(request("Never", bytes(1)))
            .await
            .expect("answer");
        assert_eq!(code(&answer), tonic::Code::DeadlineExceeded);
        let answer = service
            .call(request("Other", bytes(100)))
            .await
            .expect("answer");
        let body = answer.into_body().collect().await.expect("body");
        assert_eq!(body.to_bytes().len(), 100);
    }

    #[tokio::test]
    async fn requests_are_bounded() {
        let mut config = limits();
        config.call_timeouts_s.insert("Slow".into(), 0);
        let mut service = Layer::new(&config).layer(Echo);
        let large = service
            .call(request("Other", bytes(2 << 20)))
            .await
            .expect("answer");
        assert_eq!(code(&large), tonic::Code::ResourceExhausted);
        // One part, and then nothing.
        let part: Result<_, Status> = Ok(Frame::data(Bytes::from_static(b"x")));
        let stream = futures_util::StreamExt::chain(
            futures_util::stream::iter([part]),
            futures_util::stream::pending(),
        );
        let slow = service.call(request("Slow", Body::new(StreamBody::new(stream))));
        let slow = slow.await.expect("answer");
        assert_eq!(code(&slow), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn answers_nobody_reads_are_dropped() {
        let mut service = Layer::new(&limits()).layer(Echo);
        let peer = Peer::default();
        let call = |service: &mut Limited<Echo>| {
            let mut request = request("Other", bytes(300 << 10));
            request.extensions_mut().insert(peer.clone());
            service.call(request)
        };
        let mut first = call(&mut service).await.expect("answer").into_body();
        let second = call(&mut service).await.expect("answer");
        let third = call(&mut service).await.expect("answer");
        assert_eq!(
            code(&third),
            tonic::Code::ResourceExhausted,
            "two at a time"
        );
        let part = first.frame().await.expect("a part").expect("data");
        assert_eq!(part.into_data().expect("data").len(), PART);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(first.frame().await.expect("an end").is_err());
        drop((first, second, third));
        assert_eq!(peer.0.calls.load(Ordering::Relaxed), 0);
        assert_eq!(peer.0.receiving.load(Ordering::Relaxed), 0);
    }
}

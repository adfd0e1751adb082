//! The HTTP server in front of the sessions.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::remote_command::{self, Version};
use super::tokens::{Tokens, TooMany};
use super::websocket::{self, Channels, Codec};
use super::{Backend, Duplex, Session, port_forward, spdy};

const SPDY: &str = "SPDY/3.1";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED_PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after `accept` has failed, for lack of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may be open besides those of sessions.
const SPARE_CONNECTIONS: usize = 128;

/// Settings of the server.
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What its URLs begin with; by default its scheme and address.
    pub base_url: Option<String>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// A connection on which nothing moves for this long ends.
    pub idle_timeout: Duration,
    /// How long a client may take to open the streams of its session.
    pub creation_timeout: Duration,
    /// Sessions that may be open at once.
    pub max_sessions: usize,
}

impl Config {
    /// The usual settings for an address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            base_url: None,
            tls: None,
            idle_timeout: Duration::from_secs(4 * 3600),
            creation_timeout: Duration::from_secs(30),
            max_sessions: 4096,
        }
    }
}

/// A running streaming server; it stops, with all sessions, when dropped.
pub struct Server {
    base_url: String,
    tokens: Arc<Tokens>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens and serves.
    pub async fn start(config: Config, backend: Arc<dyn Backend>) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let base_url = match &config.base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{scheme}://{address}"),
        };
        let tokens = Arc::new(Tokens::default());
        let shared = Arc::new(Shared {
            sessions: Arc::new(Semaphore::new(config.max_sessions)),
            tokens: Arc::clone(&tokens),
            backend,
            idle: config.idle_timeout,
            creation: config.creation_timeout,
        });
        let connections = Arc::new(Semaphore::new(config.max_sessions + SPARE_CONNECTIONS));
        let tls = config.tls.map(TlsAcceptor::from);
        let accepting = tokio::spawn(accept(listener, connections, tls, shared));
        Ok(Self {
            base_url,
            tokens,
            accepting,
        })
    }

    /// A URL that opens this session once, within a minute.
    pub fn url(&self, session: Session) -> Result<String, TooMany> {
        let path = kind(&session);
        let token = self.tokens.insert(session)?;
        Ok(format!("{}/{path}/{token}", self.base_url))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tokens are secrets.
        write!(f, "Server({})", self.base_url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn kind(session: &Session) -> &'static str {
    match session {
        Session::Exec(_) => "exec",
        Session::Attach(_) => "attach",
        Session::PortForward(_) => "portforward",
    }
}

/// What all connections need.
struct Shared {
    tokens: Arc<Tokens>,
    backend: Arc<dyn Backend>,
    sessions: Arc<Semaphore>,
    idle: Duration,
    creation: Duration,
}

async fn accept(
    listener: TcpListener,
    connections: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                tracing::warn!(%err, "streaming connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Keystrokes are small.
        if let Err(err) = stream.set_nodelay(true) {
            tracing::debug!(%err, "streaming client is gone");
            continue;
        }
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(connection(stream, permit, tls, shared));
    }
}

async fn connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    let io: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(tls) => match tokio::time::timeout(REQUEST_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            _ => return,
        },
    };
    let permit = Arc::new(permit);
    let service = service_fn(|request| {
        let answer = answer(&shared, &permit, request);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
    if let Err(err) = served {
        tracing::debug!(%err, "streaming request failed");
    }
}

/// Looks a request up and starts its session.
fn answer(
    shared: &Arc<Shared>,
    permit: &Arc<OwnedSemaphorePermit>,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST");
    }
    let offer = match Offer::of(request.headers()) {
        Ok(offer) => offer,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, reason),
    };
    let mut parts = request.uri().path().trim_matches('/').splitn(2, '/');
    let (Some(path), Some(token)) = (parts.next(), parts.next()) else {
        return refuse(StatusCode::NOT_FOUND, "there is nothing here");
    };
    let Some(session) = shared
        .tokens
        .take(token)
        .filter(|session| kind(session) == path)
    else {
        return refuse(
            StatusCode::NOT_FOUND,
            "this URL is unknown, used or expired",
        );
    };
    let Some(protocol) = offer.choose(&session) else {
        let mut response = refuse(StatusCode::FORBIDDEN, "no protocol of the client is served");
        for name in offer.served(&session) {
            let value = HeaderValue::from_static(name);
            response.headers_mut().append(ACCEPTED, value);
        }
        return response;
    };
    let Ok(session_permit) = Arc::clone(&shared.sessions).try_acquire_owned() else {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many sessions are open",
        );
    };
    let response = offer.accept(protocol);
    let (shared, connection_permit) = (Arc::clone(shared), Arc::clone(permit));
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _permits = (session_permit, connection_permit);
        match upgraded.await {
            Ok(io) => {
                shared
                    .serve(TokioIo::new(io), &offer.carrier, protocol, &session)
                    .await
            }
            Err(err) => tracing::debug!(%err, "streaming client is gone"),
        }
    });
    response
}

fn refuse(status: StatusCode, reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{reason}\n"))));
    *response.status_mut() = status;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// What carries the session.
enum Carrier {
    Spdy,
    /// With the answer to the client's key.
    WebSocket {
        accept: HeaderValue,
    },
}

/// A client's wish to leave HTTP.
struct Offer {
    carrier: Carrier,
    /// Protocols that the client speaks, the best first; none is one, too.
    protocols: Vec<String>,
}

/// Protocols of exec and attach on WebSockets.
const CHANNEL_PROTOCOLS: &[(&str, Version, Codec)] = &[
    ("v5.channel.k8s.io", Version::V5, Codec::Binary),
    ("v4.channel.k8s.io", Version::V4, Codec::Binary),
    ("v4.base64.channel.k8s.io", Version::V4, Codec::Base64),
    ("channel.k8s.io", Version::V1, Codec::Binary),
    ("base64.channel.k8s.io", Version::V1, Codec::Base64),
    ("", Version::V1, Codec::Binary),
];
/// Those of exec and attach on SPDY.
const STREAM_PROTOCOLS: &[(&str, Version, Codec)] = &[
    ("v4.channel.k8s.io", Version::V4, Codec::Binary),
    ("v3.channel.k8s.io", Version::V3, Codec::Binary),
    ("v2.channel.k8s.io", Version::V2, Codec::Binary),
    ("channel.k8s.io", Version::V1, Codec::Binary),
    ("", Version::V1, Codec::Binary),
];
/// Those of port forwarding, where versions do not matter.
const FORWARD_STREAMS: &[(&str, Version, Codec)] = &[
    (PORT_FORWARD, Version::V1, Codec::Binary),
    ("", Version::V1, Codec::Binary),
];
const FORWARD_CHANNELS: &[(&str, Version, Codec)] = &[
    (TUNNELLED_PORT_FORWARD, Version::V1, Codec::Binary),
    ("v4.channel.k8s.io", Version::V4, Codec::Binary),
    ("v4.base64.channel.k8s.io", Version::V4, Codec::Base64),
    ("", Version::V4, Codec::Binary),
];

/// An agreed protocol: its name, version and encoding.
type Protocol = (&'static str, Version, Codec);

impl Offer {
    fn of(headers: &HeaderMap) -> Result<Self, &'static str> {
        let upgrades = words(headers, &header::UPGRADE);
        let wants = |name: &str| upgrades.iter().any(|word| word.eq_ignore_ascii_case(name));
        if wants("websocket") {
            let key = headers.get(header::SEC_WEBSOCKET_KEY);
            let key = key.ok_or("the WebSocket request has no key")?;
            if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&HeaderValue::from_static("13")) {
                return Err("only version 13 of WebSocket is spoken");
            }
            let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
                .map_err(|_| "the WebSocket key is unusable")?;
            Ok(Self {
                carrier: Carrier::WebSocket { accept },
                protocols: words(headers, &header::SEC_WEBSOCKET_PROTOCOL),
            })
        } else if wants(SPDY) {
            Ok(Self {
                carrier: Carrier::Spdy,
                protocols: words(headers, &PROTOCOL),
            })
        } else {
            Err("upgrade this request to a WebSocket or to SPDY/3.1")
        }
    }

    fn table(&self, session: &Session) -> &'static [Protocol] {
        match (&self.carrier, session) {
            (Carrier::Spdy, Session::PortForward(_)) => FORWARD_STREAMS,
            (Carrier::Spdy, _) => STREAM_PROTOCOLS,
            (Carrier::WebSocket { .. }, Session::PortForward(_)) => FORWARD_CHANNELS,
            (Carrier::WebSocket { .. }, _) => CHANNEL_PROTOCOLS,
        }
    }

    /// The first protocol of the client that we speak as well.
    fn choose(&self, session: &Session) -> Option<Protocol> {
        let table = self.table(session);
        let find = |name: &str| table.iter().copied().find(|(served, ..)| *served == name);
        match self.protocols.as_slice() {
            [] => find(""),
            protocols => protocols.iter().find_map(|name| find(name)),
        }
    }

    fn served(&self, session: &Session) -> impl Iterator<Item = &'static str> + use<> {
        let names = self.table(session).iter().map(|(name, ..)| *name);
        names.filter(|name| !name.is_empty())
    }

    /// The answer that ends HTTP on the connection.
    fn accept(&self, (name, ..): Protocol) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let (upgrade, protocol) = match &self.carrier {
            Carrier::Spdy => (SPDY, PROTOCOL),
            Carrier::WebSocket { accept } => {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
                ("websocket", header::SEC_WEBSOCKET_PROTOCOL)
            }
        };
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        if !name.is_empty() {
            headers.insert(protocol, HeaderValue::from_static(name));
        }
        response
    }
}

/// The comma-separated words of all headers of a name.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Shared {
    async fn serve<I>(&self, io: I, carrier: &Carrier, protocol: Protocol, session: &Session)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Carrier::WebSocket { .. } = carrier else {
            return self.serve_spdy(io, protocol.1, session).await;
        };
        let config = Some(websocket::config());
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
        let (name, version, codec) = protocol;
        if name == TUNNELLED_PORT_FORWARD {
            return self
                .serve_spdy(websocket::tunnel(socket), version, session)
                .await;
        }
        match session {
            Session::PortForward(forward) => {
                let inputs: Vec<u8> = (0..=254).step_by(2).take(forward.ports.len()).collect();
                let channels = Channels::start(socket, codec, &inputs, self.idle);
                port_forward::serve_channels(channels, forward, &self.backend).await;
            }
            _ => {
                let inputs = remote_command::CLIENT_CHANNELS;
                let channels = Channels::start(socket, codec, inputs, self.idle);
                remote_command::serve_channels(channels, version, session, &*self.backend).await;
            }
        }
    }

    async fn serve_spdy<I>(&self, io: I, version: Version, session: &Session)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        let connection = match spdy::Connection::start(io, self.idle) {
            Ok(connection) => connection,
            Err(err) => return tracing::error!(%err, "no SPDY connection"),
        };
        match session {
            Session::PortForward(forward) => {
                port_forward::serve_spdy(connection, forward, &self.backend).await;
            }
            _ => {
                let backend = &*self.backend;
                let patience = self.creation;
                remote_command::serve_spdy(connection, version, session, backend, patience).await;
            }
        }
    }
}

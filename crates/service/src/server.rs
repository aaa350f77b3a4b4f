//! The server around the gRPC services of one process part.
//!
//! Ports are bound by [`Server::bind`], before anything is served, so that the address is known (port 0
//! works) and a taken port fails the start. The layers around each call, from the outside in:
//!
//! 0. door: an HTTP call becomes the gRPC call that it stands for, and its answer JSON (see [`crate::json`]). Outside of all
//!    others, so that each of them sees one kind of call, and so that the instant at which a call came is noted first;
//! 1. trace: a span under the caller's W3C context, the request id (taken over or made), and the peer of the connection;
//! 2. observe: duration by method and code, calls in hand. Outside of what refuses, so that it counts refusals;
//! 3. panic: a panicking handler answers INTERNAL. Outside of admission, so that its permit goes back;
//! 4. deadline: the lower of the caller's `grpc-timeout` and the service's own limit, counted from the arrival. Outside of all
//!    that waits, since the transport's own timer for `grpc-timeout` must never be over before this one (see its module);
//! 5. identify: who calls, and whether the method is for such callers. Outside of admission: strangers take no permits;
//! 6. admission: at most so many calls at once, the rest is shed at once with OVERLOADED and a hint;
//! 7. names: a caller of one account or team names nothing of others. Reads the body, so inside of permit and deadline;
//! 8. own: what a service reads itself over HTTP gets its path back.
//!
//! Admission and deadline are about the time up to the head of the answer: for a unary call that is all of
//! it, for a stream only its start. Streams end by themselves when `ctx.shutdown` is cancelled.
//! Drain: health says not serving, nothing new is taken, calls in hand get the drain time, then they are cut.

mod health;
mod layers;
mod methods;
pub mod request_id;
mod scrape;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
    transport::server::Router,
};
use tower::layer::util::Stack;

pub use health::Health;
pub(crate) use methods::descriptor_sets;

use self::layers::{Admission, Around, Deadline, Identify, Names, Observe, Own, Panic, Trace};
use crate::{
    Addresses, Context,
    config::{Count, ListenAddress, Millis, Problem, Problems},
    identity::{Gate, IdentityConfig, IdentityOptions, Mode, Sources},
    json::{BindingError, Door, Limits, OwnPaths},
    tls::{self, Broken, Listener, Room, Tls, TlsConfig, TlsOptions},
};

/// HTTP/2 allows at most this much in flight.
const WINDOW_BYTES_MAX: usize = (1 << 31) - 1;

/// Services that every server has.
const PLATFORM_SERVICES: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// The section `[<service>.server]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Where gRPC and HTTP listen.
    pub listen: ListenAddress,
    /// Where `/metrics` and `/healthz` listen, always without TLS.
    pub metrics_listen: ListenAddress,
    /// TLS of `listen`; without a certificate there is none.
    pub tls: TlsOptions,
    /// Listen so without TLS elsewhere than at the loopback.
    pub allow_plaintext: bool,
    /// The longest a unary call may take, in ms; a caller's own deadline may only be earlier.
    pub call_time_max_ms: Millis,
    /// Calls in hand at once; the rest is refused with OVERLOADED.
    pub calls_max: Count,
    /// Connections at once; who connects beyond that is closed.
    pub connections_max: Count,
    /// The largest message taken, in bytes.
    pub message_bytes_max: Count,
    /// Path and query of a call over HTTP, in bytes.
    pub http_target_bytes_max: Count,
    /// Streams (calls) of one connection at once.
    pub connection_streams_max: Count,
    /// A silent connection is asked for a sign of life this often, in ms.
    pub keepalive_interval_ms: Millis,
    /// A connection without a sign of life for this long after being asked is closed, in ms.
    pub keepalive_timeout_ms: Millis,
    /// Bytes in flight of one stream.
    pub stream_window_bytes: Count,
    /// Bytes in flight of one connection.
    pub connection_window_bytes: Count,
    /// How long calls in hand may take after the signal to stop, in ms.
    pub drain_ms: Millis,
    /// Who may call.
    pub identity: IdentityOptions,
}

/// Checked [`ServerOptions`].
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where gRPC and HTTP listen.
    pub listen: SocketAddr,
    /// Where `/metrics` and `/healthz` listen.
    pub metrics_listen: SocketAddr,
    /// TLS of `listen`.
    pub tls: Option<TlsConfig>,
    /// Whether that may be without TLS elsewhere than at the loopback.
    pub allow_plaintext: bool,
    /// The longest a unary call may take.
    pub call_time_max: Duration,
    /// Calls in hand at once.
    pub calls_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// The largest message taken, in bytes: give it to `max_decoding_message_size` of each service.
    pub message_bytes_max: usize,
    /// Path and query of a call over HTTP, in bytes.
    pub http_target_bytes_max: usize,
    /// Streams of one connection at once.
    pub connection_streams_max: u32,
    /// How often a silent connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long an answer to that may take.
    pub keepalive_timeout: Duration,
    /// Bytes in flight of one stream.
    pub stream_window_bytes: u32,
    /// Bytes in flight of one connection.
    pub connection_window_bytes: u32,
    /// How long calls in hand may take after the signal to stop.
    pub drain: Duration,
    /// Who may call.
    pub identity: IdentityConfig,
}

/// Why a server does not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port can not be bound.
    #[error("can not listen at {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates that can not be used.
    #[error("can not serve TLS")]
    Tls(#[from] Broken),
    /// The contracts can not be served by reflection.
    #[error("can not serve the contracts by reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// An annotation of the contracts can not be served over HTTP.
    #[error("can not serve the contracts over HTTP")]
    Http(#[from] BindingError),
    /// The transport failed.
    #[error("gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// Identity is on, and the service gave nobody to ask about keys.
    #[error("identity is on, and nobody knows the keys")]
    NoKeys,
}

/// A bound server that does not serve yet.
pub struct Server {
    config: ServerConfig,
    context: Context,
    grpc: Listener,
    metrics: TcpListener,
    tls: Option<Arc<Tls>>,
    addresses: Addresses,
    routes: RoutesBuilder,
    own: Vec<(OwnPaths, axum::Router)>,
    health: Health,
    names: Vec<&'static str>,
    gate: Option<Gate>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: ListenAddress::ANY_LOOPBACK,
            metrics_listen: ListenAddress::ANY_LOOPBACK,
            tls: TlsOptions::default(),
            allow_plaintext: false,
            call_time_max_ms: Millis::from_millis(30_000),
            calls_max: Count::of(1024),
            connections_max: Count::of(4_096),
            message_bytes_max: Count::of(16 << 20),
            http_target_bytes_max: Count::of(8 << 10),
            connection_streams_max: Count::of(1024),
            keepalive_interval_ms: Millis::from_millis(20_000),
            keepalive_timeout_ms: Millis::from_millis(10_000),
            stream_window_bytes: Count::of(4 << 20),
            connection_window_bytes: Count::of(16 << 20),
            drain_ms: Millis::from_millis(10_000),
            identity: IdentityOptions::default(),
        }
    }
}

impl ServerOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self) -> Result<ServerConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        for (field, bytes) in [
            ("stream_window_bytes", self.stream_window_bytes),
            ("connection_window_bytes", self.connection_window_bytes),
        ] {
            let fits = (65_535..=WINDOW_BYTES_MAX).contains(&bytes.get());
            problems.ensure(fits, field, "is not between 65535 and 2147483647");
        }
        let (listen, metrics_listen) = (self.listen.address(), self.metrics_listen.address());
        problems.ensure(
            listen != metrics_listen || listen.port() == 0,
            "metrics_listen",
            "is the address of listen as well",
        );
        let tls = problems.section("tls", self.tls.validate());
        let has_tls = tls.as_ref().is_none_or(Option::is_some);
        problems.field("listen", tls::may_listen(listen, has_tls, self.allow_plaintext));
        let identity = problems.section("identity", self.identity.validate(listen));
        problems.finish(tls.zip(identity).map(|(tls, identity)| ServerConfig {
            listen,
            metrics_listen,
            tls,
            allow_plaintext: self.allow_plaintext,
            call_time_max: self.call_time_max_ms.duration(),
            calls_max: self.calls_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
            connections_max: self.connections_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
            message_bytes_max: self.message_bytes_max.get(),
            http_target_bytes_max: self.http_target_bytes_max.get(),
            connection_streams_max: self.connection_streams_max.get_u32(),
            keepalive_interval: self.keepalive_interval_ms.duration(),
            keepalive_timeout: self.keepalive_timeout_ms.duration(),
            stream_window_bytes: self.stream_window_bytes.get_u32(),
            connection_window_bytes: self.connection_window_bytes.get_u32(),
            drain: self.drain_ms.duration(),
            identity,
        }))
    }
}

impl ServerConfig {
    /// The files of its TLS, which its own calls to others show as well.
    #[must_use]
    pub fn files(&self) -> Option<&tls::Files> {
        self.tls.as_ref().map(|tls| &tls.files)
    }
}

impl Server {
    /// Binds both ports and reads the certificates; serves nothing yet.
    ///
    /// # Errors
    /// [`ServerError::Bind`] and [`ServerError::Tls`].
    pub async fn bind(config: &ServerConfig, context: &Context) -> Result<Self, ServerError> {
        let (grpc, grpc_address) = listen(config.listen).await?;
        let (metrics, metrics_address) = listen(config.metrics_listen).await?;
        let tls = config.tls.as_ref().map(|tls| Tls::start(tls, context)).transpose()?;
        let is_tls = tls.is_some();
        let meter = context.telemetry.meter();
        Ok(Self {
            config: config.clone(),
            context: context.clone(),
            grpc: Listener::new(grpc, tls.as_ref(), Room::new(config.connections_max, &meter)),
            metrics,
            tls,
            addresses: Addresses { grpc: grpc_address, metrics: metrics_address, is_tls },
            routes: RoutesBuilder::default(),
            own: Vec::new(),
            health: Health::new(),
            names: Vec::new(),
            gate: None,
        })
    }

    /// Lets only callers in whom these sources know, where identity is on.
    #[must_use]
    pub fn identify(mut self, sources: Sources) -> Self {
        if self.config.identity.mode == Mode::On {
            let meter = self.context.telemetry.meter();
            let clock = Arc::clone(&self.context.clock);
            self.gate = Some(Gate::new(&self.config.identity, clock, &meter, sources));
        }
        self
    }

    /// Where it will be reached.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The handle by which a service says that it can not serve for a while.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Adds a gRPC service. Its limit on messages is its own: give it `message_bytes_max`.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Adds paths of HTTP that the service reads itself, in whatever form: `router` has them. Every layer takes a call of them for
    /// one of the method that they stand for.
    #[must_use]
    pub fn add_own(mut self, paths: OwnPaths, router: axum::Router) -> Self {
        self.own.push((paths, router));
        self
    }

    /// Serves until the context's signal to stop, then drains.
    ///
    /// # Errors
    /// [`ServerError::Reflection`], [`ServerError::Http`] and [`ServerError::Transport`].
    pub async fn serve(mut self) -> Result<(), ServerError> {
        if self.config.identity.mode == Mode::On && self.gate.is_none() {
            return Err(ServerError::NoKeys);
        }
        self.add_platform_services().await?;
        let Addresses { grpc, metrics, .. } = self.addresses;
        let service = self.context.telemetry.service();
        tracing::info!(service, grpc.address = %grpc, metrics.address = %metrics, tls = self.tls.is_some(), "serving");
        let stopped = self.context.shutdown.clone();
        if let Some(gate) = &self.gate {
            gate.keep_tokens(stopped.clone());
        }
        let pages = scrape::serve(
            self.metrics,
            self.context.telemetry.clone(),
            self.health.clone(),
            stopped.clone(),
            self.config.drain,
        );
        let limits = Limits {
            target_bytes_max: self.config.http_target_bytes_max,
            body_bytes_max: self.config.message_bytes_max,
        };
        let (own, routers): (Vec<_>, Vec<_>) = self.own.into_iter().unzip();
        let door = Door::new(&self.names, own, limits)?;
        let mut routes = self.routes.routes();
        for own in routers {
            let merged = std::mem::take(routes.axum_router_mut()).merge(own);
            *routes.axum_router_mut() = merged;
        }
        let router = router(&self.config, &self.context, (door, self.gate), routes);
        let health = self.health.clone();
        let signal = stopped.clone();
        let calls = router.serve_with_incoming_shutdown(self.grpc, async move {
            signal.cancelled().await;
            health.drain().await;
        });
        self.context.announce(self.addresses);
        let cut = async {
            stopped.cancelled().await;
            tokio::time::sleep(self.config.drain).await;
        };
        let served = tokio::select! {
            (served, ()) = async { tokio::join!(calls, pages) } => served,
            () = cut => {
                tracing::warn!(service, drain_ms = %self.config.drain.as_millis(), "calls in hand were cut");
                Ok(())
            }
        };
        tracing::info!(service, "stopped");
        served.map_err(ServerError::from)
    }

    async fn add_platform_services(&mut self) -> Result<(), ServerError> {
        // Only what is served here is listed, though all contracts can be read.
        let contracts = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(drawdown_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let names = self.names.iter().chain(&PLATFORM_SERVICES);
            names.fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let (v1, v1alpha) = (contracts().build_v1()?, contracts().build_v1alpha()?);
        self.routes.add_service(v1);
        self.routes.add_service(v1alpha);
        self.routes.add_service(self.health.service());
        self.health.start(&self.names).await;
        Ok(())
    }
}

type Outer = Stack<
    Around<Panic>,
    Stack<Around<Observe>, Stack<Around<Trace>, Stack<Around<Door>, tower::layer::util::Identity>>>,
>;
type Inner<S> = Stack<Around<Own>, Stack<Around<Names>, Stack<Around<Admission>, S>>>;
type Layers = Inner<Stack<Around<Identify>, Stack<Around<Deadline>, Outer>>>;

fn router(
    config: &ServerConfig,
    context: &Context,
    (door, gate): (Door, Option<Gate>),
    routes: Routes,
) -> Router<Layers> {
    let methods = Arc::new(methods::known());
    let meter = context.telemetry.meter();
    tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_concurrent_streams(config.connection_streams_max)
        .layer(Around::by(door))
        .layer(Around::by(Trace))
        .layer(Around::by(Observe::new(&meter, methods)))
        .layer(Around::by(Panic))
        .layer(Around::by(Deadline::at_most(config.call_time_max)))
        .layer(Around::by(Identify::by(gate.clone())))
        .layer(Around::by(Admission::new(config.calls_max, &meter)))
        .layer(Around::by(Names::new(gate, config.message_bytes_max)))
        .layer(Around::by(Own))
        .add_routes(routes)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind.await.map_err(|source| ServerError::Bind { address, source })
}

#[cfg(test)]
mod tests;

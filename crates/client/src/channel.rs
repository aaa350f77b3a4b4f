//! Channels to the services: lazy, kept alive over HTTP/2, with a deadline and the trace context on
//! every call.
//!
//! Shape: one [`Channel`] per service and process, cloned for every client; a clone shares the one
//! connection. Making one costs no round trip, so a service starts while its peers are down.
//! The deadline is sent as `grpc-timeout` (the peer gives up when the caller does) and bounds the call
//! here too. A long stream must not carry one: it takes [`Channel::streaming`].
//!
//! An `https` address is reached by TLS 1.3 with the files of [`TlsOptions`], which are looked at again for each new
//! connection: a rotation needs no restart, and a connection that is there stays. `http` is for the loopback, and for
//! elsewhere only where that is allowed by name.

mod cells;
mod secure;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawdown_tls::{Broken, Files, Name};

use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Endpoint, Uri},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::key::{self, KeyFile, KeyText, KeyTextError, Source};

pub use cells::CellOptions;

/// The largest message that a client of this crate takes or sends, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The longest time that an option here may ask for, in ms: a day.
const DURATION_MS_MAX: u64 = 86_400_000;

/// How to reach a service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelOptions {
    /// Address such as `http://127.0.0.1:7402` or `https://ledger.example:7402`.
    pub endpoint: String,
    /// How an `https` address is reached.
    pub tls: TlsOptions,
    /// A file with the API key or the token that calls carry, read again as it changes; empty to carry none.
    pub api_key_file: PathBuf,
    /// Calls without TLS to elsewhere than the loopback.
    pub allow_plaintext: bool,
    /// How long to wait for a connection, in ms.
    pub connect_timeout_ms: u64,
    /// How long one unary call may take, in ms.
    pub request_timeout_ms: u64,
    /// How often an HTTP/2 ping asks whether the peer is there, in ms.
    pub keepalive_interval_ms: u64,
    /// How long the answer to that ping may take, in ms.
    pub keepalive_timeout_ms: u64,
    /// Most calls under way at once on this channel; more of them wait.
    pub concurrency_max: usize,
}

/// The files of the side that connects, in PEM, and who is expected at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// Certificates of the authorities that are trusted.
    pub trust_bundle: PathBuf,
    /// The own certificate, then the ones between it and its authority; empty to have none.
    pub certificate: PathBuf,
    /// The key of the own certificate.
    pub key: PathBuf,
    /// The name that the other end's certificate must have, the NAME of `drawdown://NAME`, beside the host of the address;
    /// empty where the host is enough.
    pub peer: String,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: TlsOptions::default(),
            api_key_file: PathBuf::new(),
            allow_plaintext: false,
            connect_timeout_ms: 2_000,
            request_timeout_ms: 10_000,
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 5_000,
            concurrency_max: 1_024,
        }
    }
}

/// One option that can not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionProblem {
    /// The option's name.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for OptionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Options that can not be used, all of them at once.
    #[error("channel options can not be used: {}", listed(.0))]
    Options(Vec<OptionProblem>),
    /// Certificates that can not be used.
    #[error("certificates can not be used")]
    Tls(#[from] Broken),
    /// A file that holds no API key.
    #[error("{} holds no API key", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        problem: KeyTextError,
    },
}

fn listed(problems: &[OptionProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ChannelOptions {
    /// Defaults for `endpoint`.
    #[must_use]
    pub fn to(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..Self::default() }
    }

    /// Everything that is wrong with these options; empty when they can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<OptionProblem> {
        let mut problems = Vec::new();
        match self.parsed_endpoint() {
            Err(problem) => problems.push(OptionProblem { field: "endpoint", problem }),
            Ok(endpoint) => problems.extend(self.transport_problems(endpoint.uri())),
        }
        for (field, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
        ] {
            if value == 0 || value > DURATION_MS_MAX {
                let problem = format!("is {value}, must lie between 1 and {DURATION_MS_MAX}");
                problems.push(OptionProblem { field, problem });
            }
        }
        if self.concurrency_max == 0 {
            let problem = "is 0, must be at least 1".to_owned();
            problems.push(OptionProblem { field: "concurrency_max", problem });
        }
        problems
    }

    /// Takes the files of the service that calls, where the address is `https` and no file is named here: a service shows
    /// the same certificate when it calls as when it is called.
    #[must_use]
    pub fn or_files(mut self, files: Option<&Files>) -> Self {
        let own = [&self.tls.trust_bundle, &self.tls.certificate, &self.tls.key];
        let has_none = own.iter().all(|path| path.as_os_str().is_empty());
        if let Some(files) = files
            && has_none
            && self.endpoint.starts_with("https://")
        {
            self.tls.trust_bundle = files.trust_bundle.clone().unwrap_or_default();
            self.tls.certificate = files.certificate.clone().unwrap_or_default();
            self.tls.key = files.key.clone().unwrap_or_default();
        }
        self
    }

    fn transport_problems(&self, uri: &Uri) -> Vec<OptionProblem> {
        let mut problems = self.tls.problems();
        let mut wrong = |field, problem: &str| {
            problems.push(OptionProblem { field, problem: problem.to_owned() });
        };
        if is_https(uri) {
            if self.tls.trust_bundle.as_os_str().is_empty() {
                wrong("tls.trust_bundle", "has to be set for an https address");
            }
        } else {
            // who has certificates means to use them: a slip in the address must not send anything in the clear
            if self.tls != TlsOptions::default() {
                wrong("endpoint", "is http, although tls is set: use https");
            }
            if !self.allow_plaintext && !secure::is_loopback(uri) {
                wrong("endpoint", "is http and not the loopback: use https, or allow_plaintext = true");
            }
        }
        problems
    }

    fn parsed_endpoint(&self) -> Result<Endpoint, String> {
        let rule = "must be an address such as http://127.0.0.1:7402";
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .map_err(|_| format!("{:?} {rule}", self.endpoint))?;
        let uri = endpoint.uri();
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(format!("{:?} {rule}", self.endpoint));
        }
        Ok(endpoint)
    }
}

impl TlsOptions {
    fn problems(&self) -> Vec<OptionProblem> {
        let mut problems = Vec::new();
        if self.certificate.as_os_str().is_empty() != self.key.as_os_str().is_empty() {
            let problem = "has to be set with the other of certificate and key".to_owned();
            problems.push(OptionProblem { field: "tls.key", problem });
        }
        if !self.peer.is_empty()
            && let Err(error) = Name::new(&self.peer)
        {
            problems.push(OptionProblem { field: "tls.peer", problem: error.to_string() });
        }
        problems
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Makes a channel. It connects when the first call needs it and again whenever the connection is lost.
///
/// # Errors
/// [`ChannelError::Options`] with everything that is wrong with `options`.
pub fn connect(options: &ChannelOptions) -> Result<Channel, ChannelError> {
    let problems = options.problems();
    let endpoint = match options.parsed_endpoint() {
        Ok(endpoint) if problems.is_empty() => endpoint,
        _ => return Err(ChannelError::Options(problems)),
    };
    let transport = endpoint
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .http2_keep_alive_interval(Duration::from_millis(options.keepalive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(options.keepalive_timeout_ms))
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .tcp_nodelay(true)
        .concurrency_limit(options.concurrency_max);
    let transport = if is_https(transport.uri()) {
        let secure = secure::Secure::new(transport.uri(), &options.tls)?;
        transport.connect_with_connector_lazy(secure)
    } else {
        transport.connect_lazy()
    };
    let key = match options.api_key_file.as_os_str().is_empty() {
        true => None,
        false => Some(key_of(&options.api_key_file)?),
    };
    Ok(Channel { transport, deadline: Duration::from_millis(options.request_timeout_ms), key })
}

fn key_of(path: &Path) -> Result<Source, ChannelError> {
    let file = KeyFile::new(path).map_err(|problem| ChannelError::Key { path: path.to_owned(), problem })?;
    Ok(Source::File(Arc::new(file)))
}

/// A channel to one service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel {
    transport: tonic::transport::Channel,
    deadline: Duration,
    /// What calls carry to say who calls; its `Debug` does not show it.
    key: Option<Source>,
}

/// What the generated clients are built over.
pub type Transport = InterceptedService<tonic::transport::Channel, Outgoing>;

impl Channel {
    /// Around a transport that is there already, such as a pipe in a test.
    #[must_use]
    pub const fn from_transport(transport: tonic::transport::Channel, deadline: Duration) -> Self {
        Self { transport, deadline, key: None }
    }

    /// With an API key or a token on every call; without one it stays as it is.
    #[must_use]
    pub fn with_key(mut self, key: Option<&KeyText>) -> Self {
        if let Some(key) = key {
            self.key = key.header().map(Source::Given);
        }
        self
    }

    fn outgoing(&self, deadline: Option<Duration>) -> Transport {
        InterceptedService::new(self.transport.clone(), Outgoing { deadline, key: self.key.clone() })
    }

    /// For unary calls: each carries the deadline, unless the request names its own.
    #[must_use]
    pub fn unary(&self) -> Transport {
        self.outgoing(Some(self.deadline))
    }

    /// How long one unary call may take.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// For long streams: no deadline.
    #[must_use]
    pub fn streaming(&self) -> Transport {
        self.outgoing(None)
    }
}

/// Puts the deadline, the trace context of the current span and the API key on a call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    deadline: Option<Duration>,
    key: Option<Source>,
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(deadline) = self.deadline
            && !request.metadata().contains_key("grpc-timeout")
        {
            request.set_timeout(deadline);
        }
        if let Some(key) = &self.key {
            request.metadata_mut().insert(key::HEADER, key.header());
        }
        let context = tracing::Span::current().context();
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Carrier(request.metadata_mut()));
        });
        Ok(request)
    }
}

struct Carrier<'a>(&'a mut MetadataMap);

impl opentelemetry::propagation::Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value.as_str()))
        {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(options: &ChannelOptions) -> Vec<&'static str> {
        options.problems().iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn every_wrong_option_is_named_at_once() {
        assert!(fields(&ChannelOptions::to("http://127.0.0.1:7402")).is_empty());
        for endpoint in ["", "127.0.0.1:7402", "ftp://ledger:7402", "http://", "not an address", "file:///x"]
        {
            assert_eq!(fields(&ChannelOptions::to(endpoint)), ["endpoint"], "{endpoint}");
        }
        let options = ChannelOptions {
            connect_timeout_ms: 0,
            request_timeout_ms: u64::MAX,
            concurrency_max: 0,
            ..ChannelOptions::default()
        };
        let wrong = ["endpoint", "connect_timeout_ms", "request_timeout_ms", "concurrency_max"];
        assert_eq!(fields(&options), wrong);
        assert!(matches!(connect(&options), Err(ChannelError::Options(problems)) if problems.len() == 4));
    }

    #[test]
    fn without_tls_only_the_loopback_is_called() {
        for loopback in ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1", "http://localhost:1"] {
            assert!(fields(&ChannelOptions::to(loopback)).is_empty(), "{loopback}");
        }
        for elsewhere in
            ["http://ledger:1", "http://10.0.0.1:1", "http://[::2]:1", "http://localhost.example:1"]
        {
            assert_eq!(fields(&ChannelOptions::to(elsewhere)), ["endpoint"], "{elsewhere}");
            let allowed = ChannelOptions { allow_plaintext: true, ..ChannelOptions::to(elsewhere) };
            assert!(fields(&allowed).is_empty(), "{elsewhere}");
        }
    }

    #[test]
    fn tls_needs_what_it_needs_and_is_never_left_out() {
        let with = |endpoint: &str, tls: TlsOptions| ChannelOptions { tls, ..ChannelOptions::to(endpoint) };
        let files = || TlsOptions {
            trust_bundle: "t".into(),
            certificate: "c".into(),
            key: "k".into(),
            peer: String::new(),
        };
        assert_eq!(fields(&ChannelOptions::to("https://ledger:1")), ["tls.trust_bundle"]);
        assert!(fields(&with("https://ledger:1", files())).is_empty());
        let half = TlsOptions { key: PathBuf::new(), peer: "Ledger".to_owned(), ..files() };
        assert_eq!(fields(&with("https://ledger:1", half)), ["tls.key", "tls.peer"]);
        assert_eq!(fields(&with("http://127.0.0.1:1", files())), ["endpoint"]);
        let missing = connect(&with("https://ledger:1", files()));
        assert!(matches!(missing, Err(ChannelError::Tls(Broken::Unreadable { .. }))), "{missing:?}");
    }

    #[test]
    fn the_files_of_the_service_are_taken_where_none_is_named() {
        let files =
            Files { trust_bundle: Some("t".into()), certificate: Some("c".into()), key: Some("k".into()) };
        let taken = ChannelOptions::to("https://ledger:1").or_files(Some(&files));
        assert_eq!((fields(&taken), taken.tls.key), (vec![], PathBuf::from("k")));
        let plain = ChannelOptions::to("http://127.0.0.1:1");
        assert_eq!(plain.clone().or_files(Some(&files)), plain);
        let tls = TlsOptions { trust_bundle: "mine".into(), ..TlsOptions::default() };
        let own = ChannelOptions { tls, ..ChannelOptions::to("https://ledger:1") };
        assert_eq!(own.clone().or_files(Some(&files)), own);
    }

    #[tokio::test]
    async fn a_channel_is_made_while_its_peer_is_down() {
        assert!(connect(&ChannelOptions::to("http://127.0.0.1:1")).is_ok());
    }

    #[test]
    fn a_call_carries_the_deadline_unless_it_has_its_own() {
        let timeout = |request: Request<()>| {
            let mut unary = Outgoing { deadline: Some(Duration::from_secs(10)), key: None };
            let request = unary.call(request).unwrap();
            request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(timeout(Request::new(())), Some("10000000u".to_owned()));
        let mut own = Request::new(());
        own.set_timeout(Duration::from_secs(1));
        assert_eq!(timeout(own), Some("1000000u".to_owned()));
        let streamed = Outgoing { deadline: None, key: None }.call(Request::new(())).unwrap();
        assert!(!streamed.metadata().contains_key("grpc-timeout"));
    }

    #[tokio::test]
    async fn a_channel_has_its_key_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let api_key_file = folder.path().join("key");
        let options = ChannelOptions { api_key_file, ..ChannelOptions::to("http://127.0.0.1:1") };
        assert!(matches!(connect(&options), Err(ChannelError::Key { .. })));
        std::fs::write(&options.api_key_file, "drawdown_key").unwrap();
        let channel = connect(&options).unwrap();
        let mut outgoing = Outgoing { deadline: None, key: channel.key };
        let request = outgoing.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get(key::HEADER).unwrap(), "Bearer drawdown_key");
    }

    #[tokio::test]
    async fn a_key_goes_with_every_call_and_is_never_printed() {
        let key = KeyText::new("drawdown_key").unwrap();
        let channel = connect(&ChannelOptions::to("http://127.0.0.1:1")).unwrap().with_key(Some(&key));
        let mut outgoing = Outgoing { deadline: None, key: channel.key.clone() };
        let request = outgoing.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get(key::HEADER).unwrap(), "Bearer drawdown_key");
        for shown in [format!("{channel:?}"), format!("{outgoing:?}"), format!("{request:?}")] {
            assert!(!shown.contains("drawdown_key"), "{shown}");
        }
    }
}

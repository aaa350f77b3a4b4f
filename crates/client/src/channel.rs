//! Channels to the services: lazy, kept alive over HTTP/2, with a deadline and the trace context on
//! every call.
//!
//! Shape: one [`Channel`] per service and process, cloned for every client; a clone shares the one
//! connection. Making one costs no round trip, so a service starts while its peers are down.
//! The deadline is sent as `grpc-timeout` (the peer gives up when the caller does) and bounds the call
//! here too. A long stream must not carry one: it takes [`Channel::streaming`].

use std::{fmt, time::Duration};

use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Endpoint,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The largest message that a client of this crate takes or sends, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The longest time that an option here may ask for, in ms: a day.
const DURATION_MS_MAX: u64 = 86_400_000;

/// How to reach a service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelOptions {
    /// Address such as `http://127.0.0.1:7402`.
    pub endpoint: String,
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

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
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
        if let Err(problem) = self.parsed_endpoint() {
            problems.push(OptionProblem { field: "endpoint", problem });
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

    fn parsed_endpoint(&self) -> Result<Endpoint, String> {
        let rule = "must be an address such as http://127.0.0.1:7402";
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .map_err(|_| format!("{:?} {rule}", self.endpoint))?;
        let uri = endpoint.uri();
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
            return Err(format!("{:?} {rule}", self.endpoint));
        }
        Ok(endpoint)
    }
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
        .concurrency_limit(options.concurrency_max)
        .connect_lazy();
    Ok(Channel { transport, deadline: Duration::from_millis(options.request_timeout_ms) })
}

/// A channel to one service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel {
    transport: tonic::transport::Channel,
    deadline: Duration,
}

/// What the generated clients are built over.
pub type Transport = InterceptedService<tonic::transport::Channel, Outgoing>;

impl Channel {
    /// Around a transport that is there already, such as a pipe in a test.
    #[must_use]
    pub const fn from_transport(transport: tonic::transport::Channel, deadline: Duration) -> Self {
        Self { transport, deadline }
    }

    /// For unary calls: each carries the deadline, unless the request names its own.
    #[must_use]
    pub fn unary(&self) -> Transport {
        InterceptedService::new(self.transport.clone(), Outgoing { deadline: Some(self.deadline) })
    }

    /// How long one unary call may take.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// For long streams: no deadline.
    #[must_use]
    pub fn streaming(&self) -> Transport {
        InterceptedService::new(self.transport.clone(), Outgoing { deadline: None })
    }
}

/// Puts the deadline and the trace context of the current span on a call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    deadline: Option<Duration>,
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(deadline) = self.deadline
            && !request.metadata().contains_key("grpc-timeout")
        {
            request.set_timeout(deadline);
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
        for endpoint in
            ["", "127.0.0.1:7402", "https://ledger:7402", "http://", "not an address", "file:///x"]
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

    #[tokio::test]
    async fn a_channel_is_made_while_its_peer_is_down() {
        assert!(connect(&ChannelOptions::to("http://127.0.0.1:1")).is_ok());
    }

    #[test]
    fn a_call_carries_the_deadline_unless_it_has_its_own() {
        let timeout = |request: Request<()>| {
            let mut unary = Outgoing { deadline: Some(Duration::from_secs(10)) };
            let request = unary.call(request).unwrap();
            request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(timeout(Request::new(())), Some("10000000u".to_owned()));
        let mut own = Request::new(());
        own.set_timeout(Duration::from_secs(1));
        assert_eq!(timeout(own), Some("1000000u".to_owned()));
        let streamed = Outgoing { deadline: None }.call(Request::new(())).unwrap();
        assert!(!streamed.metadata().contains_key("grpc-timeout"));
    }
}

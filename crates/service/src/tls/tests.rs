//! Real handshakes against a real server, each side with files on disk.

mod refusals;
mod rotation;

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use drawdown_proto::entitlement::v1::{
    BatchResolveRequest, BatchResolveResponse, ResolveRequest, ResolveResponse,
    resolution_service_client::ResolutionServiceClient,
    resolution_service_server::{ResolutionService, ResolutionServiceServer},
};
use drawdown_tls::{
    ALPN_HTTP1, ALPN_HTTP2, Connector, Files,
    issue::{Authority, Profile},
};
use drawdown_types::SystemClock;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request as Call, Response as Answer, Status, transport::Channel};

use super::*;
use crate::{
    Addresses, Context, Server, Telemetry,
    config::{Count, Millis},
    json::OwnPaths,
    server::{ServerError, ServerOptions},
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Answers with the name of who calls.
struct WhoCalls;

#[tonic::async_trait]
impl ResolutionService for WhoCalls {
    async fn resolve(&self, call: Call<ResolveRequest>) -> Result<Answer<ResolveResponse>, Status> {
        let peer = call.extensions().get::<Peer>();
        let mut answer = Answer::new(ResolveResponse::default());
        let name = peer.map_or("nobody", |peer| peer.name.as_str());
        answer.metadata_mut().insert("peer", name.parse().unwrap());
        Ok(answer)
    }

    async fn batch_resolve(
        &self,
        _: Call<BatchResolveRequest>,
    ) -> Result<Answer<BatchResolveResponse>, Status> {
        Ok(Answer::new(BatchResolveResponse::default()))
    }
}

async fn who_calls(peer: Option<Extension<Peer>>) -> String {
    peer.map_or_else(|| "nobody".to_owned(), |peer| peer.name.to_string())
}

/// What the server reads itself over HTTP.
const WHO: OwnPaths =
    OwnPaths { paths: &["/who"], stand_for: "/drawdown.entitlement.v1.ResolutionService/BatchResolve" };

/// A server, an authority that it trusts, and files for both sides.
struct Rig {
    dir: tempfile::TempDir,
    authority: Authority,
    telemetry: Telemetry,
    addresses: Addresses,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), ServerError>>,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut TlsOptions)) -> Self {
        Self::of(|options| change(&mut options.tls)).await
    }

    async fn of(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours").unwrap();
        let files = write(dir.path(), "server", &authority, &Profile::service("ledger"));
        std::fs::write(dir.path().join("bundle.pem"), authority.certificate_pem()).unwrap();
        let tls = TlsOptions {
            certificate: files.certificate.unwrap(),
            key: files.key.unwrap(),
            trust_bundle: dir.path().join("bundle.pem"),
            reload_interval_ms: Millis::from_millis(5),
            ..TlsOptions::default()
        };
        let mut options = ServerOptions { tls, ..ServerOptions::default() };
        change(&mut options);
        let telemetry = Telemetry::detached("entitlement").unwrap();
        let shutdown = CancellationToken::new();
        let (context, mut bound) = Context::new(telemetry.clone(), Arc::new(SystemClock), shutdown.clone());
        let server = Server::bind(&options.validate().unwrap(), &context).await.unwrap();
        let server = server.add_service(ResolutionServiceServer::new(WhoCalls));
        let server = server.add_own(WHO, Router::new().route("/who", get(who_calls)));
        let served = tokio::spawn(server.serve());
        let addresses = bound.wait().await.unwrap();
        Self { dir, authority, telemetry, addresses, shutdown, served }
    }

    /// Files of a client that trusts the server.
    fn client(&self, authority: &Authority, profile: &Profile) -> Files {
        let files = write(self.dir.path(), &profile.common_name, authority, profile);
        Files { trust_bundle: Some(self.dir.path().join("bundle.pem")), ..files }
    }

    fn nobody(&self) -> Files {
        Files { trust_bundle: Some(self.dir.path().join("bundle.pem")), ..Files::default() }
    }

    /// A new connection and a call by it: the name that the server knows the caller by.
    async fn call(&self, files: Files) -> Result<String, Status> {
        who(self.channel(connector(files, "127.0.0.1")).await?).await
    }

    async fn channel(&self, connector: Connector) -> Result<Channel, Status> {
        let address = self.addresses.grpc;
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let stream = connector.connect(stream).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Channel::from_static("https://server");
        endpoint
            .connect_with_connector(connect)
            .await
            .map_err(|error| Status::unavailable(crate::refusal::chain(&anyhow::Error::from(error))))
    }

    /// Asks over HTTP/1.1.
    async fn get(&self, path: &str, files: Files) -> String {
        let connector = Connector::new(files, "localhost".try_into().unwrap(), None, &[ALPN_HTTP1]).unwrap();
        let stream = TcpStream::connect(self.addresses.grpc).await.unwrap();
        let mut stream = connector.connect(stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    /// The name that the server knows the caller by: of a read as JSON, and of what the service reads itself.
    async fn who_over_http(&self, files: Files) -> [String; 2] {
        let read = self.get("/v1/clients/any:resolve", files.clone()).await;
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{}");
        let named = head.lines().find_map(|line| line.strip_prefix("peer: ")).unwrap();
        let own = self.get(WHO.paths[0], files).await;
        let (_, own) = own.split_once("\r\n\r\n").unwrap();
        [named.to_owned(), own.to_owned()]
    }

    /// What the scrape page says of this instrument.
    fn figure(&self, line: &str) -> f64 {
        let page = self.telemetry.scrape().unwrap();
        let found = page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {page}"))
    }

    fn failed(&self, reason: &str) -> f64 {
        self.figure(&format!("drawdown_tls_handshake_failed_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until so many handshakes ended for this reason, and for no other.
    async fn counts(&self, reason: &str, times: f64) {
        until(|| self.failed(reason) >= times).await;
        let all: f64 = self
            .telemetry
            .scrape()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("drawdown_tls_handshake_failed_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert!((all - times).abs() < f64::EPSILON, "{reason}: {all} in all");
    }
}

/// Waits for what another task does.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it does not happen");
}

fn connector(files: Files, host: &'static str) -> Connector {
    Connector::new(files, host.try_into().unwrap(), None, &[ALPN_HTTP2]).unwrap()
}

async fn who(channel: Channel) -> Result<String, Status> {
    let answer = ResolutionServiceClient::new(channel).resolve(ResolveRequest::default()).await?;
    Ok(answer.metadata().get("peer").unwrap().to_str().unwrap().to_owned())
}

/// Certificate and key on disk.
fn write(dir: &Path, name: &str, authority: &Authority, profile: &Profile) -> Files {
    let issued = authority.issue(profile).unwrap();
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    std::fs::write(&certificate, issued.certificate_pem()).unwrap();
    std::fs::write(&key, issued.key_pem()).unwrap();
    Files { trust_bundle: None, certificate: Some(certificate), key: Some(key) }
}

#[tokio::test]
async fn a_verified_caller_is_known_by_name_whatever_it_speaks() {
    let rig = Rig::new().await;
    let metering = rig.client(&rig.authority, &Profile::client("metering"));
    assert_eq!(rig.call(metering.clone()).await.unwrap(), "metering");
    assert_eq!(rig.who_over_http(metering).await, ["metering", "metering"]);
    let remaining = rig.figure("drawdown_tls_certificate_remaining_seconds");
    assert!((29.0 * 86_400.0..30.0 * 86_400.0 + 1.0).contains(&remaining), "{remaining}");
    assert!(rig.figure("drawdown_tls_handshake_duration_seconds_count") > 1.5);
}

#[tokio::test]
async fn without_a_certificate_a_caller_is_nobody_where_that_is_allowed() {
    for certificates in [ClientCertificates::Optional, ClientCertificates::None] {
        let rig = Rig::with(|options| options.client_certificates = certificates).await;
        assert_eq!(rig.call(rig.nobody()).await.unwrap(), "nobody");
        assert_eq!(rig.who_over_http(rig.nobody()).await, ["nobody", "nobody"]);
    }
}

#[tokio::test]
async fn a_stop_ends_the_port() {
    let rig = Rig::new().await;
    rig.shutdown.cancel();
    rig.served.await.unwrap().unwrap();
    let closed = async { while TcpStream::connect(rig.addresses.grpc).await.is_ok() {} };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}

#[tokio::test]
async fn files_that_are_of_no_use_are_told_before_anything_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let tls = TlsOptions {
        certificate: path("none"),
        key: path("none"),
        trust_bundle: path("none"),
        ..TlsOptions::default()
    };
    let options = ServerOptions { tls, ..ServerOptions::default() };
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let (context, _bound) = Context::new(telemetry, Arc::new(SystemClock), CancellationToken::new());
    let refused = Server::bind(&options.validate().unwrap(), &context).await;
    assert!(matches!(refused, Err(ServerError::Tls(Broken::Unreadable { .. }))));
}

#[test]
fn only_the_loopback_is_listened_at_without_tls() {
    let listening = |listen: &str, allow_plaintext: bool, tls: TlsOptions| {
        let listen = listen.to_owned().try_into().unwrap();
        let mut options = ServerOptions { listen, allow_plaintext, tls, ..ServerOptions::default() };
        options.identity.off_beyond_loopback = true;
        let problems = options.validate().err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
    };
    let with = || TlsOptions {
        certificate: "c".into(),
        key: "k".into(),
        trust_bundle: "t".into(),
        ..TlsOptions::default()
    };
    for loopback in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1"] {
        assert!(listening(loopback, false, TlsOptions::default()).is_empty());
    }
    for elsewhere in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(listening(elsewhere, false, TlsOptions::default()), ["listen"], "{elsewhere}");
        assert!(listening(elsewhere, true, TlsOptions::default()).is_empty());
        assert!(listening(elsewhere, false, with()).is_empty());
    }
    let half = TlsOptions { certificate: "c".into(), ..TlsOptions::default() };
    assert_eq!(listening("0.0.0.0:1", false, half), ["tls.key", "tls.trust_bundle"]);
    let unasked = TlsOptions {
        trust_bundle: "".into(),
        client_certificates: ClientCertificates::None,
        handshakes_max: Count::of(1),
        ..with()
    };
    assert!(listening("0.0.0.0:1", false, unasked).is_empty());
}

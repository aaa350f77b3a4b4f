mod identity;
mod matrix;

use std::{sync::Arc, time::Duration};

use drawdown_proto::entitlement::v1::{
    BatchResolveRequest, BatchResolveResponse, ClientInstant, ResolveRequest, ResolveResponse,
    resolution_service_client::ResolutionServiceClient,
    resolution_service_server::{ResolutionService, ResolutionServiceServer},
};
use drawdown_types::SystemClock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request as Call, Response as Answer, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use super::*;
use crate::{Telemetry, reason, refusal};

mod http;

/// Does what its client id asks for.
struct Scripted {
    entered: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

#[tonic::async_trait]
impl ResolutionService for Scripted {
    async fn resolve(&self, call: Call<ResolveRequest>) -> Result<Answer<ResolveResponse>, Status> {
        let client = call.into_inner().query.unwrap_or_default().client_id;
        match client.as_str() {
            "panic" => panic!("on purpose"),
            "fail" => Err(refusal::internal(anyhow::anyhow!("secret"))),
            "wait" => {
                self.entered.add_permits(1);
                self.go_on.acquire().await.unwrap().forget();
                Ok(Answer::new(ResolveResponse::default()))
            }
            _ => Ok(Answer::new(ResolveResponse::default())),
        }
    }

    async fn batch_resolve(
        &self,
        _: Call<BatchResolveRequest>,
    ) -> Result<Answer<BatchResolveResponse>, Status> {
        Ok(Answer::new(BatchResolveResponse::default()))
    }
}

/// A running server and a client of it.
struct Running {
    client: ResolutionServiceClient<Channel>,
    channel: Channel,
    addresses: Addresses,
    shutdown: CancellationToken,
    entered: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
    served: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::start(change, |server| server).await
    }

    /// With further services.
    async fn of(add: impl FnOnce(Server) -> Server) -> Self {
        Self::start(|_| {}, add).await
    }

    async fn start(change: impl FnOnce(&mut ServerOptions), add: impl FnOnce(Server) -> Server) -> Self {
        let mut options = ServerOptions::default();
        change(&mut options);
        let shutdown = CancellationToken::new();
        let telemetry = Telemetry::detached("entitlement").unwrap();
        let (context, mut bound) = Context::new(telemetry, Arc::new(SystemClock), shutdown.clone());
        let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let scripted = Scripted { entered: entered.clone(), go_on: go_on.clone() };
        let server = Server::bind(&options.validate().unwrap(), &context).await.unwrap();
        let server = add(server.add_service(ResolutionServiceServer::new(scripted)));
        let served = tokio::spawn(server.serve());
        let addresses = bound.wait().await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", addresses.grpc)).unwrap().connect_lazy();
        let client = ResolutionServiceClient::new(channel.clone());
        Self { client, channel, addresses, shutdown, entered, go_on, served }
    }

    async fn call(&self, client_id: &str) -> Result<Answer<ResolveResponse>, Status> {
        let query = Some(ClientInstant { client_id: client_id.to_owned(), at: None });
        self.client.clone().resolve(ResolveRequest { query }).await
    }

    /// Starts a call that waits inside the handler.
    async fn hold(&self) -> JoinHandle<Result<Answer<ResolveResponse>, Status>> {
        let mut client = self.client.clone();
        let call = tokio::spawn(async move {
            let query = Some(ClientInstant { client_id: "wait".to_owned(), at: None });
            client.resolve(ResolveRequest { query }).await
        });
        self.entered.acquire().await.unwrap().forget();
        call
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addresses.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    async fn reflect(&self, request: MessageRequest) -> MessageResponse {
        let ask = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let mut answers =
            client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    }

    async fn health(&self, service: &str) -> Result<i32, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(self.channel.clone()).check(request).await.map(|answer| answer.into_inner().status)
    }
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn connections_without_tls_are_bounded_too() {
    let running = Running::with(|options| options.connections_max = Count::of(2)).await;
    running.call("x").await.unwrap();
    let silent = TcpStream::connect(running.addresses.grpc).await.unwrap();
    let mut rest = Vec::new();
    let mut third = TcpStream::connect(running.addresses.grpc).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(20), third.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it stays open");
    running.call("x").await.unwrap();
    drop(silent);
    let next = async {
        loop {
            let mut stream = TcpStream::connect(running.addresses.grpc).await.unwrap();
            let (mut answer, ask) = ([0; 8], b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n");
            let answered = async {
                stream.write_all(ask).await?;
                stream.read_exact(&mut answer).await
            };
            if answered.await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), next).await.unwrap();
}

#[tokio::test]
async fn calls_are_answered_and_counted_by_method_and_code() {
    let running = Running::with(|_| {}).await;
    let answer = running.call("any").await.unwrap();
    assert_eq!(answer.metadata().get(request_id::HEADER).map(|id| id.len()), Some(32));
    running.call("fail").await.unwrap_err();
    let page = running.get("/metrics").await;
    for code in ["Ok", "Internal"] {
        let labels = format!(
            "code=\"{code}\",rpc_method=\"Resolve\",rpc_service=\"drawdown.entitlement.v1.ResolutionService\""
        );
        assert!(
            page.contains(&format!("drawdown_rpc_server_duration_seconds_count{{{labels}}} 1")),
            "{page}"
        );
    }
    assert!(page.contains("drawdown_rpc_server_shed_total 0"), "{page}");
}

#[tokio::test]
async fn the_callers_request_id_is_taken_over() {
    let running = Running::with(|_| {}).await;
    let query = Some(ClientInstant { client_id: "fail".to_owned(), at: None });
    let mut call = Call::new(ResolveRequest { query });
    call.metadata_mut().insert(request_id::HEADER, "mine-1".parse().unwrap());
    let status = running.client.clone().resolve(call).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata.get("request_id").map(String::as_str), Some("mine-1"));
    assert!(!status.message().contains("secret"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_no_more() {
    let running = Running::with(|options| options.calls_max = Count::of(1)).await;
    for _ in 0..3 {
        let status = running.call("panic").await.unwrap_err();
        assert_eq!((status.code(), reason_of(&status)), (Code::Internal, reason::INTERNAL.to_owned()));
    }
    running.call("any").await.unwrap();
}

#[tokio::test]
async fn one_call_too_many_is_shed_with_a_hint() {
    let running = Running::with(|options| options.calls_max = Count::of(1)).await;
    let held = running.hold().await;
    let status = running.call("any").await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, reason::OVERLOADED.to_owned()));
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(running.health("").await.unwrap(), 1, "a busy server is not a dead one");
    running.go_on.add_permits(1);
    held.await.unwrap().unwrap();
    running.call("any").await.unwrap();
}

#[tokio::test]
async fn a_call_ends_at_the_services_limit() {
    let running = Running::with(|options| options.call_time_max_ms = Millis::from_millis(5)).await;
    let status = running.call("wait").await.unwrap_err();
    let expected = (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED.to_owned());
    assert_eq!((status.code(), reason_of(&status)), expected);
}

#[tokio::test]
async fn health_and_reflection_know_the_services() {
    let running = Running::with(|_| {}).await;
    assert_eq!(running.health("drawdown.entitlement.v1.ResolutionService").await.unwrap(), 1);
    assert_eq!(running.health("nobody").await.unwrap_err().code(), Code::NotFound);
    assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let symbol = "drawdown.entitlement.v1.ResolutionService".to_owned();
    let answer = running.reflect(MessageRequest::FileContainingSymbol(symbol)).await;
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    let MessageResponse::ListServicesResponse(list) =
        running.reflect(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "drawdown.entitlement.v1.ResolutionService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
}

#[tokio::test]
async fn a_stop_waits_for_calls_in_hand() {
    let running = Running::with(|_| {}).await;
    let held = running.hold().await;
    running.shutdown.cancel();
    running.go_on.add_permits(1);
    held.await.unwrap().unwrap();
    running.served.await.unwrap().unwrap();
    assert!(TcpStream::connect(running.addresses.grpc).await.is_err());
    assert!(TcpStream::connect(running.addresses.metrics).await.is_err());
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let running = Running::with(|options| options.drain_ms = Millis::from_millis(10)).await;
    let _held = running.hold().await;
    running.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), running.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told_before_anything_is_served() {
    let running = Running::with(|_| {}).await;
    let options = ServerOptions { listen: running.addresses.grpc.into(), ..ServerOptions::default() };
    let telemetry = Telemetry::detached("entitlement").unwrap();
    let (context, mut bound) = Context::new(telemetry, Arc::new(SystemClock), CancellationToken::new());
    let refused = Server::bind(&options.validate().unwrap(), &context).await;
    assert!(matches!(refused, Err(ServerError::Bind { address, .. }) if address == running.addresses.grpc));
    drop(context);
    assert_eq!(bound.wait().await, None);
}

#[test]
fn bad_options_are_all_told() {
    let address = "127.0.0.1:7401".to_owned();
    let options = ServerOptions {
        listen: address.clone().try_into().unwrap(),
        metrics_listen: address.try_into().unwrap(),
        stream_window_bytes: Count::of(1),
        connection_window_bytes: Count::of(usize::MAX),
        ..ServerOptions::default()
    };
    let problems = options.validate().unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["stream_window_bytes", "connection_window_bytes", "metrics_listen"]);
}

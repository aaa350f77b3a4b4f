//! W3C context through a server. A file of its own: the subscriber belongs to the process.

use std::sync::Arc;

use drawdown_proto::entitlement::v1::{
    BatchResolveRequest, BatchResolveResponse, ResolveRequest, ResolveResponse,
    resolution_service_client::ResolutionServiceClient,
    resolution_service_server::{ResolutionService, ResolutionServiceServer},
};
use drawdown_service::{
    Context, Server, Telemetry,
    server::ServerOptions,
    telemetry::{TelemetryConfig, shutdown_process},
};
use drawdown_types::SystemClock;
use opentelemetry::trace::TraceContextExt;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Answers with the trace it finds itself in.
struct Echo;

#[tonic::async_trait]
impl ResolutionService for Echo {
    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let context = tracing::Span::current().context();
        Err(Status::aborted(context.span().span_context().trace_id().to_string()))
    }

    async fn batch_resolve(
        &self,
        _: Request<BatchResolveRequest>,
    ) -> Result<Response<BatchResolveResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tokio::test]
async fn a_call_goes_on_with_its_callers_trace() {
    let telemetry = Telemetry::start("entitlement", &TelemetryConfig::default()).unwrap();
    let shutdown = CancellationToken::new();
    let (context, mut bound) = Context::new(telemetry, Arc::new(SystemClock), shutdown.clone());
    let config = ServerOptions::default().validate().unwrap();
    let server = Server::bind(&config, &context).await.unwrap();
    let served = tokio::spawn(server.add_service(ResolutionServiceServer::new(Echo)).serve());
    let address = bound.wait().await.unwrap().grpc;
    let mut client = ResolutionServiceClient::connect(format!("http://{address}")).await.unwrap();
    for (parent, trace) in [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("00-not-a-context-at-all", None),
    ] {
        let mut call = Request::new(ResolveRequest::default());
        call.metadata_mut().insert("traceparent", parent.parse().unwrap());
        let status = client.resolve(call).await.unwrap_err();
        match trace {
            Some(trace) => assert_eq!(status.message(), trace),
            None => assert_ne!(status.message(), "00000000000000000000000000000000", "a trace of its own"),
        }
    }
    drop(client);
    shutdown.cancel();
    served.await.unwrap().unwrap();
    shutdown_process();
}

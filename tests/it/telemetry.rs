//! What leaves an installation for an OTLP collector: spans and metrics of each service, and traces that
//! go on from a caller into the ledger and from there into entitlement, over gRPC, in W3C context.
//!
//! The services are stopped gently before anything is looked at: their last act is to send what is left.
//! A span or instrument that is missing then was lost, however long the intervals of export are.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::clients::ledger;
use drawdown_proto::ledger::v1::PurchaseTokensRequest;
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    platform::set_up,
    replay::Trial,
};
use drawdown_types::{Clock as _, SystemClock};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value,
    resource::v1::Resource,
    trace::v1::span::SpanKind,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Spans the collector keeps; a set-up makes some dozens, probes of health a few more.
const SPANS_MAX: usize = 10_000;
/// Instruments the collector keeps, of all services together.
const INSTRUMENTS_MAX: usize = 1_000;

const LEDGER: &str = "drawdown-ledger";
const ENTITLEMENT: &str = "drawdown-entitlement";
const PURCHASE: &str = "drawdown.ledger.v1.TokenService/PurchaseTokens";
const GET_TEAM: &str = "drawdown.entitlement.v1.HierarchyService/GetTeam";

/// The caller's own trace, its own span in there, and both as a header that asks for recording.
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const CALLER: u64 = 0x00f0_67aa_0ba9_02b7;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A span around a call that a service answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    service: String,
    method: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
}

#[derive(Debug, Default)]
struct Received {
    served: Vec<Served>,
    /// Service and name.
    instruments: BTreeSet<(String, String)>,
}

/// Takes what exporters send and keeps it; one too many is refused, and so missed by the test.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

impl Collector {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves on a free port until `shutdown`.
    async fn serve(
        &self,
        shutdown: CancellationToken,
    ) -> Result<(SocketAddr, tokio::task::JoinHandle<Result<(), tonic::transport::Error>>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned());
        Ok((address, tokio::spawn(server)))
    }
}

fn service_name(resource: Option<Resource>) -> Result<String, Status> {
    resource
        .into_iter()
        .flat_map(|resource| resource.attributes)
        .find(|attribute| attribute.key == "service.name")
        .and_then(|attribute| match attribute.value?.value? {
            Value::StringValue(name) => Some(name),
            _ => None,
        })
        .ok_or_else(|| Status::invalid_argument("no service.name"))
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.received();
        for of_service in request.into_inner().resource_spans {
            let service = service_name(of_service.resource)?;
            let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for span in spans.filter(|span| span.kind() == SpanKind::Server) {
                if received.served.len() == SPANS_MAX {
                    return Err(Status::resource_exhausted("spans"));
                }
                received.served.push(Served {
                    service: service.clone(),
                    method: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut received = self.received();
        for of_service in request.into_inner().resource_metrics {
            let service = service_name(of_service.resource)?;
            let scopes = of_service.scope_metrics.into_iter();
            let ours = scopes.filter(|scope| scope.scope.as_ref().is_some_and(|it| it.name == "drawdown"));
            for metric in ours.flat_map(|scope| scope.metrics) {
                if received.instruments.len() == INSTRUMENTS_MAX {
                    return Err(Status::resource_exhausted("instruments"));
                }
                received.instruments.insert((service.clone(), metric.name));
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Received {
    fn of<'a>(&'a self, service: &'a str, method: &'a str) -> impl Iterator<Item = &'a Served> {
        self.served.iter().filter(move |span| span.service == service && span.method == method)
    }

    /// The one call of entitlement that was made while `purchase` was served.
    fn asked_by(&self, purchase: &Served) -> Result<&Served> {
        let asked: Vec<_> =
            self.of(ENTITLEMENT, GET_TEAM).filter(|span| span.trace == purchase.trace).collect();
        ensure!(asked.len() == 1 && asked[0].parent == purchase.id, "{purchase:#?}\n{asked:#?}");
        Ok(asked[0])
    }
}

/// The set-up, by a caller without a trace; then a purchase by one that is in a trace already.
async fn set_up_and_purchase(installation: &Installation, trial: &Trial) -> Result<()> {
    let channels = installation.channels();
    let platform = set_up(channels, &trial.scenario).await?;
    let mut purchase = Request::new(PurchaseTokensRequest {
        account_id: platform.accounts["Northwind"].clone(),
        team_id: platform.teams["web"].clone(),
        tokens: 100,
        purchased_at: None,
        request_id: "in-own-trace".to_owned(),
        note: String::new(),
    });
    purchase.metadata_mut().insert("traceparent", TRACEPARENT.parse()?);
    ledger::token(&channels.ledger).purchase_tokens(purchase).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_metrics_reach_a_collector_and_traces_cross_services() -> Result<()> {
    let collector = Collector::default();
    let shutdown = CancellationToken::new();
    let (address, serving) = collector.serve(shutdown.clone()).await?;
    let settings = Settings {
        services: vec![Service::Ledger, Service::Entitlement],
        further_toml: format!("[telemetry]\notlp_endpoint = \"http://{address}\"\n"),
        ..Settings::default()
    };
    let installation = Installation::start(&settings).await?;
    let trial = Trial::ending_at(SystemClock.now())?;
    set_up_and_purchase(&installation, &trial).await.with_context(|| installation.logs())?;
    installation.stop().await?;
    shutdown.cancel();
    serving.await??;

    let received = collector.received();
    let (own, set_up): (Vec<_>, Vec<_>) =
        received.of(LEDGER, PURCHASE).partition(|span| span.trace == TRACE.to_be_bytes());

    // A caller without a trace: each of its calls begins one, which goes on into entitlement.
    ensure!(!set_up.is_empty(), "no purchase of the set-up among {:#?}", received.served);
    let traces: BTreeSet<_> = set_up.iter().map(|span| &span.trace).collect();
    ensure!(traces.len() == set_up.len(), "{set_up:#?}");
    for purchase in set_up {
        ensure!(purchase.parent.is_empty(), "{purchase:#?}");
        received.asked_by(purchase)?;
    }

    // A caller with a trace of its own: the ledger's span is a child of its span.
    ensure!(own.len() == 1 && own[0].parent == CALLER.to_be_bytes(), "{own:#?}");
    received.asked_by(own[0])?;

    for (service, instrument) in [
        (LEDGER, "rpc.server.duration"),
        (LEDGER, "ledger.lots.issued.micros"),
        (ENTITLEMENT, "rpc.server.duration"),
        (ENTITLEMENT, "entitlement.acts"),
    ] {
        let expected = (service.to_owned(), instrument.to_owned());
        ensure!(received.instruments.contains(&expected), "{expected:?} in {:#?}", received.instruments);
    }
    Ok(())
}

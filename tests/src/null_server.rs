//! The null server: the same listener, layers and frame decoder as metering, and nothing behind them.
//!
//! Every frame is decoded, its events are visited and dropped, and it is answered as applied and
//! settled at once. What a producer reaches against it is the ceiling that benches compare with.

use std::{hint::black_box, pin::Pin, sync::Arc};

use anyhow::{Context as _, Result};
use drawdown_metering_core::frame::{FrameLimits, FrameView};
use drawdown_proto::metering::v1::{
    self as pb,
    ingest_request::Request as Incoming,
    ingest_response::Response as Outgoing,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use drawdown_service::{
    Context, Telemetry,
    server::{Server, ServerOptions},
    tls::TlsOptions,
};
use drawdown_types::SystemClock;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Answers under way per stream.
const ANSWERS_MAX: usize = 1024;
/// The map of the null server, as metering's default.
const MAP: (u32, u32) = (1, 16);

/// A null server that serves until its token is cancelled.
#[derive(Debug)]
pub struct NullServer {
    endpoint: String,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl NullServer {
    /// Binds a free port and serves.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn start() -> Result<Self> {
        Self::start_with(ServerOptions::default()).await
    }

    /// The same by mTLS only, with these files.
    ///
    /// # Errors
    /// Where no port is free or the files are of no use.
    pub async fn start_secured(files: &drawdown_client::TlsOptions) -> Result<Self> {
        let tls = TlsOptions {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            trust_bundle: files.trust_bundle.clone(),
            ..TlsOptions::default()
        };
        Self::start_with(ServerOptions { tls, ..ServerOptions::default() }).await
    }

    async fn start_with(options: ServerOptions) -> Result<Self> {
        let config = options.validate().map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let shutdown = CancellationToken::new();
        let telemetry = Telemetry::detached("null")?;
        let (context, _bound) = Context::new(telemetry, Arc::new(SystemClock), shutdown.clone());
        let server = Server::bind(&config, &context).await.context("null server")?;
        let addresses = server.addresses();
        let scheme = if addresses.is_tls { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", addresses.grpc);
        let limit = config.message_bytes_max;
        let ingest = IngestServiceServer::new(Null).max_decoding_message_size(limit);
        let server = server.add_service(ingest);
        let serving = tokio::spawn(async move {
            // An error here shows as a producer that cannot connect.
            let _ = server.serve().await;
        });
        Ok(Self { endpoint, shutdown, serving })
    }

    /// `http://…` or `https://…`
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Stops it.
    ///
    /// # Errors
    /// Where its task panicked.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.serving.await?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Null;

#[tonic::async_trait]
impl IngestService for Null {
    type IngestStream = Pin<Box<dyn Stream<Item = Result<pb::IngestResponse, Status>> + Send>>;

    async fn open_producer(
        &self,
        request: Request<pb::OpenProducerRequest>,
    ) -> Result<Response<pb::OpenProducerResponse>, Status> {
        let limits = FrameLimits::default();
        Ok(Response::new(pb::OpenProducerResponse {
            epoch: request.into_inner().log_epoch + 1,
            map_version: MAP.0,
            shard_count: MAP.1,
            settled: Vec::new(),
            limits: Some(pb::IngestLimits {
                frame_bytes_max: u32::try_from(limits.bytes_max).unwrap_or(u32::MAX),
                frame_events_max: limits.events_max,
                series_max: 1 << 20,
            }),
        }))
    }

    async fn name_lost(
        &self,
        _: Request<pb::NameLostRequest>,
    ) -> Result<Response<pb::NameLostResponse>, Status> {
        Err(Status::unimplemented("nothing is kept here, so nothing is lost"))
    }

    async fn ingest(
        &self,
        request: Request<Streaming<pb::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let mut incoming = request.into_inner();
        let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                let answer = match message.request {
                    Some(Incoming::Attach(attach)) => attached(attach),
                    Some(Incoming::Frame(frame)) => match dropped(&frame) {
                        Ok(answer) => answer,
                        Err(status) => {
                            let _ = answers.send(Err(status)).await;
                            return;
                        }
                    },
                    Some(Incoming::Rows(rows)) => dropped_rows(&rows),
                    Some(Incoming::Hello(_) | Incoming::Define(_)) | None => continue,
                };
                let answer = pb::IngestResponse { response: Some(answer) };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

fn attached(attach: pb::AttachLane) -> Outgoing {
    let position = attach.freed.unwrap_or(pb::LanePosition { lane: attach.lane, sequence: 0, chain: 0 });
    Outgoing::Attached(pb::LaneAttached {
        applied: Some(position),
        settled: Some(position),
        registered_epoch: 0,
        send_through_sequence: u64::MAX,
    })
}

/// Rows are here as generated code decodes them, strings and all.
fn dropped_rows(sent: &pb::LaneRows) -> Outgoing {
    let frame = sent.frame.as_ref().map(black_box);
    let rows = frame.map_or(0, |frame| u64::try_from(frame.rows.len()).unwrap_or(u64::MAX));
    let position = pb::LanePosition {
        lane: frame.and_then(|frame| frame.lane),
        sequence: frame.map_or(0, |frame| frame.first_sequence).saturating_add(rows).saturating_sub(1),
        chain: sent.chain_after.unwrap_or_default(),
    };
    moved(position)
}

fn dropped(frame: &pb::LaneFrame) -> Result<Outgoing, Status> {
    let limits = FrameLimits::default();
    let view = FrameView::parse(&frame.body, &limits)
        .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
    view.for_each(|series, quantity, time_ms| {
        black_box((series, quantity, time_ms));
    });
    let position = pb::LanePosition {
        lane: Some(pb::Lane { map_version: view.map_version(), shard: view.shard() }),
        sequence: *view.sequences().end(),
        chain: view.chain_after(frame.chain_before),
    };
    Ok(moved(position))
}

fn moved(position: pb::LanePosition) -> Outgoing {
    let lane = pb::LaneWatermark {
        applied: Some(position),
        settled: Some(position),
        send_through_sequence: u64::MAX,
    };
    Outgoing::Watermarks(pb::Watermarks { lanes: vec![lane] })
}

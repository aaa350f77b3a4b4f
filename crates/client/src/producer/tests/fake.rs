//! A metering service in memory: lanes with applied and settled positions, a dictionary per stream,
//! and faults on demand. It checks what the real one relies on and panics where a producer breaks it.

mod conversation;
mod state;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use drawdown_proto::metering::v1::{
    self as wire,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use drawdown_types::ProducerId;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use self::conversation::Conversation;
pub(super) use self::state::{Counts, Fault, State};
use crate::channel::{Channel, ChannelOptions, connect};

/// How often the fake worker settles.
const TICK: Duration = Duration::from_millis(5);

/// The service; clones share its state.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    options: ChannelOptions,
    channel: Channel,
}

#[derive(Clone, Debug)]
struct Service(Arc<Mutex<State>>);

impl Fake {
    /// Serves on a free port.
    pub(super) async fn start(known: ProducerId) -> Self {
        let state = Arc::new(Mutex::new(State::of(known)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(
                IngestServiceServer::new(Service(Arc::clone(&state)))
                    .accept_compressed(tonic::codec::CompressionEncoding::Zstd),
            )
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let options = ChannelOptions::to(endpoint);
        Self { state, channel: connect(&options).unwrap(), options }
    }

    pub(super) fn channel_options(&self) -> &ChannelOptions {
        &self.options
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Everything that was ever settled and not taken back.
    pub(super) fn settled(&self) -> Counts {
        self.state().settled()
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "drawdown", std::collections::HashMap::new());
    Status::with_error_details(code, "refused", details)
}

#[tonic::async_trait]
impl IngestService for Service {
    async fn open_producer(
        &self,
        request: Request<wire::OpenProducerRequest>,
    ) -> Result<Response<wire::OpenProducerResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        if state.known.map(|id| id.to_string()) != Some(request.producer_id) {
            return Err(refusal(Code::NotFound, "PRODUCER_UNKNOWN"));
        }
        state.epoch = state.epoch.max(request.log_epoch) + 1;
        let settled = state.lanes.iter().map(|(key, lane)| State::position(*key, lane.settled)).collect();
        Ok(Response::new(wire::OpenProducerResponse {
            epoch: state.epoch,
            map_version: state.map_version,
            shard_count: state.shard_count,
            settled,
            limits: Some(wire::IngestLimits {
                frame_bytes_max: 1 << 20,
                frame_events_max: 1_000,
                series_max: 1_000,
            }),
        }))
    }

    async fn name_lost(
        &self,
        request: Request<wire::NameLostRequest>,
    ) -> Result<Response<wire::NameLostResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        if !state.names_lost {
            return Err(Status::unimplemented("there is no such method"));
        }
        assert_eq!(request.epoch, state.epoch, "asked for under another epoch");
        let lost = request.claims.into_iter().map(|claim| state.give_up(&claim)).collect();
        Ok(Response::new(wire::NameLostResponse { lost }))
    }

    type IngestStream = Pin<Box<dyn Stream<Item = Result<wire::IngestResponse, Status>> + Send>>;

    async fn ingest(
        &self,
        request: Request<Streaming<wire::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let encoding = request.metadata().get("grpc-encoding");
        self.0.lock().unwrap().encoding = encoding.map(|name| name.to_str().unwrap().to_owned());
        let mut asks = request.into_inner();
        let (tell, told) = mpsc::channel(4);
        let mut conversation = Conversation::new(Arc::clone(&self.0));
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                let told = tokio::select! {
                    ask = asks.message() => match ask {
                        Ok(Some(ask)) => conversation.hear(ask.request.unwrap()),
                        Ok(None) | Err(_) => return,
                    },
                    _ = tick.tick() => conversation.tick(),
                };
                for reply in told {
                    let end = reply.is_err();
                    let reply = reply.map(|reply| wire::IngestResponse { response: Some(reply) });
                    if tell.send(reply).await.is_err() || end {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

/// A channel that nobody answers.
pub(super) fn nobody() -> Channel {
    let transport = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    Channel::from_transport(transport, Duration::from_secs(1))
}

//! What the check is compared with, as a process of its own: the same server with the same layers, TLS, keys and messages,
//! and behind it either an answer that is there already, or one GET for each question.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use drawdown_client::{ChannelOptions, connect};
use drawdown_proto::entitlement::v1::{
    AccessAnswer, AccessQuestion, BatchCheckAccessRequest, BatchCheckAccessResponse, CheckAccessRequest,
    CheckAccessResponse, StreamCheckAccessRequest, StreamCheckAccessResponse, WatchAccessRequest,
    WatchAccessResponse,
    access_service_server::{AccessService, AccessServiceServer},
};
use drawdown_service::{
    Context, Problem, Server, Telemetry,
    identity::Sources,
    server::ServerOptions,
    telemetry::{self, TelemetryOptions},
};
use drawdown_types::SystemClock;
use futures::{StreamExt as _, future::try_join_all, stream::BoxStream};
use prost::Message as _;
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What a peer is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The answer of the empty method, as it is on the wire.
    answer_file: Option<PathBuf>,
    /// Where answers are looked up.
    redis_url: Option<String>,
    server: ServerOptions,
    /// Who knows the keys.
    entitlement: ChannelOptions,
}

/// What answers.
#[derive(Clone)]
enum Peer {
    Null(AccessAnswer),
    Redis(MultiplexedConnection),
}

/// Where the answer to a question is in Redis.
pub(super) fn redis_key(client_id: &str, meter: &str) -> String {
    format!("access:{client_id}:{meter}")
}

/// Serves until SIGTERM.
///
/// # Errors
/// Where the configuration is of no use, or the server fails.
pub async fn serve(config: &std::path::Path) -> Result<()> {
    let options: Options = toml::from_str(&std::fs::read_to_string(config)?)?;
    let wrong = |problems: Vec<Problem>| anyhow!("{problems:?}");
    // as `drawdown entitlement` has them
    let telemetry: TelemetryOptions = toml::from_str(telemetry::DEFAULTS_TOML)?;
    let telemetry = Telemetry::start("entitlement", &telemetry.validate().map_err(wrong)?)?;
    let config = options.server.validate().map_err(wrong)?;
    let peer = match (options.answer_file, options.redis_url) {
        (Some(file), None) => Peer::Null(answer_of(&std::fs::read(file)?)?),
        (None, Some(url)) => Peer::Redis(redis::Client::open(url)?.get_multiplexed_async_connection().await?),
        _ => bail!("either an answer or a Redis"),
    };
    let shutdown = CancellationToken::new();
    let (context, _bound) = Context::new(telemetry, Arc::new(SystemClock), shutdown.clone());
    let keys = connect(&options.entitlement)?;
    let server = Server::bind(&config, &context).await?.identify(Sources::remote(keys.unary()));
    let access = AccessServiceServer::new(peer).max_decoding_message_size(config.message_bytes_max);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        shutdown.cancel();
    });
    Ok(server.add_service(access).serve().await?)
}

fn answer_of(bytes: &[u8]) -> Result<AccessAnswer> {
    CheckAccessResponse::decode(bytes)?.answer.context("no answer in the file")
}

impl Peer {
    async fn answer(&self, question: &AccessQuestion) -> Result<AccessAnswer, Status> {
        let mut connection = match self {
            Self::Null(answer) => return Ok(answer.clone()),
            Self::Redis(connection) => connection.clone(),
        };
        let key = redis_key(&question.client_id, &question.meter);
        let found: Option<Vec<u8>> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let found = found.ok_or_else(|| Status::not_found("nothing is known of this client id"))?;
        answer_of(&found).map_err(|error| Status::internal(error.to_string()))
    }

    async fn answers(&self, questions: &[AccessQuestion]) -> Result<Vec<AccessAnswer>, Status> {
        match self {
            Self::Null(answer) => Ok(vec![answer.clone(); questions.len()]),
            Self::Redis(_) => try_join_all(questions.iter().map(|question| self.answer(question))).await,
        }
    }
}

#[tonic::async_trait]
impl AccessService for Peer {
    type StreamCheckAccessStream = BoxStream<'static, Result<StreamCheckAccessResponse, Status>>;
    type WatchAccessStream = BoxStream<'static, Result<WatchAccessResponse, Status>>;

    async fn check_access(
        &self,
        request: Request<CheckAccessRequest>,
    ) -> Result<Response<CheckAccessResponse>, Status> {
        let question = request.get_ref().question.as_ref();
        let question = question.ok_or_else(|| Status::invalid_argument("no question"))?;
        let answer = Some(self.answer(question).await?);
        Ok(Response::new(CheckAccessResponse { answer }))
    }

    async fn stream_check_access(
        &self,
        request: Request<Streaming<StreamCheckAccessRequest>>,
    ) -> Result<Response<Self::StreamCheckAccessStream>, Status> {
        let this = self.clone();
        let answers = request.into_inner().then(move |message| {
            let this = this.clone();
            async move { Ok(StreamCheckAccessResponse { answers: this.answers(&message?.questions).await? }) }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn batch_check_access(
        &self,
        _: Request<BatchCheckAccessRequest>,
    ) -> Result<Response<BatchCheckAccessResponse>, Status> {
        Err(Status::unimplemented("nothing is compared by batches"))
    }

    async fn watch_access(
        &self,
        _: Request<WatchAccessRequest>,
    ) -> Result<Response<Self::WatchAccessStream>, Status> {
        Err(Status::unimplemented("nothing changes here"))
    }
}

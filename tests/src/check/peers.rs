//! What `CheckAccess` is compared with: a method that does nothing, and one that asks Redis once a call. A process of
//! its own, with the same listener, layers and messages; only what is behind them differs.

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use drawdown_proto::entitlement::v1::{
    self as ent, AccessAnswer, AccessLevel, AccessReason,
    access_service_server::{AccessService, AccessServiceServer},
};
use drawdown_service::{
    Context, Telemetry,
    server::{Server, ServerOptions},
};
use drawdown_types::SystemClock;
use prost::Message as _;
use redis::aio::ConnectionManager;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Answers written in one round trip.
const PIPELINE: usize = 10_000;

/// An answer as an app of a team with tokens gets it; what every call of the null method gets.
#[must_use]
pub fn answer(balance_micros: i64) -> AccessAnswer {
    AccessAnswer {
        allowed: true,
        level: AccessLevel::Full.into(),
        reason: AccessReason::InFull.into(),
        balance_micros: Some(balance_micros),
        ledger_age_ms: Some(150),
        directory_age_ms: 150,
        // The start of a month.
        changes_at: Some(prost_types::Timestamp { seconds: 1_900_000_000, nanos: 0 }),
        ..AccessAnswer::default()
    }
}

/// The key of a client id's answer.
fn key(client_id: &str) -> String {
    format!("access:{client_id}")
}

/// Gives Redis the answer of each client id.
///
/// # Errors
/// Where Redis refuses.
pub async fn fill(url: &str, answers: impl Iterator<Item = (String, AccessAnswer)>) -> Result<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    connection.set_response_timeout(Duration::from_secs(60));
    let mut pipeline = redis::pipe();
    for (client_id, answer) in answers {
        pipeline.set(key(&client_id), answer.encode_to_vec()).ignore();
        if pipeline.len() >= PIPELINE {
            let () = pipeline.query_async(&mut connection).await?;
            pipeline.clear();
        }
    }
    let () = pipeline.query_async(&mut connection).await?;
    Ok(())
}

/// Serves both until the process is ended: the null method on one port, the one that asks Redis on the other.
///
/// # Errors
/// Where a port is taken or Redis does not answer.
pub async fn serve(null_port: u16, redis_port: u16, redis: &str) -> Result<()> {
    let connection = redis::Client::open(redis)?.get_connection_manager().await?;
    let null = Null(Arc::new(ent::CheckAccessResponse { answer: Some(answer(1_000_000_000)) }));
    tokio::try_join!(
        listen(null_port, AccessServiceServer::new(null)),
        listen(redis_port, AccessServiceServer::new(AskRedis(connection))),
    )?;
    Ok(())
}

async fn listen<S: AccessService>(port: u16, service: AccessServiceServer<S>) -> Result<()> {
    let options = ServerOptions { listen: ([127, 0, 0, 1], port).into_listen(), ..ServerOptions::default() };
    let options = ServerOptions { metrics_listen: ([127, 0, 0, 1], 0).into_listen(), ..options };
    let config = options.validate().map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let telemetry = Telemetry::detached("peer")?;
    let (context, _bound) = Context::new(telemetry, Arc::new(SystemClock), CancellationToken::new());
    Server::bind(&config, &context).await.context("peer")?.add_service(service).serve().await?;
    Ok(())
}

trait IntoListen {
    fn into_listen(self) -> drawdown_service::config::ListenAddress;
}

impl IntoListen for ([u8; 4], u16) {
    fn into_listen(self) -> drawdown_service::config::ListenAddress {
        std::net::SocketAddr::from(self).into()
    }
}

/// Does nothing.
struct Null(Arc<ent::CheckAccessResponse>);

/// Asks Redis.
struct AskRedis(ConnectionManager);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn only_the_call<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only CheckAccess is compared"))
}

#[tonic::async_trait]
impl AccessService for Null {
    type StreamCheckAccessStream = Answers<ent::StreamCheckAccessResponse>;
    type WatchAccessStream = Answers<ent::WatchAccessResponse>;

    async fn check_access(
        &self,
        _: Request<ent::CheckAccessRequest>,
    ) -> Result<Response<ent::CheckAccessResponse>, Status> {
        Ok(Response::new(ent::CheckAccessResponse::clone(&self.0)))
    }

    async fn batch_check_access(
        &self,
        _: Request<ent::BatchCheckAccessRequest>,
    ) -> Result<Response<ent::BatchCheckAccessResponse>, Status> {
        only_the_call()
    }

    async fn stream_check_access(
        &self,
        _: Request<Streaming<ent::StreamCheckAccessRequest>>,
    ) -> Result<Response<Self::StreamCheckAccessStream>, Status> {
        only_the_call()
    }

    async fn watch_access(
        &self,
        _: Request<ent::WatchAccessRequest>,
    ) -> Result<Response<Self::WatchAccessStream>, Status> {
        only_the_call()
    }
}

#[tonic::async_trait]
impl AccessService for AskRedis {
    type StreamCheckAccessStream = Answers<ent::StreamCheckAccessResponse>;
    type WatchAccessStream = Answers<ent::WatchAccessResponse>;

    async fn check_access(
        &self,
        request: Request<ent::CheckAccessRequest>,
    ) -> Result<Response<ent::CheckAccessResponse>, Status> {
        let question = request.into_inner().question.unwrap_or_default();
        let mut connection = self.0.clone();
        let bytes: Option<Vec<u8>> = redis::cmd("GET")
            .arg(key(&question.client_id))
            .query_async(&mut connection)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| Status::not_found("no answer for the client id"))?;
        let answer = AccessAnswer::decode(&bytes[..]).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ent::CheckAccessResponse { answer: Some(answer) }))
    }

    async fn batch_check_access(
        &self,
        _: Request<ent::BatchCheckAccessRequest>,
    ) -> Result<Response<ent::BatchCheckAccessResponse>, Status> {
        only_the_call()
    }

    async fn stream_check_access(
        &self,
        _: Request<Streaming<ent::StreamCheckAccessRequest>>,
    ) -> Result<Response<Self::StreamCheckAccessStream>, Status> {
        only_the_call()
    }

    async fn watch_access(
        &self,
        _: Request<ent::WatchAccessRequest>,
    ) -> Result<Response<Self::WatchAccessStream>, Status> {
        only_the_call()
    }
}

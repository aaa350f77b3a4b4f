//! `drawdown status`: whether each service can be called, and how far metering's shards are.

use anyhow::Result;
use clap::Args;
use drawdown_client::{Channel, metering};
use drawdown_proto::metering::v1::GetMeteringStatusRequest;
use serde_json::{Value, json};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    failure::Found,
    operator::{Connection, Session},
    output::{json_of, number, text},
};

/// Shows the health of each service and how far metering's shards are; exit code 1 where one is not serving
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown status --json")]
pub(crate) struct StatusCommand {
    #[command(flatten)]
    connection: Connection,
}

impl StatusCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let (metering, ledger, entitlement) =
            tokio::join!(health(&session.metering), health(&session.ledger), health(&session.entitlement));
        let mut services = Vec::new();
        let mut missing = Vec::new();
        for ((service, address), health) in session.endpoints.iter().zip([metering, ledger, entitlement]) {
            if health != SERVING {
                missing.push(*service);
            }
            services.push(json!({ "service": service, "address": address, "health": health }));
        }
        let (shards, unknown) = match shards(&session).await {
            Ok(shards) => (shards, None),
            Err(error) => (json!([]), Some(error)),
        };
        let unsettled = unsettled(&shards);
        let state = json!({ "services": services, "shards": shards, "unsettled_events": unsettled });
        show(&session, &state)?;
        match (missing.as_slice(), unknown) {
            ([], None) => Ok(()),
            ([], Some(error)) => Err(error),
            (missing, _) => Err(Found(format!("not serving: {}", missing.join(", "))).into()),
        }
    }
}

const SERVING: &str = "serving";

/// The health that a service itself reports, or why it can not be asked.
async fn health(channel: &Channel) -> String {
    let request = HealthCheckRequest { service: String::new() };
    match HealthClient::new(channel.unary()).check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => SERVING.to_owned(),
            ServingStatus::NotServing => "not serving".to_owned(),
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => "unknown".to_owned(),
        },
        Err(status) => format!("unreachable: {}", status.message()),
    }
}

async fn shards(session: &Session) -> Result<Value> {
    let request = GetMeteringStatusRequest {};
    let answer = metering::usage(&session.metering).get_metering_status(request).await?.into_inner();
    let mut answer = json_of("drawdown.metering.v1.GetMeteringStatusResponse", &answer)?;
    Ok(answer.get_mut("shards").map(Value::take).unwrap_or_default())
}

fn show(session: &Session, state: &Value) -> Result<()> {
    let services = [text("service", "service"), text("address", "address"), text("health", "health")];
    session.output.table(state, "services", &services)?;
    if session.json {
        return Ok(());
    }
    let shards = [
        number("shard", "shard"),
        number("generation", "generation"),
        number("open batch", "open_batch"),
        number("sealed batches", "sealed_batches"),
        number("open blobs", "open_blobs"),
        number("unsettled events", "unsettled_events"),
    ];
    session.output.line("")?;
    session.output.table(state, "shards", &shards)?;
    session.output.line("")?;
    session.output.record(state, "", &[number("unsettled events", "unsettled_events")])
}

/// What the whole installation is behind by.
fn unsettled(shards: &Value) -> u64 {
    let shards = shards.as_array().map(Vec::as_slice).unwrap_or_default();
    shards.iter().filter_map(|shard| shard.get("unsettled_events")?.as_u64()).fold(0, u64::saturating_add)
}

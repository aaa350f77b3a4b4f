//! Usage that metering holds and the ledger does not have yet: asked for, or followed as it changes.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use drawdown_client::metering;
use drawdown_proto::metering::v1::{
    Dimension, GetLiveUsageRequest, LivePosition, WatchLiveUsageRequest, WatchLiveUsageResponse,
};
use serde_json::Value;

use super::{Session, reports::pair};
use crate::output::{Column, complain, json_of, name, number, text};

/// Which usage; all that is given has to hold.
#[derive(Args, Debug)]
pub(crate) struct LiveFilter {
    /// Client ids
    #[arg(required_unless_present = "app", value_name = "CLIENT_ID")]
    client_ids: Vec<String>,
    /// Only usage of these apps, by the window in which it was made
    #[arg(long, value_name = "APP_ID")]
    app: Vec<String>,
    /// Only this meter
    #[arg(long, default_value = "")]
    meter: String,
    /// Only usage with this value of a dimension; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    dimension: Vec<(String, String)>,
    /// Tells whose app usage is of, also where no app is asked for
    #[arg(long)]
    resolve_apps: bool,
}

/// A query of live usage.
#[derive(Args, Debug)]
pub(crate) struct LiveArguments {
    #[command(flatten)]
    filter: LiveFilter,
    /// Usage as it will be settled: by batch, and by the window in which it was received
    #[arg(long)]
    by_batch: bool,
}

/// A stream of its changes.
#[derive(Args, Debug)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    filter: LiveFilter,
    /// Ends after this many changes [default: never]
    #[arg(long, value_name = "CHANGES")]
    limit: Option<u64>,
}

const WINDOW: Column = text("window", "window_start");
const SERIES: [Column; 5] = [
    text("client id", "series.client_id"),
    text("meter", "series.meter"),
    name("outcome", "series.outcome", "OUTCOME_"),
    number("events", "events"),
    number("quantity", "quantity"),
];
const APP: Column = text("app", "app_id");
const PART: [Column; 3] = [
    number("shard", "part.shard"),
    number("batch", "part.batch"),
    text("received", "part.received_window_start"),
];

impl LiveFilter {
    /// Whether answers name apps.
    const fn has_apps(&self) -> bool {
        self.resolve_apps || !self.app.is_empty()
    }

    fn dimensions(&mut self) -> Vec<Dimension> {
        let dimensions = std::mem::take(&mut self.dimension).into_iter();
        dimensions.map(|(name, value)| Dimension { name, value }).collect()
    }
}

/// What a line has: the parts of batches and apps only where they were asked for.
fn columns(by_batch: bool, apps: bool) -> Vec<Column> {
    let part = PART.into_iter().filter(|_| by_batch);
    part.chain([WINDOW]).chain(Some(APP).filter(|_| apps)).chain(SERIES).collect()
}

impl LiveArguments {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let Self { mut filter, by_batch } = self;
        let columns = columns(by_batch, filter.has_apps());
        let request = GetLiveUsageRequest {
            dimensions: filter.dimensions(),
            client_ids: filter.client_ids,
            meter: filter.meter,
            app_ids: filter.app,
            by_batch,
            resolve_apps: filter.resolve_apps,
        };
        let answer = metering::usage(&session.metering).get_live_usage(request).await?.into_inner();
        let answer = json_of("drawdown.metering.v1.GetLiveUsageResponse", &answer)?;
        session.output.table(&answer, "usage", &columns)?;
        let complete = answer.get("complete_up_to").and_then(Value::as_str).unwrap_or("(not known)");
        session.output.line(&format!("complete up to {complete}"))
    }
}

impl WatchArguments {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let Self { mut filter, limit } = self;
        let columns = columns(true, filter.has_apps());
        let request = WatchLiveUsageRequest {
            dimensions: filter.dimensions(),
            client_ids: filter.client_ids,
            meter: filter.meter,
            app_ids: filter.app,
            resolve_apps: filter.resolve_apps,
        };
        let mut left = limit.unwrap_or(u64::MAX);
        let mut shards = Shards::default();
        let mut stream =
            metering::usage_stream(&session.metering).watch_live_usage(request).await?.into_inner();
        while left > 0 {
            let Some(message) = stream.message().await? else {
                complain("the service ended the stream; another one begins with everything\n");
                return Ok(());
            };
            let json = json_of("drawdown.metering.v1.WatchLiveUsageResponse", &message)?;
            if session.json {
                session.output.row(&json, &[])?;
            }
            for line in shards.news(&message) {
                session.output.line(&line)?;
            }
            for row in json.get("usage").and_then(Value::as_array).into_iter().flatten() {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(1);
                if !session.json {
                    session.output.row(row, &columns)?;
                }
            }
        }
        Ok(())
    }
}

/// How far each shard was said to be settled.
#[derive(Debug, Default)]
struct Shards(BTreeMap<u32, u64>);

impl Shards {
    /// What people are told beside the lines: that a shard is told anew, and which of its batches are settled now.
    fn news(&mut self, message: &WatchLiveUsageResponse) -> Vec<String> {
        let Some(LivePosition { shard, settled_batch, .. }) = message.position else { return Vec::new() };
        let before = self.0.insert(shard, settled_batch);
        let anew = (message.snapshot && before.is_some())
            .then(|| format!("shard {shard}: forget what was told, what follows is all there is"));
        let settled = before
            .filter(|before| *before < settled_batch)
            .map(|_| format!("shard {shard}: settled up to batch {settled_batch}"));
        anew.into_iter().chain(settled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_is_told_what_is_settled_and_what_to_forget() {
        let message = |settled_batch, snapshot| WatchLiveUsageResponse {
            position: Some(LivePosition { shard: 3, settled_batch, ..LivePosition::default() }),
            snapshot,
            ..WatchLiveUsageResponse::default()
        };
        let mut shards = Shards::default();
        // All there is at first, changes, more of it settled, and everything anew.
        assert!(shards.news(&message(4, true)).is_empty());
        assert!(shards.news(&message(4, false)).is_empty());
        assert_eq!(shards.news(&message(6, false)), ["shard 3: settled up to batch 6"]);
        let anew = "shard 3: forget what was told, what follows is all there is";
        assert_eq!(shards.news(&message(6, true)), [anew]);
        assert!(shards.news(&WatchLiveUsageResponse::default()).is_empty());
    }

    #[test]
    fn lines_have_what_was_asked_for() {
        let counts = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(by_batch, apps)| columns(by_batch, apps).len());
        assert_eq!(counts, [6, 9, 7, 10]);
    }
}

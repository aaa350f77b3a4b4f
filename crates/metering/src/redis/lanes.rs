//! Lanes that leave a head, and lanes that stay because streams have them.

use std::time::Duration;

use drawdown_metering_core::{look::LaneApplied, shard::Lane};
use redis::Value;

use super::{
    keys::{encode_lane, hex},
    line::Call,
    reply::{Malformed, Refused, count, refused, words},
    scripts,
    store::{Error, Roll, Store, function, lane_text},
};

/// Lanes of a shard of which nothing is under way.
#[derive(Clone, Debug)]
pub struct RetireLanes {
    /// The shard.
    pub shard: u32,
    /// The generation and the roll that were seen.
    pub roll: Roll,
    /// The roll after a retirement: random.
    pub next: u64,
    /// How long a lane has to have stood where it stands, by the clock of Redis.
    pub idle: Duration,
    /// The lanes as they were seen, each where it is settled.
    pub lanes: Vec<(Lane, LaneApplied)>,
}

/// Answers of `retire_lanes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanesRetired {
    /// So many have left the head; where there are any, its roll is the next one.
    Ok(u64),
    /// Nothing was changed.
    Refused(Refused),
}

impl Store {
    /// Drops those of the lanes that are what was seen and have been for long, and marks the others.
    pub async fn retire_lanes(&self, retire: &RetireLanes) -> Result<LanesRetired, Error> {
        let mut command = function("FCALL", scripts::RETIRE_LANES, &[self.keys.head(retire.shard)]);
        command.arg(hex(retire.roll.generation)).arg(hex(retire.roll.number)).arg(hex(retire.next));
        command.arg(u64::try_from(retire.idle.as_millis()).unwrap_or(u64::MAX));
        for (lane, state) in &retire.lanes {
            command.arg(encode_lane(*lane)).arg(lane_text(*state));
        }
        let value = self.one(&self.line, "retire_lanes", retire.shard, command).await?;
        let parsed = words(&value).and_then(|(word, rest)| match word {
            "OK" => rest.first().and_then(count).map(LanesRetired::Ok),
            other => refused(other, rest).map(LanesRetired::Refused),
        });
        Ok(parsed.ok_or_else(|| Malformed::new("retire_lanes", &value))?)
    }

    /// Notes of each shard, named with its generation, that these lanes are in use; all in one round trip. A shard that
    /// has another generation is left alone.
    pub async fn keep_lanes(&self, shards: &[(u32, u64, Vec<Lane>)]) -> Result<(), Error> {
        let call = |(shard, generation, lanes): &(u32, u64, Vec<Lane>)| {
            let key = self.keys.head(*shard);
            let mut command = function("FCALL", scripts::KEEP_LANES, std::slice::from_ref(&key));
            command.arg(hex(*generation));
            for lane in lanes {
                command.arg(encode_lane(*lane));
            }
            Call { key, command }
        };
        let calls: Vec<Call> = shards.iter().map(call).collect();
        let values = self.line.all(&calls).await;
        let values = values.map_err(|source| Error::Call { call: "keep_lanes", source })?;
        match values.iter().find(|value| !was_answered(value)) {
            None => Ok(()),
            Some(value) => Err(Malformed::new("keep_lanes", value).into()),
        }
    }
}

fn was_answered(value: &Value) -> bool {
    words(value).is_some_and(|(word, _)| matches!(word, "OK" | "GENERATION"))
}

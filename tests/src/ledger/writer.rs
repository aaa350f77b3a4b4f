//! Whoever posts the batches of one shard, as a settlement worker does: numbers, lane ranges and chains
//! that follow each other.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use drawdown_proto::ledger::v1::{self, line, settlement_service_server::SettlementService as _};
use drawdown_types::AppId;
use tonic::{Request, Status};

use super::world::Handlers;

/// The one who posts to a shard.
#[derive(Debug, Clone)]
pub struct ShardWriter {
    shard: u32,
    generation: u64,
    number: u64,
    producer_id: String,
    sequence: u64,
    chain: u64,
}

impl ShardWriter {
    /// Registers a producer and reads where the shard stands.
    ///
    /// # Errors
    /// Where the ledger refuses.
    pub async fn open(handlers: &Handlers, shard: u32) -> Result<Self> {
        let request = v1::CreateProducerRequest {
            name: format!("shard-{shard}"),
            request_id: AppId::generate().to_string(),
        };
        let producer =
            handlers.settlement.create_producer(Request::new(request)).await.context("producer")?;
        let request =
            v1::GetShardsRequest { shards: vec![shard], producer_ids: Vec::new(), only_their_lanes: false };
        let shards = handlers.settlement.get_shards(Request::new(request)).await.context("shard")?;
        let cursor = shards.into_inner().shards.pop().context("no cursor")?;
        Ok(Self {
            shard,
            generation: cursor.generation,
            number: cursor.last_batch,
            producer_id: producer.into_inner().producer_id,
            sequence: 0,
            chain: 0,
        })
    }

    /// The next batch of the shard; it must be posted before the one after it.
    pub fn seal(&mut self, lines: Vec<v1::Line>) -> v1::PostBatchRequest {
        let events: u64 = lines.iter().map(|line| line.events).sum();
        let mut totals: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
        for line in &lines {
            let total = totals.entry(&line.meter).or_default();
            total.0 += line.events;
            total.1 += quantity(line);
        }
        let total = |(meter, (events, quantity)): (&str, _)| v1::MeterTotal {
            meter: meter.to_owned(),
            events,
            quantity,
        };
        let totals = totals.into_iter().map(total).collect();
        self.number += 1;
        let chain_after = self.chain.wrapping_mul(31).wrapping_add(self.number);
        let range = v1::LaneRange {
            producer_id: self.producer_id.clone(),
            map_version: 1,
            from_sequence: self.sequence + 1,
            to_sequence: self.sequence + events,
            chain_before: self.chain,
            chain_after,
            epoch: 1,
        };
        (self.sequence, self.chain) = (self.sequence + events, chain_after);
        v1::PostBatchRequest {
            shard: self.shard,
            generation: self.generation,
            number: self.number,
            digest: u128::from(self.number).to_be_bytes().to_vec(),
            lanes: vec![range],
            events,
            refused: Vec::new(),
            totals,
            lines,
            ..v1::PostBatchRequest::default()
        }
    }
}

/// What a line counts, in base units.
#[must_use]
pub fn quantity(line: &v1::Line) -> i64 {
    match &line.state {
        Some(line::State::Sum(sum)) => sum.quantity,
        _ => i64::try_from(line.events).unwrap_or(i64::MAX),
    }
}

/// Posts a sealed batch through the handler.
///
/// # Errors
/// What the ledger answers.
pub async fn post(handlers: &Handlers, batch: v1::PostBatchRequest) -> Result<v1::PostBatchResponse, Status> {
    Ok(handlers.settlement.post_batch(Request::new(batch)).await?.into_inner())
}

//! `UsageService`: what metering holds and the ledger does not have yet.
//!
//! Shape: the heads of the shards, then the blobs of their batches, then the ledger's cursors. In this order a
//! batch that settles in between is either in the answer or known to be settled, never in neither. A list that
//! went away in between (retired, or reset) makes its shard be read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use drawdown_metering_core::{
    blob::{Decoded, FINGERPRINT_START, fingerprint_next},
    cells::LEADING,
    look::{Cursor, Head},
    meter::Aggregation,
    series::SeriesKey,
    settle::{Line, Seal, SealedBatch, merge},
};
use drawdown_proto::{
    metering::v1::{self as wire, usage_service_server::UsageService},
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal, Violations, refusal};
use drawdown_types::{ClientId, MeterSlug, Timestamp};
use tonic::{Request, Response, Status};

use super::encode;
use crate::{instance::Instance, peer, reason, redis};

/// How often a shard is read again because it moved on while it was read.
const READS_MAX: usize = 5;

/// The service.
#[derive(Clone)]
pub(crate) struct Usage {
    instance: Arc<Instance>,
}

/// What is asked for.
struct Query {
    client_ids: Vec<ClientId>,
    meter: Option<MeterSlug>,
}

type Sums = BTreeMap<(Vec<u8>, Timestamp), Sum>;

/// One series in one window.
struct Sum {
    series: Arc<SeriesKey>,
    events: u64,
    quantity: i64,
    values: BTreeSet<Arc<str>>,
}

/// Why usage was not read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("redis was not read")]
    Redis(#[from] redis::Error),
    #[error("the ledger was not asked")]
    Ledger(#[from] peer::Error),
    #[error("shard {0} has no head; it is being reset")]
    Resetting(u32),
    #[error("shard {0} moved on while it was read")]
    Moving(u32),
    #[error("{0} blobs would have to be read")]
    TooLarge(u64),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge(blobs) => {
                let message =
                    format!("{blobs} blobs would have to be read; ask for fewer client ids, or later");
                Refusal::new(Code::ResourceExhausted, reason::USAGE_TOO_LARGE, message)
                    .retry_after(refusal::RETRY_AFTER_DEFAULT)
                    .into()
            }
            other => refusal::unavailable(other),
        }
    }
}

impl Usage {
    pub(crate) const fn new(instance: Arc<Instance>) -> Self {
        Self { instance }
    }

    async fn live(&self, query: &Query) -> Result<Sums, Error> {
        let mut shards: Vec<u32> = self
            .instance
            .config
            .maps
            .iter()
            .flat_map(|map| query.client_ids.iter().map(|id| map.shard_of(id.as_str())))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        let mut budget = u64::try_from(self.instance.config.usage.blobs_max.get()).unwrap_or(u64::MAX);
        let mut sums = Sums::new();
        let mut reads = 0;
        while !shards.is_empty() {
            if reads == READS_MAX {
                return Err(Error::Moving(shards.first().copied().unwrap_or_default()));
            }
            reads += 1;
            let mut batches = Vec::new();
            for (shard, head) in shards.iter().zip(self.instance.store.look(&shards).await?) {
                let head = head.map_err(|_| Error::Resetting(*shard))?;
                batches.push((*shard, self.read(*shard, &head, &mut budget).await?, head));
            }
            let cursors = self.instance.ledger().shards(&shards, &[], LEADING).await?.cursors;
            let mut moving = Vec::new();
            for (shard, lines, head) in batches {
                match (lines, cursors.get(&shard)) {
                    (Some(lines), Some(cursor)) if cursor.generation == head.generation => {
                        add(&mut sums, query, lines, cursor);
                    }
                    _ => moving.push(shard),
                }
            }
            shards = moving;
        }
        Ok(sums)
    }

    /// Lines of the batches that are not retired, by batch; `None` where one went away.
    async fn read(
        &self,
        shard: u32,
        head: &Head,
        budget: &mut u64,
    ) -> Result<Option<Vec<(u64, Vec<Line>)>>, Error> {
        let mut batches = Vec::new();
        let sealed =
            head.sealed.iter().filter_map(|(batch, seal)| Some((*batch, seal.parse::<Seal>().ok()?.count)));
        for (batch, count) in sealed.chain([(head.open, head.blobs)]) {
            *budget = budget.checked_sub(count).ok_or(Error::TooLarge(count))?;
            let entries = self.instance.store.entries(shard, head.generation, batch, count).await?;
            let place = SealedBatch { shard, generation: head.generation, batch, seal: seal_of(&entries) };
            match merge(&place, &entries) {
                Ok(merged) if place.seal.count == count => batches.push((batch, merged.lines)),
                _ => return Ok(None),
            }
        }
        Ok(Some(batches))
    }
}

/// The seal that a list would get if it were sealed as it was read.
fn seal_of(entries: &[Bytes]) -> Seal {
    let fingerprint = entries.iter().fold(FINGERPRINT_START.to_owned(), |before, entry| {
        // What can not be read is found by the merge.
        Decoded::read(entry).map_or(String::new(), |blob| fingerprint_next(&before, blob.checksum))
    });
    Seal { count: u64::try_from(entries.len()).unwrap_or(u64::MAX), fingerprint }
}

fn add(sums: &mut Sums, query: &Query, batches: Vec<(u64, Vec<Line>)>, cursor: &Cursor) {
    for (_, lines) in batches.into_iter().filter(|(batch, _)| *batch > cursor.last_batch) {
        for line in lines {
            let series = &line.series;
            let wanted = query.client_ids.binary_search(series.client_id()).is_ok()
                && query.meter.as_ref().is_none_or(|meter| meter == series.meter());
            if wanted {
                let key = (series.encode(), line.window_start);
                let none =
                    || Sum { series: Arc::clone(series), events: 0, quantity: 0, values: BTreeSet::new() };
                sums.entry(key).or_insert_with(none).add(line);
            }
        }
    }
}

impl Sum {
    /// Partial states merge as the meter aggregates (D19).
    fn add(&mut self, line: Line) {
        self.events = self.events.saturating_add(line.events);
        match line.aggregation {
            Aggregation::Sum | Aggregation::Count => {
                self.quantity = self.quantity.saturating_add(line.quantity);
            }
            Aggregation::Max => self.quantity = self.quantity.max(line.quantity),
            Aggregation::Unique => {
                self.values.extend(line.values);
                self.quantity = i64::try_from(self.values.len()).unwrap_or(i64::MAX);
            }
        }
    }
}

fn decode(request: &wire::GetLiveUsageRequest, client_ids_max: usize) -> Result<Query, Refusal> {
    let mut violations = Violations::new();
    let count = request.client_ids.len();
    if count == 0 || count > client_ids_max {
        violations.push("client_ids", format!("has {count} entries, 1 to {client_ids_max} are allowed"));
    }
    let mut client_ids = Vec::with_capacity(count.min(client_ids_max));
    for (at, id) in request.client_ids.iter().enumerate().take(client_ids_max) {
        client_ids.extend(violations.field(&format!("client_ids[{at}]"), || ClientId::new(id)));
    }
    client_ids.sort_unstable();
    client_ids.dedup();
    let meter = match request.meter.as_str() {
        "" => None,
        slug => violations.field("meter", || MeterSlug::new(slug)),
    };
    violations.finish(reason::REQUEST_INVALID, Some(Query { client_ids, meter }))
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_live_usage(
        &self,
        request: Request<wire::GetLiveUsageRequest>,
    ) -> Result<Response<wire::GetLiveUsageResponse>, Status> {
        let query = decode(request.get_ref(), self.instance.config.usage.client_ids_max.get())?;
        // Before the first read: what is acknowledged later may be missing.
        let complete_up_to = self.instance.clock.now();
        let sums = self.live(&query).await?;
        let usage = sums.into_iter().map(|((_, window_start), sum)| wire::LiveUsage {
            series: Some(encode::series(&sum.series)),
            window_start: Some(timestamp_to_proto(window_start)),
            events: sum.events,
            quantity: sum.quantity,
        });
        Ok(Response::new(wire::GetLiveUsageResponse {
            usage: usage.collect(),
            complete_up_to: Some(timestamp_to_proto(complete_up_to)),
        }))
    }

    async fn get_metering_status(
        &self,
        _: Request<wire::GetMeteringStatusRequest>,
    ) -> Result<Response<wire::GetMeteringStatusResponse>, Status> {
        let numbers = self.instance.shard_numbers();
        let heads = self.instance.store.look(&numbers).await.map_err(Error::from)?;
        let cursors =
            self.instance.ledger().shards(&numbers, &[], LEADING).await.map_err(Error::from)?.cursors;
        let shards = numbers.iter().zip(heads).map(|(shard, head)| {
            let empty = wire::ShardStatus { shard: *shard, ..wire::ShardStatus::default() };
            match (head, cursors.get(shard)) {
                (Ok(head), Some(cursor)) => wire::ShardStatus {
                    generation: head.generation,
                    open_batch: head.open,
                    sealed_batches: u32::try_from(head.sealed.len()).unwrap_or(u32::MAX),
                    open_blobs: u32::try_from(head.blobs).unwrap_or(u32::MAX),
                    unsettled_events: crate::jobs::unsettled(&head, cursor),
                    ..empty
                },
                _ => empty,
            }
        });
        Ok(Response::new(wire::GetMeteringStatusResponse { shards: shards.collect() }))
    }
}

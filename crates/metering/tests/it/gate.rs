//! A naive ledger, catalogue and entitlement in one: the gate as its specification says, and sums by series.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use drawdown_proto::{
    entitlement::v1::{
        self as entitlement, BatchResolveRequest, BatchResolveResponse, BilledTo, Resolution, ResolveRequest,
        ResolveResponse, UnresolvedReason,
        resolution::Answer,
        resolution_service_server::{ResolutionService, ResolutionServiceServer},
    },
    ledger::v1::{
        self as ledger, Aggregation, LaneState, Meter, PostBatchRequest, PostBatchResponse, ShardCursor,
        catalog_service_server::{CatalogService, CatalogServiceServer},
        event_service_server::EventServiceServer,
        line::State as LineState,
        settlement_service_server::{SettlementService, SettlementServiceServer},
    },
    scalar::timestamp_from_proto,
};
use drawdown_service::{Code, Refusal};
use drawdown_types::ProducerId;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::book::Book;

/// (client id, meter, failed) → (events, quantity).
pub(crate) type Sums = BTreeMap<(String, String, bool), (u64, i64)>;
/// (client id, meter, dimensions)
pub(crate) type Series = (String, String, BTreeMap<String, String>);
type LaneKey = (String, u32);

/// What all lines of a series come to (D19).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) events: u64,
    /// Sum, or largest value.
    pub(crate) quantity: i64,
    pub(crate) values: BTreeSet<Vec<u8>>,
}
/// Where a shard stands.
pub(crate) type Place = (u64, Option<Vec<u8>>, BTreeMap<LaneKey, (u64, u64)>);

/// How posts are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As specified.
    #[default]
    Open,
    /// Not answered.
    Down,
    /// Nothing at all is answered.
    Gone,
    /// Committed, and the reply is lost.
    ReplyLost,
}

#[derive(Clone, Default)]
struct Shard {
    generation: u64,
    last: u64,
    lanes: BTreeMap<LaneKey, (u64, u64)>,
    digests: HashMap<u64, Vec<u8>>,
    /// Batches as they came, where there are other cells.
    kept: HashMap<u64, PostBatchRequest>,
}

/// Everything that is committed.
#[derive(Clone, Default)]
pub(crate) struct State {
    shards: BTreeMap<u32, Shard>,
    pub(crate) producers: BTreeMap<String, u64>,
    pub(crate) sums: Sums,
    /// Every line that was booked, by client id, meter and dimensions.
    pub(crate) booked: BTreeMap<Series, Booked>,
    pub(crate) unattributed: BTreeMap<String, u64>,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) meters: BTreeMap<String, Meter>,
    /// Client ids without a team.
    pub(crate) strangers: HashSet<String>,
    /// Apps of client ids, of those that have one of their own.
    pub(crate) apps: BTreeMap<String, String>,
    /// Client ids whose account lives in another cell.
    pub(crate) elsewhere: BTreeMap<String, u32>,
    /// Which cell it is, and in the leading one all others.
    pub(crate) cell: u32,
    pub(crate) others: Vec<u32>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    mode: Mutex<Mode>,
    /// Producers whose ranges are refused, whatever they are.
    poison: Mutex<HashSet<String>>,
    resets: Mutex<u64>,
    posts: Mutex<u64>,
    posted: Notify,
    book: Mutex<Book>,
}

/// The fake; a clone is the same one.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Shared>);

fn refuse(reason: &'static str, why: impl Into<String>) -> Status {
    Refusal::new(Code::FailedPrecondition, reason, why).into()
}

impl Gate {
    /// Serves at a free port.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(SettlementServiceServer::new(self.clone()).max_decoding_message_size(64 << 20))
            .add_service(CatalogServiceServer::new(self.clone()))
            .add_service(EventServiceServer::new(self.clone()))
            .add_service(ResolutionServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.0.mode.lock().unwrap()
    }

    /// What is known of events by id.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap()
    }

    pub(crate) fn poison(&self, producer: ProducerId) {
        self.0.poison.lock().unwrap().insert(producer.to_string());
    }

    pub(crate) fn meter(&self, slug: &str, aggregation: Aggregation, dimensions: &[&str]) {
        let meter = Meter {
            slug: slug.to_owned(),
            aggregation: aggregation.into(),
            dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
            ..Meter::default()
        };
        self.0.state.lock().unwrap().meters.insert(slug.to_owned(), meter);
    }

    /// A meter that counts the distinct values of a dimension.
    pub(crate) fn unique_meter(&self, slug: &str, dimensions: &[&str], unique: &str) {
        self.meter(slug, Aggregation::Unique, dimensions);
        let mut state = self.0.state.lock().unwrap();
        if let Some(meter) = state.meters.get_mut(slug) {
            meter.unique_dimension = unique.to_owned();
        }
    }

    pub(crate) fn stranger(&self, client_id: &str) {
        self.0.state.lock().unwrap().strangers.insert(client_id.to_owned());
    }

    /// The app that a client id is of.
    pub(crate) fn app(&self, client_id: &str, app_id: &str) {
        self.0.state.lock().unwrap().apps.insert(client_id.to_owned(), app_id.to_owned());
    }

    /// Becomes a cell: the leading one of `others`, or another one.
    pub(crate) fn become_cell(&self, cell: u32, others: &[u32]) {
        let mut state = self.0.state.lock().unwrap();
        (state.cell, state.others) = (cell, others.to_vec());
    }

    /// The account of a client id lives in this cell.
    pub(crate) fn lives_in(&self, client_id: &str, cell: u32) {
        let mut state = self.0.state.lock().unwrap();
        state.strangers.remove(client_id);
        state.elsewhere.insert(client_id.to_owned(), cell);
    }

    pub(crate) fn producer(&self) -> ProducerId {
        let id = ProducerId::generate();
        self.0.state.lock().unwrap().producers.insert(id.to_string(), 0);
        id
    }

    /// What is committed.
    pub(crate) fn state(&self) -> State {
        self.0.state.lock().unwrap().clone()
    }

    /// Back to an older state, as after a restore: every shard gets a new generation first.
    pub(crate) fn restore(&self, mut state: State) {
        for shard in state.shards.values_mut() {
            shard.generation = rand::random();
        }
        *self.0.state.lock().unwrap() = state;
    }

    pub(crate) fn resets(&self) -> u64 {
        *self.0.resets.lock().unwrap()
    }

    pub(crate) fn posts(&self) -> u64 {
        *self.0.posts.lock().unwrap()
    }

    /// Waits until a post was asked for.
    pub(crate) async fn asked(&self) {
        self.0.posted.notified().await;
    }
}

impl State {
    /// Last batch, its digest, and all lanes with their chains, by shard.
    pub(crate) fn places(&self) -> BTreeMap<u32, Place> {
        let place =
            |shard: &Shard| (shard.last, shard.digests.get(&shard.last).cloned(), shard.lanes.clone());
        // A shard that never settled anything may be unknown to some.
        self.shards.iter().filter(|(_, shard)| shard.last > 0).map(|(n, shard)| (*n, place(shard))).collect()
    }

    fn shard(&mut self, shard: u32) -> &mut Shard {
        self.shards.entry(shard).or_insert_with(|| Shard { generation: rand::random(), ..Shard::default() })
    }

    fn cursor(&mut self, number: u32) -> ShardCursor {
        let producers = self.producers.clone();
        let shard = self.shard(number);
        let lanes = shard.lanes.iter().map(|((producer_id, map_version), (settled, chain))| LaneState {
            producer_id: producer_id.clone(),
            map_version: *map_version,
            shard: number,
            epoch: producers.get(producer_id).copied().unwrap_or_default(),
            settled_sequence: *settled,
            settled_chain: *chain,
        });
        ShardCursor {
            shard: number,
            generation: shard.generation,
            last_batch: shard.last,
            lanes: lanes.collect(),
        }
    }

    /// The checks of `gate post`, in their order.
    fn post(&mut self, batch: &PostBatchRequest) -> Result<bool, Status> {
        let (producers, cell, others) = (self.producers.clone(), self.cell, self.others.clone());
        if batch.cell != cell {
            return Err(refuse("CELL_MISMATCH", "another cell"));
        }
        let shard = self.shard(batch.shard);
        if let Some(digest) = shard.digests.get(&batch.number) {
            let kept = &shard.kept[&batch.number];
            let same = cell == 0 || (&kept.lines, &kept.elsewhere) == (&batch.lines, &batch.elsewhere);
            return if *digest == batch.digest && same {
                Ok(true)
            } else {
                Err(refuse("BATCH_CONFLICT", "conflict"))
            };
        }
        if batch.parts.iter().map(|part| part.cell).collect::<Vec<_>>() != others {
            return Err(refuse("CELL_MISMATCH", "other parts"));
        }
        if batch.number != shard.last + 1 {
            return Err(refuse("BATCH_NOT_NEXT", "not next"));
        }
        if cell == 0 && batch.generation != shard.generation {
            return Err(refuse("GENERATION_STALE", "stale"));
        }
        let mut lanes = shard.lanes.clone();
        let mut in_lanes = 0;
        for range in &batch.lanes {
            if cell == 0 && !producers.contains_key(&range.producer_id) {
                return Err(refuse("LANE_UNKNOWN", "unknown"));
            }
            let key = (range.producer_id.clone(), range.map_version);
            let (settled, chain) = lanes.get(&key).copied().unwrap_or_default();
            if range.from_sequence != settled + 1 || range.from_sequence > range.to_sequence {
                return Err(refuse("LANE_GAP", format!("{} after {settled}", range.from_sequence)));
            }
            if range.chain_before != chain {
                return Err(refuse("LANE_DIVERGED", "diverged"));
            }
            in_lanes += range.to_sequence - range.from_sequence + 1;
            lanes.insert(key, (range.to_sequence, range.chain_after));
        }
        let refused: u64 = batch.refused.iter().map(|refused| refused.events).sum();
        let elsewhere = batch.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.events);
        if batch.events + refused + elsewhere != in_lanes {
            return Err(refuse("TOTALS_MISMATCH", "events"));
        }
        shard.lanes = lanes;
        shard.last = batch.number;
        shard.generation = batch.generation;
        shard.digests.insert(batch.number, batch.digest.clone());
        shard.kept.insert(batch.number, batch.clone());
        self.book(batch);
        Ok(false)
    }

    fn book(&mut self, batch: &PostBatchRequest) {
        let mut totals: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for line in &batch.lines {
            let quantity = match line.state.as_ref().unwrap() {
                LineState::Sum(sum) => sum.quantity,
                LineState::Count(_) => i64::try_from(line.events).unwrap(),
                LineState::Max(max) => max.value,
                LineState::Unique(unique) => i64::try_from(unique.values.len()).unwrap(),
            };
            let dimensions = line.dimensions.clone().into_iter().collect();
            let booked =
                self.booked.entry((line.client_id.clone(), line.meter.clone(), dimensions)).or_default();
            booked.events += line.events;
            match line.state.as_ref().unwrap() {
                LineState::Sum(_) | LineState::Count(_) => booked.quantity += quantity,
                LineState::Max(_) => booked.quantity = booked.quantity.max(quantity),
                LineState::Unique(unique) => {
                    assert!(unique.values.is_sorted(), "sorted");
                    booked.values.extend(unique.values.iter().cloned());
                }
            }
            for (sum, more) in [
                self.sums.entry((line.client_id.clone(), line.meter.clone(), line.failed)).or_default(),
                totals.entry(line.meter.clone()).or_default(),
            ]
            .map(|sum| (sum, (line.events, quantity)))
            {
                *sum = (sum.0 + more.0, sum.1 + more.1);
            }
            if let Some(ledger::line::Attribution::UnattributedReason(reason)) = &line.attribution {
                *self.unattributed.entry(reason.clone()).or_default() += line.events;
            }
            timestamp_from_proto(line.window_start.as_ref().unwrap()).unwrap();
        }
        for total in batch.elsewhere.iter().flat_map(|elsewhere| &elsewhere.totals) {
            let sum = totals.entry(total.meter.clone()).or_default();
            *sum = (sum.0 + total.events, sum.1 + total.quantity);
        }
        for total in &batch.totals {
            assert_eq!(totals.remove(&total.meter), Some((total.events, total.quantity)));
        }
        assert!(totals.is_empty());
        for refused in &batch.refused {
            *self.refused.entry(refused.reason.clone()).or_default() += refused.events;
        }
    }
}

#[tonic::async_trait]
impl SettlementService for Gate {
    async fn post_batch(
        &self,
        request: Request<PostBatchRequest>,
    ) -> Result<Response<PostBatchResponse>, Status> {
        *self.0.posts.lock().unwrap() += 1;
        self.0.posted.notify_waiters();
        let mode = *self.0.mode.lock().unwrap();
        if matches!(mode, Mode::Down | Mode::Gone) {
            return Err(Status::unavailable("the test says so"));
        }
        let batch = request.into_inner();
        {
            let poison = self.0.poison.lock().unwrap();
            if batch.lanes.iter().any(|range| poison.contains(&range.producer_id)) {
                return Err(refuse("REQUEST_INVALID", "poison"));
            }
        }
        let already_settled = self.0.state.lock().unwrap().post(&batch)?;
        if mode == Mode::ReplyLost {
            return Err(Status::unavailable("the reply is lost"));
        }
        Ok(Response::new(PostBatchResponse { already_settled, ..PostBatchResponse::default() }))
    }

    async fn get_cell_part(
        &self,
        request: Request<ledger::GetCellPartRequest>,
    ) -> Result<Response<ledger::GetCellPartResponse>, Status> {
        let ledger::GetCellPartRequest { shard, number, cell } = request.into_inner();
        let state = self.0.state.lock().unwrap();
        let kept = state.shards.get(&shard).and_then(|shard| shard.kept.get(&number)).cloned();
        let batch = kept.ok_or_else(|| refuse("BATCH_UNKNOWN", "unknown"))?;
        let part = batch.parts.iter().find(|part| part.cell == cell).cloned();
        let part = part.ok_or_else(|| refuse("CELL_MISMATCH", "no such cell"))?;
        let events: u64 = part.lines.iter().map(|line| line.events).sum();
        let in_lanes: u64 = batch.lanes.iter().map(|range| range.to_sequence - range.from_sequence + 1).sum();
        let mut totals = batch.totals.clone();
        for line in &part.lines {
            let total = totals.iter_mut().find(|total| total.meter == line.meter).unwrap();
            total.events -= line.events;
            total.quantity -= match line.state.as_ref().unwrap() {
                LineState::Sum(sum) => sum.quantity,
                _ => i64::try_from(line.events).unwrap(),
            };
        }
        totals.retain(|total| total.events > 0);
        let elsewhere = Some(ledger::Elsewhere { events: in_lanes - events, totals });
        let (refused, parts) = (Vec::new(), Vec::new());
        let post = PostBatchRequest { cell, events, elsewhere, refused, parts, lines: part.lines, ..batch };
        Ok(Response::new(ledger::GetCellPartResponse { post: Some(post) }))
    }

    async fn get_shards(
        &self,
        request: Request<ledger::GetShardsRequest>,
    ) -> Result<Response<ledger::GetShardsResponse>, Status> {
        let request = request.into_inner();
        if *self.0.mode.lock().unwrap() == Mode::Gone {
            return Err(Status::unavailable("the test says so"));
        }
        let mut state = self.0.state.lock().unwrap();
        let shards = request.shards.iter().map(|shard| state.cursor(*shard)).collect();
        let known = request.producer_ids.iter().filter_map(|id| state.producers.get_key_value(id));
        let producers = known
            .map(|(id, epoch)| ledger::ProducerState { producer_id: id.clone(), epoch: *epoch })
            .collect();
        Ok(Response::new(ledger::GetShardsResponse { shards, window_secs: 60, producers, cell: state.cell }))
    }

    async fn begin_reset(
        &self,
        request: Request<ledger::BeginResetRequest>,
    ) -> Result<Response<ledger::BeginResetResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        let shard = state.shard(request.shard);
        if shard.generation != request.expected_generation {
            return Err(refuse("GENERATION_STALE", "another generation"));
        }
        shard.generation = rand::random();
        *self.0.resets.lock().unwrap() += 1;
        let cursor = Some(state.cursor(request.shard));
        Ok(Response::new(ledger::BeginResetResponse { cursor }))
    }

    async fn open_producer(
        &self,
        request: Request<ledger::OpenProducerRequest>,
    ) -> Result<Response<ledger::OpenProducerResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        let epoch = state
            .producers
            .get_mut(&request.producer_id)
            .ok_or_else(|| Status::from(Refusal::new(Code::NotFound, "PRODUCER_UNKNOWN", "unknown")))?;
        *epoch = (*epoch).max(request.log_epoch) + 1;
        let epoch = *epoch;
        let shards: Vec<u32> = state.shards.keys().copied().collect();
        let lanes = shards.into_iter().flat_map(|shard| state.cursor(shard).lanes);
        let lanes = lanes.filter(|lane| lane.producer_id == request.producer_id).collect();
        Ok(Response::new(ledger::OpenProducerResponse { epoch, lanes }))
    }

    async fn reset_all_shards(
        &self,
        _: Request<ledger::ResetAllShardsRequest>,
    ) -> Result<Response<ledger::ResetAllShardsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn create_producer(
        &self,
        _: Request<ledger::CreateProducerRequest>,
    ) -> Result<Response<ledger::CreateProducerResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn name_lost(
        &self,
        _: Request<ledger::NameLostRequest>,
    ) -> Result<Response<ledger::NameLostResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn has_settled_usage(
        &self,
        _: Request<ledger::HasSettledUsageRequest>,
    ) -> Result<Response<ledger::HasSettledUsageResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[tonic::async_trait]
impl CatalogService for Gate {
    async fn list_meters(
        &self,
        _: Request<ledger::ListMetersRequest>,
    ) -> Result<Response<ledger::ListMetersResponse>, Status> {
        let meters = self.0.state.lock().unwrap().meters.values().cloned().collect();
        Ok(Response::new(ledger::ListMetersResponse { meters, next_page_token: String::new() }))
    }

    async fn create_meter(
        &self,
        _: Request<ledger::CreateMeterRequest>,
    ) -> Result<Response<ledger::CreateMeterResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn publish_rate_card(
        &self,
        _: Request<ledger::PublishRateCardRequest>,
    ) -> Result<Response<ledger::PublishRateCardResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_rate_cards(
        &self,
        _: Request<ledger::ListRateCardsRequest>,
    ) -> Result<Response<ledger::ListRateCardsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[tonic::async_trait]
impl ResolutionService for Gate {
    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn batch_resolve(
        &self,
        request: Request<BatchResolveRequest>,
    ) -> Result<Response<BatchResolveResponse>, Status> {
        let state = self.0.state.lock().unwrap();
        let resolutions = request.into_inner().queries.into_iter().map(|query| {
            let answer = if state.strangers.contains(&query.client_id) {
                Answer::Unresolved(UnresolvedReason::UnknownClient.into())
            } else {
                Answer::BilledTo(BilledTo {
                    app_id: state.apps.get(&query.client_id).cloned().unwrap_or_else(|| "app".to_owned()),
                    team_id: "team".to_owned(),
                    account_id: "acct".to_owned(),
                    contract_kind: entitlement::ContractKind::Flex.into(),
                    in_trial: false,
                    cell: state.elsewhere.get(&query.client_id).copied().unwrap_or_default(),
                })
            };
            Resolution { client_id: query.client_id, answer: Some(answer) }
        });
        Ok(Response::new(BatchResolveResponse { resolutions: resolutions.collect() }))
    }
}

//! Cursors, posts and resets. The ledger is the only one who says what is settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drawdown_client::{Channel, channel::Transport, ledger};
use drawdown_metering_core::{
    look::{Cursor, Head, LaneSettled},
    shard::{Lane, Position},
};
use drawdown_proto::ledger::v1::{
    BeginResetRequest, GetCellPartRequest, GetShardsRequest, NameLostRequest, NameLostResponse,
    OpenProducerRequest, OpenProducerResponse, PostBatchRequest, PostBatchResponse, ShardCursor,
    settlement_service_client::SettlementServiceClient,
};
use drawdown_types::{ProducerId, WindowSize};
use tonic::{Code, Status};

use super::Error;

const PEER: &str = "ledger";
/// Producers that one question may name: what the ledger takes.
const PRODUCERS_MAX: usize = 16_384;
/// The ledger knows other cells than this instance.
const CELL_MISMATCH: &str = "CELL_MISMATCH";

/// Cursors of some shards, with the producers asked for, of one read.
#[derive(Clone, Debug)]
pub(crate) struct Shards {
    /// By shard.
    pub(crate) cursors: HashMap<u32, Cursor>,
    /// Registered epochs of those producers that are known.
    pub(crate) producers: HashMap<ProducerId, u64>,
    /// The window size of the installation.
    pub(crate) window: WindowSize,
}

/// Whose lanes come with the cursors of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LanesOf {
    /// All that the shards have: as many as there ever were.
    Everybody,
    /// Those of some producers, in order, which are looked up as well.
    Producers(Vec<ProducerId>),
}

/// What became of a post.
#[derive(Clone, Debug)]
pub(crate) enum Posted {
    /// The ledger has the batch.
    Settled(PostBatchResponse),
    /// The gate refused it; posting it again changes nothing.
    Refused {
        /// The stable reason, where one was given.
        reason: String,
        /// For people.
        message: String,
    },
}

/// The ledger's settlement service.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    settlement: SettlementServiceClient<Transport>,
}

impl LanesOf {
    /// Nobody's: the cursors alone.
    pub(crate) const NOBODY: Self = Self::Producers(Vec::new());

    /// Lanes of these producers; of everybody where they are more than may be named.
    pub(crate) fn producers(producers: impl IntoIterator<Item = ProducerId>) -> Self {
        let producers: BTreeSet<ProducerId> = producers.into_iter().collect();
        if producers.len() > PRODUCERS_MAX {
            return Self::Everybody;
        }
        Self::Producers(producers.into_iter().collect())
    }

    /// Those that some heads have.
    pub(crate) fn heads<'a>(heads: impl IntoIterator<Item = &'a Head>) -> Self {
        Self::producers(heads.into_iter().flat_map(|head| head.lanes.keys().map(|lane| lane.producer)))
    }

    /// Whether a producer's lanes are among them.
    pub(crate) fn has(&self, producer: &ProducerId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Producers(producers) => producers.binary_search(producer).is_ok(),
        }
    }
}

impl Ledger {
    /// Over a channel.
    #[must_use]
    pub(crate) fn new(channel: &Channel) -> Self {
        Self { settlement: ledger::settlement(channel) }
    }

    /// Cursors of some shards, as committed in this cell.
    pub(crate) async fn shards(&self, shards: &[u32], lanes: &LanesOf, cell: u8) -> Result<Shards, Error> {
        const CALL: &str = "GetShards";
        let (producers, only_their_lanes) = match lanes {
            LanesOf::Everybody => (&[][..], false),
            LanesOf::Producers(producers) => (producers.as_slice(), true),
        };
        let producer_ids = producers.iter().map(ToString::to_string).collect();
        let request = GetShardsRequest { shards: shards.to_vec(), producer_ids, only_their_lanes };
        let answer = self.settlement.clone().get_shards(request).await.map_err(Error::call(PEER, CALL))?;
        let answer = answer.into_inner();
        let malformed = |detail: String| Error::answer(PEER, CALL, detail);
        if answer.cell != u32::from(cell) {
            return Err(malformed(format!("it is cell {}, not {cell}", answer.cell)));
        }
        let mut cursors = HashMap::with_capacity(answer.shards.len());
        for cursor in answer.shards {
            let shard = cursor.shard;
            cursors.insert(shard, cursor_of(cursor).map_err(malformed)?);
        }
        if let Some(missing) = shards.iter().find(|shard| !cursors.contains_key(shard)) {
            return Err(malformed(format!("shard {missing} is missing")));
        }
        let mut known = HashMap::with_capacity(answer.producers.len());
        for producer in answer.producers {
            let id = producer.producer_id.parse().map_err(|error| malformed(format!("{error}")))?;
            known.insert(id, producer.epoch);
        }
        let window =
            WindowSize::from_secs(answer.window_secs).map_err(|error| malformed(error.to_string()))?;
        Ok(Shards { cursors, producers: known, window })
    }

    /// Posts a batch. An error says nothing about its outcome: the same batch may be posted again.
    pub(crate) async fn post(&self, batch: PostBatchRequest) -> Result<Posted, Error> {
        match self.settlement.clone().post_batch(batch).await {
            Ok(answer) => Ok(Posted::Settled(answer.into_inner())),
            Err(status) if is_refusal(&status) => Ok(Posted::Refused {
                reason: drawdown_client::reason_of(&status).unwrap_or_default(),
                message: status.message().to_owned(),
            }),
            Err(status) => Err(Error::call(PEER, "PostBatch")(status)),
        }
    }

    /// What a settled batch of the leading cell has for another one.
    pub(crate) async fn part(&self, shard: u32, number: u64, cell: u8) -> Result<PostBatchRequest, Error> {
        const CALL: &str = "GetCellPart";
        let request = GetCellPartRequest { shard, number, cell: cell.into() };
        let answer = self.settlement.clone().get_cell_part(request).await.map_err(Error::call(PEER, CALL))?;
        answer.into_inner().post.ok_or_else(|| Error::answer(PEER, CALL, "there is no part"))
    }

    /// Gives a shard a new generation, if it still has the expected one; `None` where it has another.
    pub(crate) async fn begin_reset(
        &self,
        shard: u32,
        expected: u64,
        cause: String,
    ) -> Result<Option<Cursor>, Error> {
        const CALL: &str = "BeginReset";
        let request = BeginResetRequest { shard, expected_generation: expected, cause };
        let answer = match self.settlement.clone().begin_reset(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_refusal(&status) => return Ok(None),
            Err(status) => return Err(Error::call(PEER, CALL)(status)),
        };
        let cursor = answer.cursor.ok_or_else(|| Error::answer(PEER, CALL, "there is no cursor"))?;
        cursor_of(cursor).map(Some).map_err(|detail| Error::answer(PEER, CALL, detail))
    }

    /// Registers a restart of a producer. What the ledger refuses goes back to the caller as it is.
    pub(crate) async fn open_producer(
        &self,
        producer: ProducerId,
        log_epoch: u64,
    ) -> Result<OpenProducerResponse, Status> {
        let request = OpenProducerRequest { producer_id: producer.to_string(), log_epoch };
        Ok(self.settlement.clone().open_producer(request).await?.into_inner())
    }

    /// Has a range of a lane named as lost. What the ledger refuses goes back to the caller as it is.
    pub(crate) async fn name_lost(&self, claim: NameLostRequest) -> Result<NameLostResponse, Status> {
        Ok(self.settlement.clone().name_lost(claim).await?.into_inner())
    }
}

/// Whether the ledger has judged the batch, in contrast to not having been able to. Where that is not clear it
/// has not: a post may be repeated at will, a reset is not free.
fn is_refusal(status: &Status) -> bool {
    match status.code() {
        // A matter of configuration, which no reset mends.
        Code::FailedPrecondition if drawdown_client::reason_of(status).as_deref() == Some(CELL_MISMATCH) => {
            false
        }
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange => true,
        Code::Aborted => drawdown_client::reason_of(status).is_some(),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

fn cursor_of(cursor: ShardCursor) -> Result<Cursor, String> {
    let mut lanes = BTreeMap::new();
    for state in cursor.lanes {
        let producer = state.producer_id.parse().map_err(|error| format!("{error}"))?;
        let lane = Lane { producer, map_version: state.map_version, shard: state.shard };
        let settled = Position { sequence: state.settled_sequence, chain: state.settled_chain };
        lanes.insert(lane, LaneSettled { epoch: state.epoch, settled });
    }
    Ok(Cursor { generation: cursor.generation, last_batch: cursor.last_batch, lanes })
}

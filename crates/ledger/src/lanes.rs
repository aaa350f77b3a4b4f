//! Cursors, lanes and producers: what the gate's words are given to and changed by, beside posting.
//! Each is one transaction whose first lock is the cursor of its shard, or the producer's row.

use std::collections::{HashMap, HashSet};

use drawdown_service::{Code, Refusal};
use drawdown_types::{ProducerId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    error::Error,
    reason,
    service::{Ledger, connection},
    store::{
        audit, outbox,
        shards::{self, Cursor, Lane, LaneKey, LanesOf, LostRange},
    },
};

/// A shard as committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardState {
    /// Its cursor.
    pub(crate) cursor: Cursor,
    /// Its lanes of every map version, of whom was asked for.
    pub(crate) lanes: Vec<Lane>,
}

/// A range that a producer has freed and the ledger does not have.
#[derive(Clone, Debug)]
pub(crate) struct LostClaim {
    /// The shard.
    pub(crate) shard: i32,
    /// The lane.
    pub(crate) key: LaneKey,
    /// The producer's epoch.
    pub(crate) epoch: i64,
    /// The settled position as the producer knows it.
    pub(crate) settled: i64,
    /// Its chain there.
    pub(crate) chain: u64,
    /// The last sequence freed.
    pub(crate) freed: i64,
    /// Its chain there.
    pub(crate) freed_chain: u64,
}

fn precondition(reason: &'static str, why: impl Into<String>) -> Error {
    Refusal::new(Code::FailedPrecondition, reason, why).into()
}

// === impl Ledger ===

impl Ledger {
    /// The shards asked for, in the order asked (a new one gets a cursor), and those of `producers` that
    /// are registered with their epochs: all of one instant. `lanes` says whose lanes come with the cursors.
    pub(crate) async fn shards(
        &self,
        wanted: &[i32],
        producers: &[ProducerId],
        lanes: LanesOf,
    ) -> Result<(Vec<ShardState>, Vec<(ProducerId, i64)>), Error> {
        let mut snapshot = shards::snapshot(&self.pool, wanted, producers, lanes).await?;
        let known: HashSet<i32> = snapshot.cursors.iter().map(|cursor| cursor.shard).collect();
        let missing: Vec<i32> = wanted.iter().filter(|shard| !known.contains(shard)).copied().collect();
        if !missing.is_empty() {
            let generations: Vec<u64> = missing.iter().map(|_| rand::random()).collect();
            shards::ensure_cursors(&self.pool, &missing, &generations, self.clock.now()).await?;
            snapshot = shards::snapshot(&self.pool, wanted, producers, lanes).await?;
        }
        let mut states: HashMap<i32, ShardState> = snapshot
            .cursors
            .into_iter()
            .map(|cursor| (cursor.shard, ShardState { cursor, lanes: Vec::new() }))
            .collect();
        for lane in snapshot.lanes {
            if let Some(state) = states.get_mut(&lane.shard) {
                state.lanes.push(lane);
            }
        }
        let state = |shard: &i32| {
            states.get(shard).cloned().ok_or_else(|| Error::Broken("a new cursor is not there".to_owned()))
        };
        Ok((wanted.iter().map(state).collect::<Result<_, _>>()?, snapshot.producers))
    }

    /// Gives a shard a new generation, if it still has the expected one.
    pub(crate) async fn begin_reset(
        &self,
        shard: i32,
        expected: u64,
        cause: &str,
    ) -> Result<ShardState, Error> {
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        let cursor = shards::lock_cursor_in_tx(at, shard)
            .await?
            .ok_or_else(|| precondition(reason::SHARD_UNKNOWN, format!("shard {shard} has no cursor")))?;
        if cursor.generation != expected {
            return Err(precondition(
                reason::GENERATION_STALE,
                "the shard has another generation: look again",
            ));
        }
        self.renew_in_tx(&mut tx, &cursor, cause).await?;
        tx.commit().await?;
        self.metrics.reset(1);
        tracing::warn!(shard, cause, "shard was reset");
        let (mut states, _) = self.shards(&[shard], &[], LanesOf::Everybody).await?;
        states.pop().ok_or_else(|| Error::Broken("a reset shard is not there".to_owned()))
    }

    /// Gives every shard a new generation: after a restore of the database.
    pub(crate) async fn reset_all(&self, cause: &str) -> Result<usize, Error> {
        let mut tx = self.begin().await?;
        let all = shards::lock_all_cursors_in_tx(connection(&mut tx)).await?;
        for cursor in &all {
            self.renew_in_tx(&mut tx, cursor, cause).await?;
        }
        // A restore gave out places that other facts had before: no reader may go on from there.
        outbox::renew_in_tx(connection(&mut tx)).await?;
        tx.commit().await?;
        self.metrics.reset(all.len());
        tracing::warn!(shards = all.len(), cause, "all shards were reset");
        Ok(all.len())
    }

    async fn renew_in_tx(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        cursor: &Cursor,
        cause: &str,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let at = connection(tx);
        let renewed = Cursor { generation: rand::random(), ..cursor.clone() };
        shards::set_generation_in_tx(at, renewed.shard, renewed.generation, now).await?;
        let shows = |cursor| serde_json::json!({ "shard": audited::shard(cursor) });
        let line = audit::Line {
            action: "shard.reset",
            subject: renewed.shard.to_string(),
            detail: serde_json::json!({ "cause": cause }),
            before: Some(shows(cursor)),
            after: shows(&renewed),
        };
        audit::note_in_tx(at, now, line).await
    }

    /// Registers a producer.
    pub(crate) async fn create_producer(
        &self,
        name: &str,
    ) -> Result<(Transaction<'static, Postgres>, ProducerId), Error> {
        let mut tx = self.begin().await?;
        let (id, now, at) = (ProducerId::generate(), self.clock.now(), connection(&mut tx));
        shards::insert_producer_in_tx(at, id, name, now).await?;
        let line = audit::Line {
            action: "producer.create",
            subject: id.to_string(),
            detail: serde_json::json!({ "name": name }),
            before: None,
            after: serde_json::json!({ "producer": { "producer": id.to_string(), "name": name } }),
        };
        audit::note_in_tx(at, now, line).await?;
        Ok((tx, id))
    }

    /// Raises a producer's epoch and tells where its lanes stand, as one step: a lane that settles in
    /// between belongs to the older epoch, and the gate does not ask for epochs.
    pub(crate) async fn open_producer(
        &self,
        id: ProducerId,
        log_epoch: i64,
    ) -> Result<(i64, Vec<Lane>), Error> {
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        let epoch = shards::raise_epoch_in_tx(at, id, log_epoch, self.clock.now()).await?;
        let Some(epoch) = epoch else {
            let why = "the producer is not registered";
            let refusal = Refusal::new(Code::NotFound, reason::PRODUCER_UNKNOWN, why);
            return Err(refusal.violation("producer_id", format!("{id} is not registered")).into());
        };
        let lanes = shards::lanes_of_producer_in_tx(at, id).await?;
        tx.commit().await?;
        Ok((epoch, lanes))
    }

    /// Gives up a range after a proof by chain, and resets the shard: what Redis holds joins the lane at
    /// its old place.
    pub(crate) async fn name_lost(&self, claim: &LostClaim) -> Result<(i64, i64), Error> {
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        let Some(cursor) = shards::lock_cursor_in_tx(at, claim.shard).await? else {
            let why = format!("shard {} has no cursor", claim.shard);
            return Err(precondition(reason::SHARD_UNKNOWN, why));
        };
        let lane = shards::lane_in_tx(at, claim.shard, claim.key).await?;
        let lost = prove(claim, lane)?;
        let now: Timestamp = self.clock.now();
        shards::name_lost_in_tx(at, &lost, now).await?;
        audit::note_in_tx(at, now, lost_line(&lost)).await?;
        self.renew_in_tx(&mut tx, &cursor, "a lost range was named").await?;
        tx.commit().await?;
        self.metrics.lost(lost.to.saturating_sub(lost.from).saturating_add(1));
        self.metrics.reset(1);
        tracing::error!(
            producer.id = %claim.key.producer_id,
            lane.map_version = claim.key.map_version,
            shard = claim.shard,
            from = lost.from,
            to = lost.to,
            "a range of events is lost"
        );
        Ok((lost.from, lost.to))
    }
}

/// A range that is given up: its lane was settled up to just before it, and goes on just behind it.
fn lost_line(lost: &LostRange) -> audit::Line {
    let producer = lost.key.producer_id.to_string();
    let shows = |settled: i64| {
        serde_json::json!({ "lane": {
            "producer": producer, "map_version": lost.key.map_version, "shard": lost.shard, "settled": settled,
        } })
    };
    audit::Line {
        action: "lane.name_lost",
        subject: producer.clone(),
        detail: serde_json::json!({ "shard": lost.shard, "from": lost.from, "to": lost.to }),
        before: Some(shows(lost.from.saturating_sub(1))),
        after: shows(lost.to),
    }
}

/// A claim holds when the producer is the registered one, knows the settled position and its chain, and
/// has freed beyond it.
fn prove(claim: &LostClaim, lane: Option<Lane>) -> Result<LostRange, Error> {
    let Some(lane) = lane else {
        let why = "the producer is not registered";
        return Err(Refusal::new(Code::NotFound, reason::PRODUCER_UNKNOWN, why).into());
    };
    if claim.epoch != lane.epoch {
        return Err(precondition(reason::FENCED, "a newer opening of the producer's log is registered"));
    }
    if claim.settled != lane.settled {
        let why = format!("the lane is settled up to {}: look again", lane.settled);
        return Err(precondition(reason::LANE_GAP, why));
    }
    if claim.freed <= lane.settled {
        return Err(precondition(reason::NOTHING_LOST, "everything the producer has freed is settled"));
    }
    if claim.chain != lane.chain {
        let why = "the chain at the settled position is not the settled one: the range is in doubt";
        return Err(precondition(reason::LANE_DIVERGED, why));
    }
    Ok(LostRange {
        shard: claim.shard,
        key: claim.key,
        epoch: lane.epoch,
        from: lane.settled.saturating_add(1),
        to: claim.freed,
        chain_before: lane.chain,
        chain_after: claim.freed_chain,
    })
}

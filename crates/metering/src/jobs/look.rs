//! One look at some shards: the cursors (A), then the heads, in this order.
//!
//! The ledger has the position of every lane there ever was, a head has those in use. So the ledger is asked for the lanes
//! of the producers that the heads had at the look before. A head that has others by now can not be compared with that
//! answer: then both are read again, with the names of these; and after some such looks the ledger is asked for all it has.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use drawdown_metering_core::look::Head;
use drawdown_types::ProducerId;

use super::{
    settle::{Seen, Worker},
    work::{Failed, no_shard},
};
use crate::{peer::LanesOf, redis::HeadFault};

/// Looks by names, before everything is read.
const NAMED_LOOKS: usize = 3;

/// The producers whose lanes each head had when it was read last.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<HashMap<u32, Vec<ProducerId>>>);

impl Named {
    fn lanes(&self, shards: &[u32]) -> LanesOf {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        LanesOf::producers(shards.iter().filter_map(|shard| named.get(shard)).flatten().copied())
    }

    /// Notes what the heads have; says whether the lanes that were asked for are all of them.
    fn note(&self, shards: &[u32], heads: &[Result<Head, HeadFault>], asked: &LanesOf) -> bool {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        for (shard, head) in shards.iter().zip(heads) {
            let Ok(head) = head else { continue };
            let producers: Vec<ProducerId> = head.lanes.keys().map(|lane| lane.producer).collect();
            all &= producers.iter().all(|producer| asked.has(producer));
            named.insert(*shard, producers);
        }
        all
    }
}

impl Worker {
    /// Some shards, in the order asked.
    pub(super) async fn look(&self, shards: &[u32]) -> Result<Vec<Seen>, Failed> {
        let mut looks = 0;
        let (mut standings, heads) = loop {
            let lanes = if looks < NAMED_LOOKS { self.named.lanes(shards) } else { LanesOf::Everybody };
            let standings = self.instance.cells.shards(shards, &lanes).await?.shards;
            let heads = self.instance.store.look(shards).await?;
            if self.named.note(shards, &heads, &lanes) {
                break (standings, heads);
            }
            looks += 1;
        };
        let seen = shards.iter().zip(heads).map(|(shard, head)| {
            let standing = standings.remove(shard).ok_or_else(|| no_shard(*shard))?;
            Ok(Seen { standing, head })
        });
        seen.collect()
    }
}

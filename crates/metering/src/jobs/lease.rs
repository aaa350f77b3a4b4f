//! Who looks at which shard, where several instances share them.
//!
//! Shape: one task. Some times in the life of a lease it says that its instance is here, hears which others are, and asks
//! for each shard's lease: it keeps what it has, gives back what is above its share, and takes what is free up to it.
//! The shares of all add up to all shards, and nobody's differs from another's by more than one.
//!
//! Doctrine: a lease spares work and decides nothing. Every step of a worker is compared and set, so a lease that two
//! believe to have, or that nobody gets, costs a look twice and no more. Where Redis gives no leases at all for the
//! life of one, every instance looks at everything. An instance that dies is replaced after at most
//! `lease_ms` and two periods, of a third of it each; one that ends gives its leases back.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    instance::Instance,
    redis::{Lease, LeaseAsk, LeaseWish},
};

/// Periods in the life of a lease.
const PERIODS: u32 = 3;

/// The leases of one instance.
#[derive(Debug)]
pub(super) struct Leases {
    token: u64,
    life: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Until when a shard is ours, as far as this machine's clock can tell.
    until: HashMap<u32, Instant>,
    /// When Redis answered last.
    answered: Instant,
}

impl Leases {
    pub(super) fn new(life: Duration) -> Self {
        let state = State { until: HashMap::new(), answered: Instant::now() };
        Self { token: rand::random(), life, state: Mutex::new(state) }
    }

    /// Whether this instance is the one to look at a shard.
    pub(super) fn holds(&self, shard: u32, now: Instant) -> bool {
        let state = self.lock();
        let alone = now.saturating_duration_since(state.answered) > self.life;
        alone || state.until.get(&shard).is_some_and(|until| *until > now)
    }

    /// Renews, takes and gives back until the signal to stop; then gives everything back.
    pub(super) async fn keep(&self, instance: &Instance, stop: CancellationToken) {
        loop {
            if let Err(error) = self.renew(instance).await {
                instance.metrics.redis_error("lease");
                let chain = drawdown_service::refusal::chain(&error.into());
                tracing::warn!(error = %chain, "the leases of shards were not renewed");
            }
            let period = self.life / PERIODS;
            // Up to a quarter off, so that instances do not ask in step.
            let cut = (period / 4).mul_f64(rand::random());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(period.saturating_sub(cut)) => {}
            }
        }
        let wishes = instance.shard_numbers().into_iter().map(|shard| (shard, LeaseWish::Leave));
        let left = async {
            instance.store.leave_workers(self.token).await?;
            instance.store.leases(&self.asks(wishes)).await
        };
        if let Err(error) = left.await {
            let chain = drawdown_service::refusal::chain(&error.into());
            tracing::info!(error = %chain, "the leases of shards run out by themselves");
        }
    }

    async fn renew(&self, instance: &Instance) -> Result<(), crate::redis::Error> {
        let began = Instant::now();
        let workers = instance.store.workers(self.token, self.life).await?;
        let shards = instance.shard_numbers();
        let share = share(shards.len(), self.token, &workers);
        let held: Vec<u32> = {
            let state = self.lock();
            shards.iter().copied().filter(|shard| state.until.contains_key(shard)).collect()
        };
        let wishes = wishes(&shards, &held, share);
        let answers = instance.store.leases(&self.asks(wishes.iter().copied())).await?;
        let (mut ours, mut free) = (Vec::new(), Vec::new());
        for ((shard, _), answer) in wishes.into_iter().zip(answers) {
            match answer {
                Lease::Ours => ours.push(shard),
                Lease::Free => free.push(shard),
                Lease::Others => {}
            }
        }
        let taken = some_of(&free, share.saturating_sub(ours.len()), rand::random());
        let asks = self.asks(taken.iter().map(|shard| (*shard, LeaseWish::Keep)));
        let answers = if asks.is_empty() { Vec::new() } else { instance.store.leases(&asks).await? };
        let gained = taken.into_iter().zip(answers).filter(|(_, answer)| *answer == Lease::Ours);
        ours.extend(gained.map(|(shard, _)| shard));
        self.have(instance, began, &ours);
        Ok(())
    }

    fn have(&self, instance: &Instance, began: Instant, ours: &[u32]) {
        let mut state = self.lock();
        state.answered = began;
        let before = std::mem::take(&mut state.until);
        state.until = ours.iter().map(|shard| (*shard, began + self.life)).collect();
        let lost: Vec<u32> = before.keys().copied().filter(|shard| !ours.contains(shard)).collect();
        let gained = ours.iter().any(|shard| !before.contains_key(shard));
        drop(state);
        for shard in lost {
            // Whoever has it now says how far it is.
            instance.metrics.drift(shard, 0, Duration::ZERO);
            instance.metrics.lanes(shard, 0);
        }
        instance.metrics.leases(ours.len());
        if gained {
            instance.worker_wanted.notify_one();
        }
    }

    fn asks(&self, wishes: impl IntoIterator<Item = (u32, LeaseWish)>) -> Vec<LeaseAsk> {
        let ask = |(shard, wish)| LeaseAsk { shard, token: self.token, life: self.life, wish };
        wishes.into_iter().map(ask).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many of the shards are one worker's, so that those of all workers add up.
fn share(shards: usize, token: u64, workers: &[u64]) -> usize {
    let count = workers.len().max(1);
    let rank = workers.iter().filter(|other| **other < token).count();
    shards / count + usize::from(rank < shards % count)
}

/// What to ask for, of each shard once: as many of those held as the share allows are kept, the others given back.
fn wishes(shards: &[u32], held: &[u32], share: usize) -> Vec<(u32, LeaseWish)> {
    let mut kept = 0;
    let wish = |shard: &u32| {
        if !held.contains(shard) {
            return (*shard, LeaseWish::See);
        }
        kept += 1;
        (*shard, if kept <= share { LeaseWish::Keep } else { LeaseWish::Leave })
    };
    shards.iter().map(wish).collect()
}

/// So many of these, from a random one on: two instances that come at once want different ones.
fn some_of(free: &[u32], count: usize, random: u64) -> Vec<u32> {
    let start = usize::try_from(random).unwrap_or_default().checked_rem(free.len()).unwrap_or_default();
    free.iter().cycle().skip(start).take(count.min(free.len())).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_workers_add_up_and_differ_by_one_at_most() {
        for workers in 1..9_u64 {
            let tokens: Vec<u64> = (0..workers).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            for shards in 0..40 {
                let shares: Vec<usize> = tokens.iter().map(|token| share(shards, *token, &tokens)).collect();
                assert_eq!(shares.iter().sum::<usize>(), shards, "{shares:?}");
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
            }
        }
        assert_eq!(share(4, 7, &[]), 4, "nobody else is there");
    }

    #[test]
    fn what_is_above_the_share_is_given_back() {
        use LeaseWish::{Keep, Leave, See};
        assert_eq!(wishes(&[0, 1, 2, 3], &[1, 3], 1), [(0, See), (1, Keep), (2, See), (3, Leave)]);
        assert_eq!(wishes(&[0, 1], &[], 2), [(0, See), (1, See)]);
    }

    #[test]
    fn free_ones_are_taken_up_to_the_share_from_anywhere() {
        assert_eq!(some_of(&[4, 5, 6], 2, 5), [6, 4]);
        assert_eq!(some_of(&[4], 9, 3), [4]);
        assert!(some_of(&[], 2, 1).is_empty());
    }
}

//! The real service on a real Postgres against the naive ledger: random histories through the handlers, everything
//! visible compared and every invariant checked after every step.
//!
//! A sequence is a history of two teams of an account of its own, with a clock, apps, a producer and a shard of its
//! own. Some sequences share a database ([`group`]): each does a step and is compared, then one verification looks at
//! all of them. It goes on from the one before (its points), and a full one ends the group.
//!
//! `LEDGER_SEQUENCES` sets how many sequences are tried (2,000 without it), `PROPTEST_RNG_SEED` which. What only the
//! core is told (settlement standing still) is left out; rate cards are set up before the sequences begin, several versions
//! of each.

mod batches;
mod compare;
mod corrections;
mod group;
mod holds;
mod imports;
mod lots;

use std::{collections::BTreeMap, sync::Arc};

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_ledger_model::{
    self as naive, Ledger,
    history::{KINDS, Op, Setup, TEAMS, When},
};
use drawdown_types::{AppId, ProducerId, Timestamp};
use uuid::Uuid;

use crate::world::{Buyer, DAY, World};

/// As the service's own setting.
const ALLOWANCE: i64 = 300 * naive::SECOND;

fn instant(at: i64) -> Timestamp {
    Timestamp::from_micros(at).unwrap()
}

/// A sequence: the two ledgers side by side.
struct Both {
    world: World,
    naive: Ledger,
    teams: Vec<Buyer>,
    apps: Vec<AppId>,
    producer: ProducerId,
    /// Its place in the group; also its shard.
    number: u32,
    now: i64,
    made: u64,
    batches: usize,
    lots: BTreeMap<u64, String>,
    holds: BTreeMap<u64, String>,
    /// The client id of each line, by batch and line.
    lines: BTreeMap<(usize, usize), String>,
}

impl Both {
    async fn new(world: World, number: u32, setup: &Setup, naive: Ledger) -> Self {
        world.clock.set(instant(setup.start));
        let flex = world.buyer();
        let teams = vec![flex, world.sibling(flex)];
        for (buyer, kind) in teams.iter().zip(KINDS) {
            world.contract(*buyer, kind.parse().unwrap(), None);
        }
        let producer = world.producer().await;
        let apps = (0..3).map(|_| AppId::generate()).collect();
        Self {
            world,
            naive,
            teams,
            apps,
            producer,
            number,
            now: setup.start,
            made: 0,
            batches: 0,
            lots: BTreeMap::new(),
            holds: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    fn settled(&self) -> i64 {
        self.now - ALLOWANCE
    }

    fn resolve(&self, when: When) -> i64 {
        when.at(&self.naive, self.now)
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Clock(when) => {
                let to = self.resolve(*when).max(self.now - 30 * naive::SECOND);
                self.now = to;
                self.world.clock.set(instant(to));
            }
            Op::Job { .. } => self.job().await,
            Op::Purchase { team, tokens, original } => self.purchase(*team, *tokens, *original).await,
            Op::Grant { .. } => self.grant(op).await,
            Op::Batch { lines, .. } => self.batch(lines).await,
            Op::Read { team, at } => self.read(*team, self.resolve(*at)).await,
            Op::Move { lot, from, to } => self.move_lot(*lot, *from, *to).await,
            Op::Adjust { lot, team, delta } => self.adjust(*lot, *team, *delta).await,
            Op::Refund { lot, team, amount } => self.refund(*lot, *team, *amount).await,
            Op::Chargeback { lot } => self.charge_back(*lot).await,
            Op::Reserve { .. } => self.reserve(op).await,
            Op::Extend { team, hold, lasts, more } => self.extend(*team, *hold, *lasts, *more).await,
            Op::Release { team, hold } => self.release(*team, *hold).await,
            Op::Correct { .. } => self.correct(op).await,
            Op::Import { .. } => self.import(op).await,
            Op::Publish { .. } | Op::Settlement { .. } => {}
        }
        self.compare().await;
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// The job looks at every team that is not locked: those of other sequences, which have clocks of their own, are.
    async fn job(&mut self) {
        let own: Vec<Uuid> = self.teams.iter().map(|buyer| buyer.team.as_uuid()).collect();
        let mut others = self.world.database.pool().begin().await.unwrap();
        let lock = sqlx::query("select from ledger.balance where team_id <> all($1) for update").bind(own);
        lock.execute(&mut *others).await.unwrap();
        let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
        Due::new(Arc::clone(&self.world.ledger), config).look().await.unwrap();
        others.rollback().await.unwrap();
        for team in 0..TEAMS {
            self.naive.advance(team, self.now, self.settled());
        }
        self.naive.hit("a job");
    }

    fn latest(&self, team: usize) -> i64 {
        self.naive.teams[team].posted.map_or(self.now, |posted| posted.max(self.now))
    }
}

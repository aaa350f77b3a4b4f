//! The two ledgers side by side: each step is put to both, then everything visible must be equal.

use std::collections::BTreeMap;

mod batches;
mod checks;
mod corrections;
mod imports;
mod lots;
mod moves;

use drawdown_ledger_core::{
    Attribution, Batch, ContractKind, Correction, Cycle, Grant, Line, LotView, NewVersion, Payer, Plan,
    PoolKind, PoolOrder, PriceBook, Purchase, Reservation, Settings, StandingCharge, Team, Terms,
    Unattributable, Usage, adjust_lot, ahead, balance_at, charge_back, correct, extend_hold, fold_batch,
    grant, lots_at, move_lot, next_due, price_of, purchase, refund_lot, release_hold, replay, reserve,
    roll_forward, usage_keys,
};
use drawdown_ledger_model::{
    self as naive, Ledger,
    history::{KINDS, LineSeed, METERS, Op, POOLS, Setup, TEAMS, When},
};
use drawdown_types::{
    AccountId, AppId, ChargeId, ClientId, LotId, MeterSlug, MicroTokens, PriceId, Quantity, RateCardId, Slug,
    TeamId, Timestamp, WindowSize,
};

use crate::store::Store;

pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u64) -> T {
    format!("{prefix}_{number:026}").parse().unwrap()
}

pub(crate) fn instant(at: i64) -> Timestamp {
    Timestamp::from_micros(at).unwrap()
}

/// Lots of both ledgers are told apart by number; numbers are not in order of time, so that the id
/// decides in D4 where nothing else does.
fn scrambled(number: u64) -> u64 {
    number * 7_919 % 10_007
}

pub(crate) struct Both {
    settings: Settings,
    prices: PriceBook,
    store: Store,
    naive: Ledger,
    teams: Vec<Team>,
    now: i64,
    settled: Option<i64>,
    made: u64,
    batches: usize,
    charge_of: BTreeMap<ChargeId, (usize, usize)>,
    unattributed: std::collections::BTreeSet<(usize, usize, &'static str)>,
}

impl Both {
    pub(crate) fn new(setup: &Setup) -> Self {
        let window = i64::from(setup.window_secs) * naive::SECOND;
        let lateness = window * setup.lateness_windows;
        let pools: Vec<PoolKind> = setup.pools.iter().map(|pool| POOLS[*pool].parse().unwrap()).collect();
        let settings = Settings {
            window_size: WindowSize::from_secs(setup.window_secs).unwrap(),
            lateness_limit: std::time::Duration::from_micros(lateness.try_into().unwrap()),
            purchase_min_tokens: 100,
            unique_values_max: naive::prices::DISTINCT_MAX,
            pool_order: PoolOrder::new(&pools).unwrap(),
        };
        let team = |team: usize| Team::new(id("acct", 1), id("team", team as u64 + 1));
        let naive = Ledger {
            window,
            lateness,
            pools: setup.pools.iter().map(|pool| POOLS[*pool]).collect(),
            cards: Vec::new(),
            meters: naive::prices::meters(),
            distinct_max: naive::prices::DISTINCT_MAX,
            teams: KINDS.iter().map(|kind| naive::Team { kind, ..naive::Team::default() }).collect(),
            unattributed: Default::default(),
            leaving_older: Default::default(),
            hits: Default::default(),
        };
        let mut both = Self {
            settings,
            prices: PriceBook::default(),
            store: Store::default(),
            naive,
            teams: (0..TEAMS).map(team).collect(),
            now: setup.start,
            settled: None,
            made: 0,
            batches: 0,
            charge_of: BTreeMap::new(),
            unattributed: Default::default(),
        };
        for kind in 0..KINDS.len() {
            both.publish(kind, naive::month_of(setup.start, -1), &[0; METERS.len()], true);
        }
        both
    }

    pub(crate) fn into_hits(self) -> naive::Hits {
        self.naive.hits
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        scrambled(self.made)
    }

    fn settled(&self, to: i64) -> i64 {
        self.settled.unwrap_or(to)
    }

    fn resolve(&self, when: When) -> i64 {
        when.at(&self.naive, self.now)
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Clock(when) => self.clock(*when),
            Op::Job { team } => self.job(*team),
            Op::Purchase { team, tokens, original } => self.purchase(*team, *tokens, *original),
            Op::Grant { .. } => self.grant(op),
            Op::Publish { kind, from, change, careful } => {
                let from = self.resolve(*from);
                self.publish(*kind, from, change, *careful);
            }
            Op::Batch { lines, split, last } => self.batch(lines, *split, *last),
            Op::Import { .. } => self.import(op),
            Op::Move { lot, from, to } => self.move_lot(*lot, *from, *to),
            Op::Adjust { lot, team, delta } => self.adjust(*lot, *team, *delta),
            Op::Refund { lot, team, amount } => self.refund(*lot, *team, *amount),
            Op::Chargeback { lot } => self.charge_back(*lot),
            Op::Reserve { .. } => self.reserve(op),
            Op::Extend { team, hold, lasts, more } => self.extend(*team, *hold, *lasts, *more),
            Op::Release { team, hold } => self.release(*team, *hold),
            Op::Correct { .. } => self.correct(op),
            Op::Read { team, at } => self.read(*team, self.resolve(*at)),
            Op::Settlement { stands } => self.settled = stands.then_some(self.now),
        }
        for team in 0..TEAMS {
            let last = self.naive.teams[team].posted.unwrap_or(self.now);
            self.compare(team, last.max(self.now));
        }
    }

    /// Usually forward; a little back at times.
    fn clock(&mut self, when: When) {
        let to = self.resolve(when);
        let back = 30 * naive::SECOND;
        self.now = if to < self.now - back { self.now + back } else { to };
    }
}

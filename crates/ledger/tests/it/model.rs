//! The real service on a real Postgres against the naive ledger: random histories through the handlers, everything
//! visible compared and every invariant checked after every step.
//!
//! `LEDGER_SEQUENCES` sets how many histories are tried (24 without it), `PROPTEST_RNG_SEED` which. What the service
//! guards beyond the rules (set-up, D61) and what only the core is told (settlement standing still) is left out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_ledger_model::{self as naive, Hits, Ledger};
use drawdown_proto::ledger::v1::{
    self as pb, AdjustLotRequest, Aggregation, ChargeBackLotRequest, ContractKind, ExtendHoldRequest,
    GetBalanceRequest, GrantTokensRequest, MoveLotRequest, PoolKind, Price, RateCard, RefundLotRequest,
    ReleaseHoldRequest, ReserveTokensRequest, hold_service_server::HoldService, line,
    lot_service_server::LotService, token_service_server::TokenService,
};
use drawdown_types::{AppId, Timestamp};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tonic::{Request, Status};

use self::history::{HOUR, KINDS, Lag, Lasts, LineSeed, METERS, Op, POOLS, Setup, TEAMS, When};
use crate::world::{Buyer, DAY, SHARD, World, proto, request_id};

#[path = "../../../ledger-core/tests/model/history.rs"]
#[expect(dead_code, reason = "what only the core is told is not read here")]
mod history;

/// As the service's own setting.
const ALLOWANCE: i64 = 300 * naive::SECOND;

fn instant(at: i64) -> Timestamp {
    Timestamp::from_micros(at).unwrap()
}

struct Both {
    world: World,
    naive: Ledger,
    teams: Vec<Buyer>,
    apps: Vec<AppId>,
    producer: drawdown_types::ProducerId,
    now: i64,
    made: u64,
    batches: usize,
    lots: BTreeMap<u64, String>,
    holds: BTreeMap<u64, String>,
}

impl Both {
    async fn new(setup: &Setup) -> Self {
        let world = World::with(|options| {
            options.window_secs = setup.window_secs;
            options.lateness_limit_secs =
                u64::from(setup.window_secs) * setup.lateness_windows.max(1).unsigned_abs();
            options.pool_order = setup.pools.iter().map(|pool| POOLS[*pool].to_owned()).collect();
        })
        .await;
        world.clock.set(instant(setup.start));
        let flex = world.buyer();
        let teams = vec![flex, world.sibling(flex)];
        let window = i64::from(setup.window_secs) * naive::SECOND;
        let naive = Ledger {
            window,
            lateness: window * setup.lateness_windows.max(1),
            pools: setup.pools.iter().map(|pool| POOLS[*pool]).collect(),
            cards: Vec::new(),
            teams: KINDS.iter().map(|kind| naive::Team { kind, ..naive::Team::default() }).collect(),
            unattributed: Default::default(),
            hits: Hits::new(),
        };
        let producer = world.producer().await;
        let apps = (0..3).map(|_| AppId::generate()).collect();
        let (lots, holds) = (BTreeMap::new(), BTreeMap::new());
        let mut both =
            Self { world, naive, teams, apps, producer, now: setup.start, made: 0, batches: 0, lots, holds };
        both.price(setup.start - 40 * 24 * HOUR).await;
        both
    }

    /// One card for each kind of contract, for ever.
    async fn price(&mut self, from: i64) {
        let from = from.div_euclid(self.naive.window) * self.naive.window;
        let rates = [
            ("call", 1, 3, false),
            ("photo", 1_000_000, 50, false),
            ("job", 1_000, 1, true),
            ("whale", i64::MAX, 1 << 44, false),
        ];
        for (meter, ..) in rates {
            let aggregation = if meter == "call" { Aggregation::Count } else { Aggregation::Sum };
            self.world.meter(meter, aggregation).await.unwrap();
        }
        for (kind, contract) in KINDS.into_iter().zip([ContractKind::Flex, ContractKind::Enterprise]) {
            let price = |(meter, micros, per_units, failed_is_free): (&str, i64, i64, bool)| Price {
                meter: meter.to_owned(),
                micros,
                per_units,
                failed_is_free,
                ..Price::default()
            };
            let card = RateCard {
                name: kind.to_owned(),
                contract_kind: contract.into(),
                effective_from: proto(instant(from)),
                prices: rates.map(price).to_vec(),
                ..RateCard::default()
            };
            self.world.publish_card(card).await.unwrap();
            let rate = |(meter, micros, per_units, failed_is_free): (&str, i64, i64, bool)| {
                (meter.to_owned(), naive::Rate { micros, per_units, failed_is_free })
            };
            let rates = rates.map(rate).into_iter().collect();
            self.naive.cards.push(naive::Card { kind, from, rates });
        }
    }

    fn settled(&self) -> i64 {
        self.now - ALLOWANCE
    }

    fn resolve(&self, when: When) -> i64 {
        match when {
            When::FromNow(by) => self.now + by,
            When::Hour(hours) => (self.now.div_euclid(HOUR) + hours) * HOUR,
            When::Boundary { which, nudge } => {
                let lots = self.naive.teams.iter().flat_map(|team| &team.lots).filter(|lot| !lot.closed);
                let holds = self.naive.teams.iter().flat_map(|team| &team.holds).filter(|hold| !hold.over);
                let mut instants: Vec<i64> =
                    lots.flat_map(|lot| [lot.start, lot.valid_from, lot.expiry, lot.closes]).collect();
                instants.extend(holds.map(|hold| hold.expires));
                which.checked_rem(instants.len()).map_or(self.now, |place| instants[place]) + nudge
            }
        }
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Clock(when) => {
                let to = self.resolve(*when).max(self.now - 30 * naive::SECOND);
                self.now = to;
                self.world.clock.set(instant(to));
            }
            Op::Job { .. } => self.job().await,
            Op::Purchase { team, tokens, .. } => self.purchase(*team, *tokens).await,
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
            Op::Publish { .. } | Op::Settlement { .. } => {}
        }
        self.compare().await;
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn lot_of(&self, team: usize, which: usize) -> Option<u64> {
        let all: Vec<u64> = self.naive.teams.iter().flat_map(|team| &team.lots).map(|lot| lot.id).collect();
        let own: Vec<u64> = self.naive.teams[team].lots.iter().map(|lot| lot.id).collect();
        let lots = if own.is_empty() || which.is_multiple_of(8) { all } else { own };
        which.checked_rem(lots.len()).map(|place| lots[place])
    }

    fn hold_of(&self, team: usize, which: usize) -> Option<u64> {
        let holds = &self.naive.teams[team].holds;
        which.checked_rem(holds.len().min(3)).map(|place| holds[holds.len() - 1 - place].id)
    }

    fn lasts_ms(&self, lasts: Lasts) -> i64 {
        let micros = match lasts {
            Lasts::Until(when) => self.resolve(when) - self.now,
            Lasts::Percent(part) => self.naive.lateness / 100 * part,
        };
        micros.div_euclid(1000)
    }

    async fn job(&mut self) {
        let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
        Due::new(Arc::clone(&self.world.ledger), config).look().await.unwrap();
        for team in 0..TEAMS {
            self.naive.advance(team, self.now, self.settled());
        }
    }

    async fn purchase(&mut self, team: usize, tokens: i64) {
        let (number, settled) = (self.number(), self.settled());
        let taken = self.naive.purchase(team, number, tokens, None, self.now, settled);
        let lot = self.world.purchase(self.teams[team], tokens, None).await;
        assert_eq!(taken, lot.is_ok(), "{lot:?}");
        self.keep(number, lot);
    }

    fn keep(&mut self, number: u64, lot: Result<pb::Lot, Status>) {
        if let Ok(lot) = lot {
            self.lots.insert(number, lot.lot_id);
        }
    }

    async fn grant(&mut self, op: &Op) {
        let Op::Grant { team, pool, amount, start, expiry, .. } = op else { return };
        // A start in the past is set-up, which the service guards (D61).
        let start = start.map(|when| self.resolve(when)).filter(|start| *start >= self.latest(*team));
        let expiry = self.resolve(*expiry);
        let (number, settled) = (self.number(), self.settled());
        let taken =
            self.naive.grant(*team, number, POOLS[*pool], *amount, start, expiry, false, self.now, settled);
        let kinds =
            [PoolKind::Free, PoolKind::Enterprise, PoolKind::Credit, PoolKind::Promotional, PoolKind::Flex];
        let request = GrantTokensRequest {
            account_id: self.teams[*team].account.to_string(),
            team_id: self.teams[*team].team.to_string(),
            micros: *amount,
            pool_kind: kinds[*pool].into(),
            starts_at: start.and_then(|start| proto(instant(start))),
            expires_at: proto(instant(expiry)),
            note: "test".to_owned(),
            request_id: request_id(),
        };
        let lot = self.world.tokens.grant_tokens(Request::new(request)).await;
        assert_eq!(taken, lot.is_ok(), "{lot:?}");
        self.keep(number, lot.map(|answer| answer.into_inner().lot.unwrap()));
    }

    fn latest(&self, team: usize) -> i64 {
        self.naive.teams[team].posted.map_or(self.now, |posted| posted.max(self.now))
    }

    async fn batch(&mut self, seeds: &[LineSeed]) {
        self.batches += 1;
        let (mut lines, mut usage, mut received_first) = (Vec::new(), Vec::new(), i64::MAX);
        for (line, seed) in seeds.iter().enumerate() {
            let (wire, usage_of) = self.line(line, seed);
            if seed.team.is_some() || !seeds.is_empty() {
                received_first = received_first.min(usage_of.received);
            }
            lines.push(wire);
            usage.push(usage_of);
        }
        let loaded: Vec<usize> =
            (0..TEAMS).filter(|team| seeds.iter().any(|seed| seed.team == Some(*team))).collect();
        let settled = self.settled().min(received_first);
        self.naive.post(self.batches, &usage, &loaded, &[], self.now, settled);
        let batch = self.world.batch(SHARD, self.producer, lines).await;
        self.world.post(&batch).await.unwrap();
    }

    fn line(&self, line: usize, seed: &LineSeed) -> (pb::Line, naive::Usage) {
        let size = self.naive.window;
        let window = self.resolve(seed.window).div_euclid(size) * size;
        let lag = match seed.lag {
            Lag::None => 0,
            Lag::Windows(windows) => windows,
            Lag::Limit { windows_more } => self.naive.lateness / size + windows_more,
        };
        let received = window + size * (1 + lag);
        let counts = METERS[seed.meter] == "call";
        let quantity = if counts { seed.quantity.clamp(1, 1 << 40) } else { seed.quantity };
        let hold = seed.team.and_then(|team| self.hold_of(team, seed.hold?));
        let hold_id = hold.map(|hold| self.holds[&hold].clone()).unwrap_or_default();
        let app = usize::try_from(seed.app).unwrap();
        let attribution = match seed.team {
            None => line::Attribution::UnattributedReason("no_team".to_owned()),
            Some(team) => line::Attribution::Payer(pb::Payer {
                app_id: self.apps[app].to_string(),
                contract_kind: [ContractKind::Flex, ContractKind::Enterprise][team].into(),
                in_trial: seed.trial,
                ..crate::world::payer(self.teams[team])
            }),
        };
        let state = if counts {
            line::State::Count(pb::CountState {})
        } else {
            line::State::Sum(pb::SumState { quantity })
        };
        let wire = pb::Line {
            client_id: format!("client{app}"),
            meter: METERS[seed.meter].to_owned(),
            failed: seed.failed,
            dimensions: [("region".to_owned(), seed.series.to_string())].into(),
            hold_id: hold_id.clone(),
            window_start: proto(instant(window)),
            received_window_start: proto(instant(received)),
            events: if counts { quantity.unsigned_abs() } else { 1 },
            state: Some(state),
            attribution: Some(attribution),
        };
        let usage = naive::Usage {
            line,
            team: seed.team,
            app: seed.app,
            client: format!("client{app}"),
            meter: METERS[seed.meter].to_owned(),
            failed: seed.failed,
            trial: seed.trial,
            series: format!("{}{hold_id}", seed.series).into_bytes(),
            window,
            received,
            quantity,
            hold,
        };
        (wire, usage)
    }

    async fn move_lot(&mut self, which: usize, from: usize, to: usize) {
        let Some(lot) = self.lot_of(from, which) else { return };
        let settled = self.settled();
        let taken = self.naive.move_lot(from, to, lot, self.now, settled);
        let request = MoveLotRequest {
            account_id: self.teams[from].account.to_string(),
            lot_id: self.lots[&lot].clone(),
            from_team_id: self.teams[from].team.to_string(),
            to_team_id: self.teams[to].team.to_string(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.move_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    async fn adjust(&mut self, which: usize, team: usize, delta: i64) {
        let Some(lot) = self.lot_of(team, which) else { return };
        let settled = self.settled();
        let taken = self.naive.adjust(team, lot, delta, self.now, settled);
        let request = AdjustLotRequest {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            lot_id: self.lots[&lot].clone(),
            delta_micros: delta,
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.adjust_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    async fn refund(&mut self, which: usize, team: usize, amount: Option<i64>) {
        let Some(lot) = self.lot_of(team, which) else { return };
        let amount = amount.filter(|amount| *amount > 0);
        let settled = self.settled();
        let taken = self.naive.refund(team, lot, amount, self.now, settled);
        let request = RefundLotRequest {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            lot_id: self.lots[&lot].clone(),
            micros: amount.unwrap_or_default(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.refund_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    async fn charge_back(&mut self, which: usize) {
        let Some(lot) = self.lot_of(0, which) else { return };
        let settled = self.settled();
        let taken = self.naive.charge_back(lot, self.now, settled);
        let request = ChargeBackLotRequest {
            account_id: self.teams[0].account.to_string(),
            lot_id: self.lots[&lot].clone(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.charge_back_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    async fn reserve(&mut self, op: &Op) {
        let Op::Reserve { team, app, amount, least, lasts } = op else { return };
        let (number, settled, lasts_ms) = (self.number(), self.settled(), self.lasts_ms(*lasts));
        let least = least.filter(|least| *least > 0);
        let expires = self.latest(*team) + lasts_ms * 1000;
        let taken = self.naive.reserve(*team, number, *app, *amount, least, expires, self.now, settled);
        let app = app.map(|app| self.apps[usize::try_from(app).unwrap()].to_string());
        let request = ReserveTokensRequest {
            account_id: self.teams[*team].account.to_string(),
            team_id: self.teams[*team].team.to_string(),
            app_id: app.unwrap_or_default(),
            micros: *amount,
            at_least_micros: least.unwrap_or_default(),
            lasts_ms,
            note: String::new(),
            request_id: request_id(),
        };
        let answer = self.world.hold_service.reserve_tokens(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
        if let Ok(answer) = answer {
            self.holds.insert(number, answer.into_inner().hold.unwrap().hold_id);
        }
    }

    async fn extend(&mut self, team: usize, which: usize, lasts: Lasts, more: i64) {
        let Some(hold) = self.hold_of(team, which) else { return };
        let (settled, lasts_ms) = (self.settled(), self.lasts_ms(lasts));
        let expires = self.latest(team) + lasts_ms * 1000;
        let taken = self.naive.extend(team, hold, expires, more, self.now, settled);
        let request = ExtendHoldRequest {
            team_id: self.teams[team].team.to_string(),
            hold_id: self.holds[&hold].clone(),
            lasts_ms,
            more_micros: more,
            request_id: request_id(),
        };
        let answer = self.world.hold_service.extend_hold(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    async fn release(&mut self, team: usize, which: usize) {
        let Some(hold) = self.hold_of(team, which) else { return };
        let settled = self.settled();
        let taken = self.naive.release(team, hold, self.now, settled);
        let request = ReleaseHoldRequest {
            team_id: self.teams[team].team.to_string(),
            hold_id: self.holds[&hold].clone(),
            request_id: request_id(),
        };
        let answer = self.world.hold_service.release_hold(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    /// A read ahead of now or behind it; before the last posting it is refused.
    async fn read(&self, team: usize, at: i64) {
        let request = GetBalanceRequest {
            team_id: self.teams[team].team.to_string(),
            at: proto(instant(at)),
            ..GetBalanceRequest::default()
        };
        let answer = self.world.tokens.get_balance(Request::new(request)).await;
        if self.naive.teams[team].posted.is_some_and(|posted| at < posted) {
            assert!(answer.is_err(), "{answer:?}");
            return;
        }
        self.compare_balance(team, at, &answer.unwrap().into_inner().balance.unwrap());
    }

    fn compare_balance(&self, team: usize, at: i64, balance: &pb::Balance) {
        let mut naive = self.naive.clone();
        naive.advance(team, at, at - ALLOWANCE);
        let mine = &naive.teams[team];
        let (open, owed) = (naive.available(team, at), naive.owed(team));
        let sum = |part: fn(&naive::Past) -> i64| mine.past.values().map(part).sum::<i64>();
        let held: i64 = mine.lots.iter().map(|lot| naive.held(team, lot.id)).sum();
        assert_eq!(
            (balance.available_micros, balance.uncharged_micros, balance.balance_micros, balance.held_micros),
            (open, owed, open - owed, held)
        );
        assert_eq!(
            (balance.purchased_micros, balance.moved_in_micros, balance.moved_out_micros),
            (mine.issued, mine.moved_in, sum(|past| past.moved))
        );
        assert_eq!(
            (balance.expired_micros, balance.void_micros),
            (sum(|past| past.forfeited), sum(|past| past.void))
        );
        assert_eq!(balance.negative_since, mine.below_since.and_then(|at| proto(instant(at))));
    }

    async fn compare(&self) {
        for (team, buyer) in self.teams.iter().enumerate() {
            let at = self.latest(team);
            self.compare_balance(team, at, &self.world.balance(*buyer).await);
            let mut naive = self.naive.clone();
            naive.advance(team, at, at - ALLOWANCE);
            let listed = self.world.lots(*buyer).await;
            let facts =
                |lot: &pb::Lot| (lot.remaining_micros, lot.held_micros, lot.granted_micros, lot.void_micros);
            for lot in &naive.teams[team].lots {
                let other = listed.iter().find(|other| other.lot_id == self.lots[&lot.id]).unwrap();
                let past = &naive.teams[team].past[&lot.id];
                assert_eq!(facts(other), (lot.left, naive.held(team, lot.id), past.received, past.void));
                let state = other.state().as_str_name().trim_start_matches("LOT_STATE_").to_lowercase();
                assert_eq!(state, lot.state(at));
            }
            let charged: Vec<_> = (self.world.charges(*buyer).await.into_iter())
                .map(|charge| (charge.quantity, charge.amount_micros, charge.uncharged_micros))
                .collect();
            let theirs = &naive.teams[team].charges;
            let theirs: Vec<_> = theirs.iter().map(|c| (c.quantity, c.amount, c.opened)).collect();
            assert_eq!(charged, theirs);
        }
        let mut left: Vec<String> =
            self.world.unattributed().await.into_iter().map(|usage| usage.reason).collect();
        let mut theirs: Vec<String> =
            self.naive.unattributed.iter().map(|(.., reason)| (*reason).to_owned()).collect();
        left.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(left, theirs);
        self.world.assert_clean().await;
    }
}

fn sequences() -> u32 {
    std::env::var("LEDGER_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(24)
}

#[test]
fn the_service_agrees_with_the_naive_ledger_and_every_invariant_holds_after_every_step() {
    let config =
        Config { cases: sequences(), failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let config = match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(20_261_126), ..config },
        RngSeed::Fixed(_) => config,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let hits = std::cell::RefCell::new(Hits::new());
    let outcome = TestRunner::new(config).run(&history::history(), |(setup, ops)| {
        runtime.block_on(async {
            let mut both = Both::new(&setup).await;
            for op in &ops {
                both.step(op).await;
            }
            for (rule, count) in both.naive.hits {
                *hits.borrow_mut().entry(rule).or_default() += count;
            }
        });
        Ok::<(), TestCaseError>(())
    });
    hits.borrow().iter().for_each(|(rule, count)| println!("{count:>10}  {rule}"));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}

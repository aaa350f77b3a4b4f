//! The two ledgers side by side: each step is put to both, then everything visible must be equal.

use std::collections::BTreeMap;

use drawdown_ledger_core::{
    Attribution, Batch, Charge, ContractKind, Cycle, Grant, Line, NewVersion, Payer, Plan, PoolKind,
    PoolOrder, PriceBook, Purchase, Settings, Team, Terms, Unattributable, Usage, balance_at, fold_batch,
    grant, lots_at, next_due, price_of, purchase, replay, roll_forward, usage_keys,
};
use drawdown_types::{
    AccountId, AppId, ChargeId, ClientId, LotId, MeterSlug, MicroTokens, PriceId, Quantity, RateCardId, Slug,
    TeamId, Timestamp, WindowSize,
};

use crate::{
    history::{HOUR, KINDS, Lag, LineSeed, METERS, Op, POOLS, Setup, TEAMS, When},
    naive::{self, Ledger},
    store::Store,
};

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
            pool_order: PoolOrder::new(&pools).unwrap(),
        };
        let team = |team: usize| Team::new(id("acct", 1), id("team", team as u64 + 1));
        let naive = Ledger {
            window,
            lateness,
            pools: setup.pools.iter().map(|pool| POOLS[*pool]).collect(),
            cards: Vec::new(),
            teams: KINDS.iter().map(|kind| naive::Team { kind, ..naive::Team::default() }).collect(),
            unattributed: Default::default(),
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
            both.publish(kind, setup.start - 40 * 24 * HOUR, [0; METERS.len()]);
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
        match when {
            When::FromNow(by) => self.now + by,
            When::Hour(hours) => (self.now.div_euclid(HOUR) + hours) * HOUR,
            When::Boundary { which, nudge } => {
                let lots = self.naive.teams.iter().flat_map(|team| &team.lots).filter(|lot| !lot.closed);
                let instants: Vec<i64> =
                    lots.flat_map(|lot| [lot.start, lot.valid_from, lot.expiry, lot.closes]).collect();
                let chosen = which.checked_rem(instants.len()).map(|place| instants[place]);
                chosen.unwrap_or(self.now) + nudge
            }
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Clock(when) => self.clock(*when),
            Op::Job { team } => self.job(*team),
            Op::Purchase { team, tokens, original } => self.purchase(*team, *tokens, *original),
            Op::Grant { .. } => self.grant(op),
            Op::Publish { kind, from, change } => {
                let from = self.resolve(*from);
                self.publish(*kind, from, *change);
            }
            Op::Batch { lines, split } => self.batch(lines, *split),
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

    fn job(&mut self, team: usize) {
        let (to, settled) = (self.now, self.settled(self.now));
        self.naive.advance(team, to, settled);
        let mut teams = [self.store.load(&self.teams[team])];
        let due = next_due(&teams[0]);
        let plan = roll_forward(&mut teams, instant(to), instant(settled), &self.settings);
        let nothing = plan.lots.is_empty() && plan.journal.is_empty();
        assert!(nothing || due.is_some_and(|due| due <= instant(to)), "a job must know when it is due");
        assert!(self.settled.is_some() || nothing != due.is_some_and(|due| due <= instant(to)), "{due:?}");
        self.store.apply(0, plan);
    }

    fn purchase(&mut self, team: usize, tokens: i64, original: Option<When>) {
        let original = original.map(|when| self.resolve(when));
        let (number, now, settled) = (self.number(), self.now, self.settled(self.now));
        let taken = self.naive.purchase(team, number, tokens, original, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let order = Purchase { lot_id: id("lot", number), tokens, purchased_at: original.map(instant) };
        let plan = purchase(&mut loaded, &order, instant(now), instant(settled), &self.settings);
        self.settle(taken, plan.ok());
    }

    fn grant(&mut self, op: &Op) {
        let Op::Grant { team, pool, amount, start, expiry, set_up } = op else { return };
        let (start, expiry) = (start.map(|when| self.resolve(when)), self.resolve(*expiry));
        let (number, now, settled) = (self.number(), self.now, self.settled(self.now));
        let pool_name = POOLS[*pool];
        let taken = self.naive.grant(*team, number, pool_name, *amount, start, expiry, *set_up, now, settled);
        let mut loaded = self.store.load(&self.teams[*team]);
        let wish = Grant {
            lot_id: id("lot", number),
            amount: MicroTokens::from_micros(*amount),
            pool_kind: pool_name.parse().unwrap(),
            starts_at: start.map(instant),
            expires_at: instant(expiry),
            set_up: *set_up,
        };
        let plan = grant(&mut loaded, &wish, instant(now), instant(settled), &self.settings);
        self.settle(taken, plan.ok());
    }

    fn settle(&mut self, taken: bool, plan: Option<Plan>) {
        assert_eq!(taken, plan.is_some(), "both take it or neither");
        if let Some(plan) = plan {
            self.store.apply(0, plan);
        }
    }

    fn publish(&mut self, kind: usize, from: i64, change: [u8; METERS.len()]) {
        let mut rates = BTreeMap::new();
        for (meter, change) in METERS.iter().zip(change) {
            let rate = match (*meter, change) {
                ("call", n) => (1 + i64::from(n) * 2, 3, false),
                ("photo", n) => (1_000_000 + i64::from(n), 50, n == 1),
                ("job", 3) | ("unknown", _) => continue,
                ("whale", n) if n > 0 => (i64::MAX, 1 << 45, false),
                ("job", n) => (1_000 + i64::from(n), 1, true),
                (_, _) => (i64::MAX, 1 << 44, false),
            };
            let (micros, per_units, failed_is_free) = rate;
            rates.insert((*meter).to_owned(), naive::Rate { micros, per_units, failed_is_free });
        }
        let terms =
            |rate: &naive::Rate| Terms::new(rate.micros, rate.per_units, rate.failed_is_free).unwrap();
        let version = NewVersion {
            rate_card_id: RateCardId::generate(),
            name: Slug::new("card").unwrap(),
            contract_kind: KINDS[kind].parse().unwrap(),
            effective_from: instant(from),
            prices: rates.iter().map(|(meter, rate)| (MeterSlug::new(meter).unwrap(), terms(rate))).collect(),
        };
        let published = self.prices.publish(version, None, self.settings.window_size, PriceId::generate);
        let from = (from + self.naive.window - 1).div_euclid(self.naive.window) * self.naive.window;
        let latest =
            self.naive.cards.iter().filter(|card| card.kind == KINDS[kind]).map(|card| card.from).max();
        assert_eq!(published.is_ok(), latest.is_none_or(|latest| from > latest));
        if let Ok(version) = published {
            self.naive.cards.push(naive::Card { kind: KINDS[kind], from, rates });
            let mut versions = self.prices.versions().to_vec();
            versions.push(version);
            self.prices = PriceBook::new(versions);
        }
    }

    fn line(&self, seed: &LineSeed) -> Line {
        let size = self.settings.window_size;
        let window = size.floor(instant(self.resolve(seed.window)));
        let lag = match seed.lag {
            Lag::None => 0,
            Lag::Windows(windows) => windows,
            Lag::Limit { windows_more } => self.naive.lateness / self.naive.window + windows_more,
        };
        let received = window.as_micros() + self.naive.window * (1 + lag);
        let payer = |team: usize| Payer {
            account_id: id::<AccountId>("acct", 1),
            team_id: id::<TeamId>("team", team as u64 + 1),
            app_id: id::<AppId>("app", seed.app),
            contract_kind: KINDS[team].parse::<ContractKind>().unwrap(),
            in_trial: seed.trial,
        };
        let nobody = Attribution::Nobody(Unattributable::NoTeam);
        let counts = METERS[seed.meter] == "call" && seed.quantity > 0;
        Line {
            client_id: ClientId::new(&format!("client{}", seed.app)).unwrap(),
            meter: MeterSlug::new(METERS[seed.meter]).unwrap(),
            failed: seed.failed,
            series: vec![seed.series],
            window,
            received_window: instant(received),
            events: if counts { seed.quantity.unsigned_abs() } else { 1 },
            usage: if counts { Usage::Count } else { Usage::Sum(Quantity::new(seed.quantity).unwrap()) },
            attribution: seed.team.map_or(nobody, |team| Attribution::Payer(payer(team))),
        }
    }

    fn batch(&mut self, seeds: &[LineSeed], split: bool) {
        self.batches += 1;
        let lines: Vec<Line> = seeds.iter().map(|seed| self.line(seed)).collect();
        let usage: Vec<naive::Usage> = lines
            .iter()
            .zip(seeds)
            .enumerate()
            .map(|(line, (content, seed))| naive::Usage {
                line,
                team: seed.team,
                app: seed.app,
                client: content.client_id.to_string(),
                meter: content.meter.to_string(),
                failed: seed.failed,
                trial: seed.trial,
                series: content.series.clone(),
                window: content.window.as_micros(),
                received: content.received_window.as_micros(),
                quantity: content.quantity().unwrap().as_units(),
            })
            .collect();
        let (now, settled) = (self.now, self.settled(self.now));
        let loaded: Vec<usize> =
            (0..TEAMS).filter(|team| seeds.iter().any(|seed| seed.team == Some(*team))).collect();
        self.naive.post(self.batches, &usage, &loaded, now, settled);
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by(|a, b| lines[*a].posting_order(&lines[*b]).then(a.cmp(b)));
        let cut = if split { order.len() / 2 } else { 0 };
        let (first, second) = order.split_at(cut);
        for part in [first, second] {
            self.fold(&lines, part, &loaded, (now, settled));
        }
    }

    /// Posts the lines of `part`; a batch that is cut in posting order gives the same (D14).
    fn fold(&mut self, lines: &[Line], part: &[usize], loaded: &[usize], (now, settled): (i64, i64)) {
        let batch = self.batches;
        let mut part = part.to_vec();
        part.sort_unstable();
        let lines: Vec<Line> = part.iter().map(|line| lines[*line].clone()).collect();
        let mut teams: Vec<Team> = loaded.iter().map(|team| self.store.load(&self.teams[*team])).collect();
        let keys = usage_keys(&self.prices, &lines);
        let states: Vec<_> = keys.iter().filter_map(|key| self.store.states.get(key).cloned()).collect();
        let input = Batch {
            lines: &lines,
            states: &states,
            prices: &self.prices,
            settings: &self.settings,
            now: instant(now),
            settled_until: instant(settled),
        };
        let made = &mut self.made;
        let plan = fold_batch(&mut teams, &input, || {
            *made += 1;
            id("chg", *made)
        })
        .unwrap();
        for left in &plan.unattributed {
            self.unattributed.insert((batch, part[left.line], left.reason.as_str()));
        }
        for charge in &plan.charges {
            self.charge_of.insert(charge.charge_id, (batch, part[charge.line]));
        }
        self.store.apply(batch, plan);
    }

    /// A read ahead of any job equals what a job would have left, and the naive ledger's answer.
    fn read(&mut self, team: usize, at: i64) {
        let loaded = self.store.load(&self.teams[team]);
        let settled = self.settled(at);
        let answer = balance_at(&loaded, instant(at), instant(settled), &self.settings);
        if self.naive.teams[team].posted.is_some_and(|posted| at < posted) {
            self.naive.hit("a read before the last posting");
            assert!(answer.is_err());
            return;
        }
        let mut rolled = [loaded];
        roll_forward(&mut rolled, instant(at), instant(settled), &self.settings);
        let later = balance_at(&rolled[0], instant(at), instant(settled), &self.settings);
        assert_eq!(answer, later, "a reader computes what a job would write");
        self.compare(team, at);
    }

    fn compare(&mut self, team: usize, at: i64) {
        let settled = self.settled(at);
        let mut naive = self.naive.clone();
        naive.advance(team, at, settled);
        let expired_unseen =
            naive.teams[team].lots.iter().any(|lot| lot.state(at) == "closing" && lot.left > 0);
        let open = naive.available(team, at);
        let owed = naive.owed(team);
        let loaded = self.store.load(&self.teams[team]);
        let view = balance_at(&loaded, instant(at), instant(settled), &self.settings).unwrap();
        let left = |state| {
            let lots = naive.teams[team].lots.iter().filter(|lot| lot.state(at) == state);
            lots.map(|lot| lot.left).sum::<i64>()
        };
        let micros = MicroTokens::as_micros;
        assert_eq!(micros(view.available), open, "available at {}", instant(at));
        assert_eq!(micros(view.uncharged), owed);
        assert_eq!(micros(view.balance), open - owed);
        assert_eq!(micros(view.scheduled), left("scheduled"));
        assert_eq!(micros(view.closing), left("closing"));
        let mine = &naive.teams[team];
        let sum = |part: fn(&naive::Lot) -> i64| mine.lots.iter().map(part).sum::<i64>();
        assert_eq!(micros(view.row.issued), sum(|lot| lot.granted));
        assert_eq!(micros(view.row.expired), sum(|lot| lot.forfeited));
        assert_eq!(micros(view.row.consumed), mine.charges.iter().map(|charge| charge.amount).sum::<i64>());
        assert_eq!(view.row.negative_since, mine.below_since.map(instant), "the grace clock");
        if expired_unseen {
            self.naive.hit("D3 gone from the balance at its expiry");
            if owed == 0 && open == 0 {
                self.naive.hit("D10 an expiry ends at zero");
            }
        }
        let lots = lots_at(&loaded, instant(at), instant(settled), &self.settings).unwrap();
        for view in lots {
            let other = mine.lots.iter().find(|lot| id::<LotId>("lot", lot.id) == view.lot.lot_id).unwrap();
            assert_eq!(
                (view.state.as_str(), micros(view.lot.remaining), micros(view.lot.expired)),
                (other.state(at), other.left, other.forfeited)
            );
        }
    }

    /// Charges one by one, who paid them, unattributed usage, and Σ charge = price(state) (D14).
    pub(crate) fn end(&mut self) {
        assert_eq!(self.unattributed, self.naive.unattributed);
        for team in 0..TEAMS {
            let team_id = id::<TeamId>("team", team as u64 + 1);
            let mine: Vec<&Charge> = (self.store.charges.iter().map(|(_, charge)| charge))
                .filter(|charge| charge.team_id == team_id)
                .collect();
            let theirs = &self.naive.teams[team].charges;
            let facts = |charge: &&Charge| {
                let name = self.charge_of[&charge.charge_id];
                (name, charge.quantity.as_units(), charge.amount.as_micros(), charge.uncharged.as_micros())
            };
            assert_eq!(
                mine.iter().map(facts).collect::<Vec<_>>(),
                theirs.iter().map(|c| (c.name, c.quantity, c.amount, c.opened)).collect::<Vec<_>>()
            );
            let mut paid: BTreeMap<((usize, usize), LotId), i64> = BTreeMap::new();
            for charge in theirs {
                for (lot, amount) in &charge.payments {
                    *paid.entry((charge.name, id("lot", *lot))).or_default() += amount;
                }
            }
            let by_position = self.store.payments(team_id).into_iter();
            let by_position: BTreeMap<_, _> =
                by_position.map(|((charge, lot), paid)| ((self.charge_of[&charge], lot), paid)).collect();
            assert_eq!(by_position, paid, "which lot paid which item");
        }
        self.check_states();
        self.check_replay();
    }

    fn check_replay(&self) {
        for (team_id, balance) in &self.store.balances {
            let lots = self.store.lots.values().filter(|lot| lot.team_id == *team_id).cloned().collect();
            let stored = Team { balance: balance.clone(), lots };
            let journal = self.store.journal.get(team_id).map_or(&[][..], Vec::as_slice);
            assert_eq!(replay(&stored, journal, &self.settings), Ok(()), "the journal can be replayed");
        }
    }

    fn check_states(&self) {
        let mut sums: BTreeMap<_, i64> = BTreeMap::new();
        for team in 0..TEAMS {
            let team_id = id::<TeamId>("team", team as u64 + 1);
            let mine = self.store.charges.iter().filter(|(_, charge)| charge.team_id == team_id);
            for ((_, charge), theirs) in mine.zip(&self.naive.teams[team].charges) {
                let Some(price_id) = charge.rated.price_id() else { continue };
                let cycle = Cycle::of(instant(theirs.window));
                let key = drawdown_ledger_core::UsageKey { team_id, price_id, cycle };
                *sums.entry(key).or_default() += charge.amount.as_micros();
            }
        }
        assert_eq!(sums.len(), self.store.states.len());
        for (key, state) in &self.store.states {
            let terms = (self.prices.versions().iter().flat_map(|card| &card.prices))
                .find(|price| price.price_id == key.price_id)
                .map(|price| price.terms);
            let total = price_of(terms.unwrap(), state.quantity).unwrap();
            assert_eq!(sums[key], total.as_micros(), "Σ charge = price(state)");
        }
    }
}

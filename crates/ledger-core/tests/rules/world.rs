//! One team, one flex card, and short words to say what happens to them.

use drawdown_ledger_core::{
    Aggregation, Attribution, Balance, BalanceView, Batch, Charge, ChargeJournal, ContractKind, Corrected,
    Correction, CorrectionError, Grant, JournalRow, Kind, Line, Lot, NewVersion, Payer, PeriodShrink,
    Periods, Plan, PoolKind, PriceBook, Purchase, Settings, StandingCharge, Team, Terms, Unattributable,
    Usage, UsageState, balance_at, correct, fold_batch, grant, periods_wanted, purchase, roll_forward,
    usage_keys,
};
use drawdown_types::{
    AppId, ChargeId, ClientId, LotId, MeterSlug, MicroTokens, PriceId, Quantity, RateCardId, Slug, Timestamp,
};

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A time of 10 June 2026.
pub(crate) fn on(time: &str) -> Timestamp {
    at(&format!("2026-06-10T{time}Z"))
}

pub(crate) fn tokens(text: &str) -> MicroTokens {
    text.parse().unwrap()
}

pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, number: u64) -> T {
    format!("{prefix}_{number:026}").parse().unwrap()
}

pub(crate) fn lot_id(number: u64) -> LotId {
    id("lot", number)
}

pub(crate) struct World {
    pub(crate) team: Team,
    pub(crate) prices: PriceBook,
    pub(crate) settings: Settings,
    pub(crate) states: Vec<UsageState>,
    pub(crate) periods: Periods,
    pub(crate) journal: Vec<JournalRow>,
    made: u64,
}

impl World {
    /// Meter `token` costs one token a unit; `cent` a hundredth; `third` one micro-token per 3 units;
    /// `job` one token, failed ones free.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            team: Team::new(id("acct", 1), id("team", 1)),
            prices: PriceBook::default(),
            settings: Settings::default(),
            states: Vec::new(),
            periods: Periods::default(),
            journal: Vec::new(),
            made: 0,
        };
        world.publish("2020-01-01T00:00:00Z", &STANDARD);
        world
    }

    pub(crate) fn publish(&mut self, from: &str, rates: &[(&'static str, i64, i64, bool)]) {
        let terms =
            |rate: &(&'static str, i64, i64, bool)| (rate.0, Terms::new(rate.1, rate.2, rate.3).unwrap());
        self.publish_terms(from, rates.iter().map(terms).collect());
    }

    /// A version of the card with whatever prices.
    pub(crate) fn publish_terms(&mut self, from: &str, prices: Vec<(&str, Terms)>) {
        let prices = prices.into_iter().map(|(meter, terms)| (MeterSlug::new(meter).unwrap(), terms));
        let version = NewVersion {
            rate_card_id: RateCardId::generate(),
            name: Slug::new("standard").unwrap(),
            contract_kind: ContractKind::Flex,
            effective_from: at(from),
            prices: prices.collect(),
        };
        let made = &mut self.made;
        let version = self.prices.publish(version, None, self.settings.window_size, || {
            *made += 1;
            id::<PriceId>("price", *made)
        });
        let version = version.unwrap();
        let versions = self.prices.versions().iter().cloned().chain([version]);
        let meters = self.prices.meters().clone();
        self.prices = PriceBook::with_meters(versions.collect::<Vec<_>>(), meters);
    }

    /// Makes `meter` one that aggregates so; before its price is published.
    pub(crate) fn aggregate(&mut self, meter: &str, aggregation: Aggregation) {
        let mut meters = self.prices.meters().clone();
        meters.insert(MeterSlug::new(meter).unwrap(), aggregation);
        self.prices = PriceBook::with_meters(self.prices.versions().to_vec(), meters);
    }

    fn keep(&mut self, plan: &Plan) {
        for state in &plan.states {
            self.states.retain(|other| other.key != state.key);
            self.states.push(state.clone());
        }
        for state in &plan.periods.states {
            self.periods.states.retain(|other| other.key != state.key);
            self.periods.states.push(*state);
        }
        self.periods.values.extend(plan.periods.values.iter().cloned());
        self.journal.extend(plan.journal.iter().cloned());
    }

    pub(crate) fn buy(&mut self, lot: u64, tokens: i64, now: Timestamp) -> Lot {
        let order = Purchase { lot_id: lot_id(lot), tokens, purchased_at: None };
        let plan = purchase(&mut self.team, &order, now, now, &self.settings).unwrap();
        self.keep(&plan);
        self.lot(lot)
    }

    pub(crate) fn give(
        &mut self,
        lot: u64,
        pool: PoolKind,
        amount: &str,
        life: (Timestamp, Timestamp),
        now: Timestamp,
    ) {
        let wish = Grant {
            leaves_older_debts: false,
            lot_id: lot_id(lot),
            amount: tokens(amount),
            pool_kind: pool,
            starts_at: Some(life.0),
            expires_at: life.1,
            set_up: false,
        };
        let plan = grant(&mut self.team, &wish, now, now, &self.settings).unwrap();
        self.keep(&plan);
    }

    /// A line of `meter`, received as soon as its window ended.
    pub(crate) fn line(&self, meter: &str, quantity: i64, window: Timestamp) -> Line {
        Line {
            client_id: ClientId::new("client").unwrap(),
            meter: MeterSlug::new(meter).unwrap(),
            failed: false,
            series: Vec::new(),
            window,
            received_window: window.checked_add(self.settings.window_size.as_duration()).unwrap(),
            events: 1,
            usage: Usage::Sum(Quantity::new(quantity).unwrap()),
            hold_id: None,
            attribution: Attribution::Payer(Payer {
                account_id: id("acct", 1),
                team_id: id("team", 1),
                app_id: id::<AppId>("app", 1),
                contract_kind: ContractKind::Flex,
                in_trial: false,
            }),
        }
    }

    pub(crate) fn post(&mut self, lines: &[Line], now: Timestamp) -> Plan {
        let keys = usage_keys(&self.prices, lines, &self.team.holds);
        let states: Vec<_> = self.states.iter().filter(|state| keys.contains(&state.key)).cloned().collect();
        // As the store does: only what the batch asks for.
        let wanted = periods_wanted(&self.prices, lines, &self.team.holds);
        let mut periods = self.periods.clone();
        periods.states.retain(|state| wanted.keys.contains(&state.key));
        periods.values.retain(|value| wanted.values.contains(value));
        let batch = Batch {
            lines,
            states: &states,
            periods: &periods,
            prices: &self.prices,
            settings: &self.settings,
            now,
            settled_until: now,
            last_of_holds: &[],
        };
        let mut teams = [self.team.clone()];
        let made = &mut self.made;
        let plan = fold_batch(&mut teams, &batch, || {
            *made += 1;
            id::<ChargeId>("chg", *made)
        })
        .unwrap();
        let [team] = teams;
        self.team = team;
        self.keep(&plan);
        plan
    }

    /// Uses tokens in the window that holds `window`, settled at `now`.
    pub(crate) fn spend(&mut self, amount: i64, window: Timestamp, now: Timestamp) -> Charge {
        let line = self.line("token", amount, self.settings.window_size.floor(window));
        self.post(&[line], now).charges.remove(0)
    }

    /// Takes `quantity` of a charge back and charges `recharge` instead. `lines` are the team's charges so far.
    pub(crate) fn correct(
        &mut self,
        lines: &[Charge],
        corrected: usize,
        quantity: i64,
        recharge: Option<&Line>,
        now: Timestamp,
    ) -> Result<(Plan, Corrected), CorrectionError> {
        self.correct_period(lines, corrected, quantity, None, recharge, now)
    }

    pub(crate) fn correct_period(
        &mut self,
        lines: &[Charge],
        corrected: usize,
        quantity: i64,
        period: Option<PeriodShrink>,
        recharge: Option<&Line>,
        now: Timestamp,
    ) -> Result<(Plan, Corrected), CorrectionError> {
        let line = &lines[corrected];
        let standing = StandingCharge {
            charge_id: line.charge_id,
            team_id: line.team_id,
            meter: MeterSlug::new("token").unwrap(),
            window: line.window,
            rated: line.rated,
            quantity: line.quantity,
        };
        let latest: Vec<ChargeId> = (lines.iter().rev())
            .filter(|other| other.rated == line.rated && other.charge_id != line.charge_id)
            .map(|other| other.charge_id)
            .collect();
        let journal = ChargeJournal { rows: self.journal.clone() };
        let correction = Correction {
            charge_id: id("chg", 900),
            corrected: &standing,
            quantity: Quantity::new(quantity).unwrap(),
            period,
            recharge,
            latest: &latest,
            journal: &journal,
            states: &self.states.clone(),
            periods: &self.periods.clone(),
            prices: &self.prices.clone(),
        };
        let teams = std::slice::from_mut(&mut self.team);
        let done = correct(teams, &correction, now, now, &self.settings, || id("chg", 901))?;
        self.keep(&done.0);
        Ok(done)
    }

    pub(crate) fn job(&mut self, now: Timestamp) -> Plan {
        let plan = roll_forward(std::slice::from_mut(&mut self.team), now, now, &self.settings);
        self.keep(&plan);
        plan
    }

    pub(crate) fn view(&self, now: Timestamp) -> BalanceView {
        balance_at(&self.team, now, now, &self.settings).unwrap()
    }

    pub(crate) fn balance(&self, now: Timestamp) -> String {
        self.view(now).balance.to_string()
    }

    pub(crate) fn row(&self) -> &Balance {
        &self.team.balance
    }

    pub(crate) fn lot(&self, lot: u64) -> Lot {
        self.team.lots.iter().find(|other| other.lot_id == lot_id(lot)).unwrap().clone()
    }

    pub(crate) fn left(&self, lot: u64) -> String {
        self.lot(lot).remaining.to_string()
    }

    /// Kind, lot number and amount of the rows since `seq`.
    pub(crate) fn rows_since(&self, seq: i64) -> Vec<(Kind, String, String)> {
        let lot = |row: &JournalRow| match row.lot_id {
            Some(lot_id) => lot_id.to_string().trim_start_matches("lot_").trim_start_matches('0').to_owned(),
            None => String::new(),
        };
        let rows = self.journal.iter().filter(|row| row.seq > seq);
        rows.map(|row| (row.kind, lot(row), row.amount.to_string())).collect()
    }
}

pub(crate) const STANDARD: [(&str, i64, i64, bool); 4] = [
    ("token", 1_000_000, 1, false),
    ("cent", 10_000, 1, false),
    ("third", 1, 3, false),
    ("job", 1_000_000, 1, true),
];

pub(crate) fn reasons(plan: &Plan) -> Vec<(usize, Unattributable)> {
    plan.unattributed.iter().map(|left| (left.line, left.reason)).collect()
}

//! Rate cards and batches, put to both ledgers.

use std::collections::{BTreeSet, HashMap};

use drawdown_ledger_core::{Aggregation, DistinctValues, Period, TermsDraft, Tier, periods_wanted};
use drawdown_ledger_model::{Adds, Span};

use super::*;

impl Both {
    pub(super) fn publish(&mut self, kind: usize, from: i64, change: &[u8], careful: bool) {
        let rates = naive::prices::rates(&self.naive, KINDS[kind], from, change, careful);
        let version = NewVersion {
            rate_card_id: RateCardId::generate(),
            name: Slug::new("card").unwrap(),
            contract_kind: KINDS[kind].parse().unwrap(),
            effective_from: instant(from),
            prices: rates.iter().map(|(meter, rate)| (MeterSlug::new(meter).unwrap(), terms(rate))).collect(),
        };
        let published = self.prices.publish(version, None, self.settings.window_size, PriceId::generate);
        assert_eq!(published.is_ok(), self.naive.publish(KINDS[kind], from, rates), "{published:?}");
        if let Ok(version) = published {
            let mut versions = self.prices.versions().to_vec();
            versions.push(version);
            self.prices = PriceBook::with_meters(versions, aggregations());
        }
    }

    pub(super) fn line(&self, seed: &LineSeed) -> Line {
        let size = self.settings.window_size;
        let window = size.floor(instant(self.resolve(seed.window)));
        let lag = seed.lag.windows(&self.naive);
        let received = window.as_micros() + self.naive.window * (1 + lag);
        let payer = |team: usize| Payer {
            account_id: id::<AccountId>("acct", 1),
            team_id: id::<TeamId>("team", team as u64 + 1),
            app_id: id::<AppId>("app", seed.app),
            contract_kind: KINDS[team].parse::<ContractKind>().unwrap(),
            in_trial: seed.trial,
        };
        let nobody = Attribution::Nobody(Unattributable::NoTeam);
        let quantity = Quantity::new(seed.quantity).unwrap();
        let counts = METERS[seed.meter] == "call" && seed.quantity > 0;
        let usage = match naive::prices::adds(METERS[seed.meter]) {
            Adds::Up if counts => Usage::Count,
            Adds::Up => Usage::Sum(quantity),
            Adds::Largest(_) => Usage::Max(quantity),
            Adds::Distinct(_) => Usage::Unique(distinct(&naive::prices::values(seed.values))),
        };
        Line {
            client_id: ClientId::new(&format!("client{}", seed.app)).unwrap(),
            meter: MeterSlug::new(METERS[seed.meter]).unwrap(),
            failed: seed.failed,
            series: vec![seed.series],
            window,
            received_window: instant(received),
            events: if counts { seed.quantity.unsigned_abs() } else { 1 },
            usage,
            hold_id: self.hold_of(seed).map(|hold| id("hold", hold)),
            attribution: seed.team.map_or(nobody, |team| Attribution::Payer(payer(team))),
        }
    }

    pub(super) fn batch(&mut self, seeds: &[LineSeed], split: bool, last: bool) {
        self.batches += 1;
        let lines: Vec<Line> = seeds.iter().map(|seed| self.line(seed)).collect();
        let usage: Vec<naive::Usage> = lines
            .iter()
            .zip(seeds)
            .enumerate()
            .map(|(line, (content, seed))| usage(line, content, seed, self.hold_of(seed)))
            .collect();
        let (now, settled) = (self.now, self.settled(self.now));
        let loaded: Vec<usize> =
            (0..TEAMS).filter(|team| seeds.iter().any(|seed| seed.team == Some(*team))).collect();
        let mut ending: Vec<u64> = usage.iter().filter(|_| last).filter_map(|usage| usage.hold).collect();
        ending.sort_unstable();
        ending.dedup();
        self.naive.post(self.batches, &usage, &loaded, &ending, now, settled);
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by(|a, b| lines[*a].posting_order(&lines[*b]).then(a.cmp(b)));
        let cut = if split { order.len() / 2 } else { 0 };
        let (first, second) = order.split_at(cut);
        self.fold(&lines, first, &loaded, &[], (now, settled));
        self.fold(&lines, second, &loaded, &ending, (now, settled));
    }

    fn hold_of(&self, seed: &LineSeed) -> Option<u64> {
        self.naive.some_hold(seed.team?, seed.hold?)
    }

    /// Posts the lines of `part`; a batch that is cut in posting order gives the same (D14).
    pub(super) fn fold(
        &mut self,
        lines: &[Line],
        part: &[usize],
        loaded: &[usize],
        ending: &[u64],
        (now, settled): (i64, i64),
    ) {
        let batch = self.batches;
        let mut part = part.to_vec();
        part.sort_unstable();
        let lines: Vec<Line> = part.iter().map(|line| lines[*line].clone()).collect();
        let mut teams: Vec<Team> = loaded.iter().map(|team| self.store.load(&self.teams[*team])).collect();
        let holds: Vec<_> = teams.iter().flat_map(|team| team.holds.clone()).collect();
        let keys = usage_keys(&self.prices, &lines, &holds);
        let periods = self.store.periods(&periods_wanted(&self.prices, &lines, &holds));
        let last_of_holds: Vec<_> = ending.iter().map(|hold| id("hold", *hold)).collect();
        let states: Vec<_> = keys.iter().filter_map(|key| self.store.states.get(key).cloned()).collect();
        let input = Batch {
            lines: &lines,
            states: &states,
            periods: &periods,
            prices: &self.prices,
            settings: &self.settings,
            now: instant(now),
            settled_until: instant(settled),
            last_of_holds: &last_of_holds,
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
        self.store.apply(plan, &lines);
    }
}

/// A line in the naive ledger's words.
pub(super) fn usage(line: usize, content: &Line, seed: &LineSeed, hold: Option<u64>) -> naive::Usage {
    naive::Usage {
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
        values: match &content.usage {
            Usage::Unique(_) => naive::prices::values(seed.values),
            _ => BTreeSet::new(),
        },
        hold,
    }
}

fn terms(rate: &naive::Rate) -> Terms {
    let naive::Rate { micros, per_units, tiers, unit, free, free_only, failed_is_free } = rate.clone();
    let tiers = tiers.into_iter().map(|(above, micros)| Tier { above, micros }).collect();
    let (charged_unit, free_quota) = (unit, free);
    TermsDraft { micros, per_units, tiers, charged_unit, free_quota, free_only, failed_is_free }
        .check()
        .unwrap()
}

/// How meters aggregate, in the core's words.
pub(super) fn aggregations() -> HashMap<MeterSlug, Aggregation> {
    let period = |span| if span == Span::Day { Period::Day } else { Period::Month };
    let aggregation = |meter: &str| match naive::prices::adds(meter) {
        Adds::Up if meter == "call" => Aggregation::Count,
        Adds::Up => Aggregation::Sum,
        Adds::Largest(span) => Aggregation::Max(period(span)),
        Adds::Distinct(span) => Aggregation::Unique(period(span)),
    };
    METERS.iter().map(|meter| (MeterSlug::new(meter).unwrap(), aggregation(meter))).collect()
}

pub(super) fn distinct(values: &BTreeSet<u8>) -> DistinctValues {
    DistinctValues::new(values.iter().map(|value| Box::from([*value])))
}

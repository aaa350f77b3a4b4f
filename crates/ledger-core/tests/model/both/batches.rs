//! Rate cards and batches, put to both ledgers.

use super::*;

impl Both {
    pub(super) fn publish(&mut self, kind: usize, from: i64, change: [u8; METERS.len()]) {
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
        let last_of_holds: Vec<_> = ending.iter().map(|hold| id("hold", *hold)).collect();
        let states: Vec<_> = keys.iter().filter_map(|key| self.store.states.get(key).cloned()).collect();
        let input = Batch {
            lines: &lines,
            states: &states,
            periods: &Periods::default(),
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
        self.store.apply(plan);
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
        hold,
    }
}

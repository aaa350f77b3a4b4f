//! What must be equal after each step and at the end.

use drawdown_ledger_core::{Rated, UsageKey};

use super::*;
use crate::store::StoredCharge;

impl Both {
    /// A read ahead of any job equals what a job would have left, and the naive ledger's answer.
    pub(super) fn read(&mut self, team: usize, at: i64) {
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
        self.foreseen(team, at);
        self.compare(team, at);
    }

    /// What was told at the last posting about `at` is what a reader computes then.
    fn foreseen(&mut self, team: usize, at: i64) {
        let loaded = self.store.load(&self.teams[team]);
        let lag = at - self.settled(at);
        let settled = |at: Timestamp| instant(at.as_micros() - lag);
        let begin = loaded.balance.posted_at.unwrap_or_else(|| instant(at)).min(instant(at));
        let told = ahead(&loaded, begin, settled, usize::MAX, &self.settings);
        assert_eq!(told.until, None);
        let step = *told.at(instant(at)).unwrap();
        let view = balance_at(&loaded, instant(at), settled(instant(at)), &self.settings).unwrap();
        assert_eq!(
            (step.available, step.uncharged, step.held, step.negative_since),
            (view.available, view.uncharged, view.held, view.row.negative_since),
            "what was told ahead is what is"
        );
        if told.steps.len() > 1 && told.steps[0].from < step.from {
            self.naive.hit("D40 a balance that was told ahead");
        }
        let cut = ahead(&loaded, begin, settled, 1, &self.settings);
        assert_eq!((cut.steps[0], cut.until), (told.steps[0], told.steps.get(1).map(|step| step.from)));
    }

    pub(super) fn compare(&mut self, team: usize, at: i64) {
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
        let sum = |part: fn(&naive::Past) -> i64| mine.past.values().map(part).sum::<i64>();
        assert_eq!(micros(view.row.issued), mine.issued);
        assert_eq!(micros(view.row.moved_in), mine.moved_in);
        assert_eq!(micros(view.row.expired), sum(|past| past.forfeited));
        assert_eq!(micros(view.row.void), sum(|past| past.void));
        assert_eq!(micros(view.row.moved_out), sum(|past| past.moved));
        let held = mine.lots.iter().map(|lot| naive.held(team, lot.id)).sum::<i64>();
        assert_eq!(micros(view.held), held);
        assert_eq!(micros(view.row.consumed), mine.charges.iter().map(|charge| charge.amount).sum::<i64>());
        assert_eq!(view.row.negative_since, mine.below_since.map(instant), "the grace clock");
        if expired_unseen {
            self.naive.hit("D3 gone from the balance at its expiry");
            if owed == 0 && open == 0 {
                self.naive.hit("D10 an expiry ends at zero");
            }
        }
        let lots = lots_at(&loaded, instant(at), instant(settled), &self.settings).unwrap();
        for LotView { lot, state } in lots {
            let other = mine.lots.iter().find(|other| id::<LotId>("lot", other.id) == lot.lot_id).unwrap();
            let past = &mine.past[&other.id];
            assert_eq!(
                (state.as_str(), micros(lot.remaining), micros(lot.held), micros(lot.granted)),
                (other.state(at), other.left, naive.held(team, other.id), past.received)
            );
            assert_eq!(
                (micros(lot.expired), micros(lot.void), micros(lot.moved), micros(lot.original)),
                (past.forfeited, past.void, past.moved, other.size)
            );
            assert_eq!(lot.valid_from, instant(other.valid_from));
        }
    }

    /// Charges one by one, who paid them, unattributed usage, and Σ charge = price(state) (D14).
    pub(crate) fn end(&mut self) {
        assert_eq!(self.unattributed, self.naive.unattributed);
        for team in 0..TEAMS {
            let team_id = id::<TeamId>("team", team as u64 + 1);
            let mine = self.store.charges.iter().filter(|charge| charge.team_id == team_id);
            let theirs = &self.naive.teams[team].charges;
            let charged = theirs.iter().filter(|charge| charge.name != naive::PRIOR);
            let facts = |charge: &StoredCharge| {
                let name = self.charge_of[&charge.charge_id];
                (name, why(charge.rated), charge.quantity, charge.amount, charge.uncharged)
            };
            assert_eq!(
                mine.map(facts).collect::<Vec<_>>(),
                charged.map(|c| (c.name, c.why, c.quantity, c.amount, c.opened)).collect::<Vec<_>>()
            );
            let mut paid: BTreeMap<((usize, usize), LotId), i64> = BTreeMap::new();
            for payment in self.naive.teams[team].payments.iter().filter(|payment| payment.amount > 0) {
                let name = theirs[payment.charge].name;
                *paid.entry((name, id("lot", payment.lot))).or_default() += payment.amount;
            }
            let mine = self.store.paid(team_id).into_iter();
            let name =
                |charge: Option<ChargeId>| charge.map_or(naive::PRIOR, |charge| self.charge_of[&charge]);
            let mine: BTreeMap<_, _> =
                mine.map(|((charge, lot), paid)| ((name(charge), lot), paid)).collect();
            assert_eq!(mine, paid, "which lot paid which item");
        }
        self.check_states();
        self.check_replay();
    }

    pub(super) fn check_replay(&self) {
        for (team_id, balance) in &self.store.balances {
            let lots = self.store.lots.values().filter(|lot| lot.team_id == *team_id).cloned().collect();
            let stored = Team { lots, ..Team::new(balance.account_id, balance.team_id) };
            let stored = Team { balance: balance.clone(), ..stored };
            let journal = self.store.journal.get(team_id).map_or(&[][..], Vec::as_slice);
            assert_eq!(replay(&stored, journal, &self.settings), Ok(()), "the journal can be replayed");
        }
    }

    /// Σ charge = price(state), and of charged units that of all months together (D14, D15).
    pub(super) fn check_states(&self) {
        let mut sums: BTreeMap<_, i64> = BTreeMap::new();
        let priced = |charge: &&StoredCharge| charge.rated.price_id().is_some();
        for charge in self.store.charges.iter().filter(priced) {
            let (team_id, price_id) = (charge.team_id, charge.rated.price_id().unwrap());
            let mut cycles = vec![Cycle::of(charge.window)];
            if self.prices.named(price_id).unwrap().1.terms.charged_unit().is_some() {
                cycles.push(Cycle::ENDLESS);
            }
            for cycle in cycles {
                *sums.entry(UsageKey { team_id, price_id, cycle }).or_default() += charge.amount;
            }
        }
        assert_eq!(sums.keys().collect::<Vec<_>>(), self.store.states.keys().collect::<Vec<_>>());
        for (key, state) in &self.store.states {
            let terms = self.prices.named(key.price_id).unwrap().1.terms;
            let total = match (terms.charged_unit(), key.cycle == Cycle::ENDLESS) {
                (Some(_), false) => continue,
                (Some(_), true) => terms.price_above_quota(state.quantity),
                (None, _) => price_of(&terms, state.quantity),
            };
            assert_eq!(sums[key], total.unwrap().as_micros(), "Σ charge = price(state)");
        }
    }
}

/// Why a charge costs what it costs, in the naive ledger's words.
fn why(rated: Rated) -> &'static str {
    match rated {
        Rated::Priced(_) => "priced",
        Rated::OverQuota(_) => "over_quota",
        Rated::Trial => "trial",
        Rated::FailedFree => "failed",
        Rated::Unpriced => "unpriced",
    }
}

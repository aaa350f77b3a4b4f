//! Lots, put to both ledgers.

use super::*;

impl Both {
    pub(super) fn job(&mut self, team: usize) {
        let (to, settled) = (self.now, self.settled(self.now));
        self.naive.advance(team, to, settled);
        let mut teams = [self.store.load(&self.teams[team])];
        let due = next_due(&teams[0]);
        let plan = roll_forward(&mut teams, instant(to), instant(settled), &self.settings);
        let nothing = plan.lots.is_empty() && plan.journal.is_empty() && plan.holds.is_empty();
        assert!(nothing || due.is_some_and(|due| due <= instant(to)), "a job must know when it is due");
        assert!(self.settled.is_some() || nothing != due.is_some_and(|due| due <= instant(to)), "{due:?}");
        self.store.apply(plan, &[]);
    }

    pub(super) fn purchase(&mut self, team: usize, tokens: i64, original: Option<When>) {
        let original = original.map(|when| self.resolve(when));
        let (number, now, settled) = (self.number(), self.now, self.settled(self.now));
        let taken = self.naive.purchase(team, number, tokens, original, now, settled);
        let mut loaded = self.store.load(&self.teams[team]);
        let order = Purchase { lot_id: id("lot", number), tokens, purchased_at: original.map(instant) };
        let plan = purchase(&mut loaded, &order, instant(now), instant(settled), &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn grant(&mut self, op: &Op) {
        let Op::Grant { team, pool, amount, start, expiry, set_up, leaves_older } = op else { return };
        let (start, expiry) = (start.map(|when| self.resolve(when)), self.resolve(*expiry));
        let (number, now, settled) = (self.number(), self.now, self.settled(self.now));
        let pool_name = POOLS[*pool];
        if *leaves_older {
            self.naive.leaving_older.insert(number);
        }
        let taken = self.naive.grant(*team, number, pool_name, *amount, start, expiry, *set_up, now, settled);
        let mut loaded = self.store.load_items(&self.teams[*team]);
        let wish = Grant {
            lot_id: id("lot", number),
            amount: MicroTokens::from_micros(*amount),
            pool_kind: pool_name.parse().unwrap(),
            starts_at: start.map(instant),
            expires_at: instant(expiry),
            set_up: *set_up,
            leaves_older_debts: *leaves_older,
        };
        let plan = grant(&mut loaded, &wish, instant(now), instant(settled), &self.settings);
        self.settle(taken, plan.ok());
    }

    pub(super) fn settle(&mut self, taken: bool, plan: Option<Plan>) {
        assert_eq!(taken, plan.is_some(), "both take it or neither");
        if let Some(plan) = plan {
            self.store.apply(plan, &[]);
        }
    }
}

//! Batches (D9, D14, D25).

use super::{Charge, Key, Ledger, Team, Usage, date_of, rating::Stands};

impl Ledger {
    /// Posts a batch for the teams that were loaded.
    pub fn post(
        &mut self,
        batch: usize,
        usage: &[Usage],
        teams: &[usize],
        last_of: &[u64],
        now: i64,
        settled: i64,
    ) {
        let at = self.instant(teams, now);
        for team in teams {
            self.advance(*team, at, settled);
            let mut mine: Vec<Usage> = Vec::new();
            for item in usage.iter().filter(|item| item.team == Some(*team)) {
                if item.received - (item.window + self.window) > self.lateness {
                    self.hit("D9 later than the limit");
                    self.unattributed.insert((batch, item.line, "late"));
                } else {
                    mine.push(item.clone());
                }
            }
            mine.sort_by_key(|item| {
                let series = (item.failed, item.series.clone());
                (
                    item.window,
                    item.app,
                    item.meter.clone(),
                    item.client.clone(),
                    series,
                    item.received,
                    item.line,
                )
            });
            let any = mine
                .iter()
                .map(|item| self.post_one(*team, batch, item, at))
                .filter(|posted| *posted)
                .count();
            let ended = last_of.iter().filter(|hold| self.end_hold(*team, **hold, at)).count();
            if ended > 0 {
                self.hit("D45 a last capture");
            }
            if any + ended > 0 {
                self.end_transaction(*team, at);
            }
        }
        for item in usage.iter().filter(|item| item.team.is_none()) {
            self.hit("D25 nobody's usage");
            self.unattributed.insert((batch, item.line, "no_team"));
        }
    }

    pub(crate) fn post_one(&mut self, team: usize, batch: usize, item: &Usage, at: i64) -> bool {
        let hold = item.hold.filter(|hold| self.is_own(team, *hold, item.app, at));
        let window = hold.map_or(item.window, |hold| self.hold(team, hold).window);
        if item.hold.is_some() && hold.is_none() {
            self.hit("D45 usage of no open hold is ordinary usage");
        }
        if window != item.window {
            self.hit("D45 usage of a hold belongs to its window");
        }
        let Some(mut charge) = self.rated(team, batch, item, window) else {
            self.unattributed.insert((batch, item.line, "overflow"));
            return false;
        };
        let owes = |other: usize| {
            let Team { charges, debts, .. } = &self.teams[other];
            debts.iter().any(|debt| debt.owed > 0 && charges[debt.charge].app == Some(item.app))
        };
        if (0..self.teams.len()).any(|other| other != team && owes(other)) {
            self.hit("D8 an app that left debt with another team");
        }
        self.pay(team, &mut charge, hold, at);
        self.teams[team].charges.push(charge);
        self.pay_debts(team, at);
        true
    }

    /// What usage costs and why; nothing where it does not fit.
    pub(crate) fn rated(&mut self, team: usize, batch: usize, item: &Usage, window: i64) -> Option<Charge> {
        let rate = self.rate(self.teams[team].kind, &item.meter, window);
        let mut charge = Charge {
            name: (batch, item.line),
            app: Some(item.app),
            meter: item.meter.clone(),
            key: None,
            why: "priced",
            window,
            quantity: item.quantity,
            values: item.values.clone(),
            amount: 0,
            opened: 0,
            corrects: None,
        };
        match rate {
            _ if item.trial => {
                self.hit("D20 free in the trial");
                charge.why = "trial";
            }
            None => {
                self.hit("D12 no price in force");
                charge.why = "unpriced";
            }
            Some((rate, _)) if item.failed && rate.failed_is_free => {
                self.hit("D18 a failed job is free");
                charge.why = "failed";
            }
            Some((rate, began)) => {
                let (year, month, _) = date_of(window);
                let month = rate.unit.is_none().then_some((year, month));
                let key = Key { meter: item.meter.clone(), began, month };
                let Some((amount, over)) = self.price(team, &key, &rate, Stands::of(&charge)) else {
                    self.hit("D53 what does not fit");
                    return None;
                };
                charge.key = Some(key);
                charge.amount = amount;
                if over {
                    charge.why = "over_quota";
                }
            }
        }
        Some(charge)
    }
}

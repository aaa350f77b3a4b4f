//! Usage that is taken back and charged again, put to both ledgers.

use drawdown_ledger_core::{Aggregation, periods_wanted};

use super::{batches::usage, *};

impl Both {
    pub(super) fn correct(&mut self, op: &Op) {
        let Op::Correct { team, charge, percent, again, same_window } = op else { return };
        let Some(place) = self.naive.some_charge(*team, *charge) else { return };
        let team_id = self.teams[*team].balance.team_id;
        let standing = self.naive.standing(*team, place);
        // Usage from before an import is no charge.
        let prior =
            self.naive.teams[*team].charges[..place].iter().filter(|charge| charge.name == naive::PRIOR);
        let nth = place - prior.count();
        let stored = self.store.charges.iter().filter(|charge| charge.team_id == team_id).nth(nth).unwrap();
        let corrected = StandingCharge {
            charge_id: stored.charge_id,
            team_id,
            meter: MeterSlug::new(&self.naive.teams[*team].charges[place].meter).unwrap(),
            window: stored.window,
            rated: stored.rated,
            quantity: Quantity::new(standing).unwrap(),
        };
        let quantity = (i128::from(standing) * i128::from(*percent) + 99).div_euclid(100).try_into().unwrap();
        let again = again.as_ref().filter(|again| again.team.is_some());
        let line = again.map(|seed| {
            let window =
                if *same_window { When::FromNow(stored.window.as_micros() - self.now) } else { seed.window };
            self.line(&LineSeed { window, hold: None, ..seed.clone() })
        });
        let usage = line.as_ref().zip(again).map(|(line, seed)| usage(0, line, seed, None));
        self.batches += 1;
        let (now, settled) = (self.now, self.settled(self.now));
        let taken = self.naive.correct(*team, place, quantity, usage.as_ref(), self.batches, now, settled);
        let plan = self.plan(&corrected, quantity, line.as_ref(), now, settled);
        assert_eq!(taken, plan.is_some(), "both take it or neither");
        if let Some(plan) = plan {
            self.store.apply(plan, line.as_slice());
        }
    }

    /// The newest lines of the key are given a few at a time, as a store would.
    fn plan(
        &mut self,
        corrected: &StandingCharge,
        quantity: i64,
        line: Option<&Line>,
        now: i64,
        settled: i64,
    ) -> Option<Plan> {
        let numbers = (self.made + 1, self.made + 2);
        self.made += 2;
        let payer = line.map(|line| match line.attribution {
            Attribution::Payer(payer) => payer.team_id,
            Attribution::Nobody(_) => unreachable!(),
        });
        let own = corrected.team_id;
        let left = self.store.lots.values().filter(|lot| lot.team_id == own && lot.moved_to.is_some());
        let left: Vec<LotId> = left.map(|lot| lot.lot_id).collect();
        let lives = |team: &Team| {
            left.iter().any(|lot_id| {
                let here = self.store.lots.get(&(team.balance.team_id, *lot_id));
                here.is_some_and(|lot| lot.moved_to.is_none())
            })
        };
        let wanted = |team: &&Team| {
            let team_id = team.balance.team_id;
            team_id == own || payer == Some(team_id) || lives(team)
        };
        let teams: Vec<Team> =
            self.teams.iter().filter(wanted).map(|team| self.store.load_whole(team)).collect();
        let price = corrected.rated.price_id().and_then(|price_id| self.prices.named(price_id));
        let price = price.map(|(_, price)| price);
        let by_unit = price.as_ref().is_some_and(|price| price.terms.charged_unit().is_some());
        let unique = matches!(self.prices.meters()[&corrected.meter], Aggregation::Unique(_));
        let period = price.and_then(|price| self.store.shrink(corrected, &price, unique));
        let periods =
            self.store.periods(&periods_wanted(&self.prices, line.map_or(&[], std::slice::from_ref), &[]));
        let same = |charge: &&crate::store::StoredCharge| {
            charge.team_id == own
                && charge.rated.price_id() == corrected.rated.price_id()
                && (by_unit || Cycle::of(charge.window) == Cycle::of(corrected.window))
                && charge.amount > 0
                && charge.charge_id != corrected.charge_id
        };
        let latest: Vec<ChargeId> =
            self.store.charges.iter().rev().filter(same).map(|charge| charge.charge_id).collect();
        let journal = self.store.charge_journal(own);
        let states: Vec<_> = self.store.states.values().cloned().collect();
        for given in 0..=latest.len() {
            let correction = Correction {
                charge_id: id("chg", numbers.0),
                corrected,
                quantity: Quantity::new(quantity).unwrap(),
                period: period.clone(),
                recharge: line,
                latest: &latest[..given],
                journal: &journal,
                states: &states,
                periods: &periods,
                prices: &self.prices,
            };
            let mut teams = teams.clone();
            let new = || id("chg", numbers.1);
            match correct(&mut teams, &correction, instant(now), instant(settled), &self.settings, new) {
                Ok((plan, taken)) => {
                    self.charge_of.insert(taken.charge_id, (self.batches, 0));
                    self.charge_of.insert(id("chg", numbers.1), (self.batches, 1));
                    for value in &taken.gone {
                        assert!(self.store.values.remove(value), "what is gone was there");
                    }
                    self.store.charges.push(taken.into());
                    return Some(plan);
                }
                Err(drawdown_ledger_core::CorrectionError::MoreLines) => {}
                Err(_) => return None,
            }
        }
        // The lines of the key did not cover the refund: the other ledger has taken it.
        None
    }
}

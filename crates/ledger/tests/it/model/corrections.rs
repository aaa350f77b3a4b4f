//! Usage that is taken back and charged again, put to both.

use drawdown_ledger_model::{
    self as naive, Adds,
    history::{LineSeed, METERS, Op, When},
};
use drawdown_proto::ledger::v1::InsteadUsage;

use super::{Both, instant};
use crate::world::proto;

/// How far ahead usage may lie, by default.
const AHEAD_MICROS: i64 = 86_400_000_000;

impl Both {
    pub(super) async fn correct(&mut self, op: &Op) {
        let Op::Correct { team, charge, percent, again, same_window } = op else { return };
        let Some(place) = self.naive.some_charge(*team, *charge) else { return };
        let standing = self.naive.standing(*team, place);
        let quantity: i64 =
            (i128::from(standing) * i128::from(*percent) + 99).div_euclid(100).try_into().unwrap();
        if quantity == 0 {
            // On the wire nothing means all that stands.
            return;
        }
        let charges = self.naive.teams[*team].charges.clone();
        let window = charges[place].window;
        // A meter without a price has no row in the catalogue, the trial is the directory's to know, and distinct
        // values have no place in the request.
        let can = |meter: &str| meter != "unknown" && !matches!(self.naive.adds(meter), Adds::Distinct(_));
        let again = again.as_ref().filter(|again| again.team.is_some() && can(METERS[again.meter]));
        let usage = again.map(|seed| {
            let at = if *same_window { When::FromNow(window - self.now) } else { seed.window };
            let seed = LineSeed { window: at, hold: None, trial: false, ..seed.clone() };
            self.line(0, &seed).1
        });
        let instead = usage.as_ref().map(|usage| self.instead(usage));
        self.batches += 1;
        let (now, settled) = (self.now, self.settled());
        // What has not come yet can not be charged, but where a batch has charged it already.
        let comes = |usage: &naive::Usage| usage.window > window.max(now + AHEAD_MICROS);
        let taken = !usage.as_ref().is_some_and(comes)
            && self.naive.correct(*team, place, quantity, usage.as_ref(), self.batches, now, settled);
        // Usage from before an import is no charge.
        let prior = charges[..place].iter().filter(|charge| charge.name == naive::PRIOR).count();
        let charge_id = self.world.charges(self.teams[*team]).await.swap_remove(place - prior).charge_id;
        let answer = self.world.correct(self.teams[*team], &charge_id, quantity, instead).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    fn instead(&self, usage: &naive::Usage) -> InsteadUsage {
        InsteadUsage {
            team_id: self.teams[usage.team.unwrap()].team.to_string(),
            app_id: self.apps[usize::try_from(usage.app).unwrap()].to_string(),
            client_id: usage.client.clone(),
            meter: usage.meter.clone(),
            window_start: proto(instant(usage.window)),
            quantity: usage.quantity,
            failed: Some(usage.failed),
        }
    }
}

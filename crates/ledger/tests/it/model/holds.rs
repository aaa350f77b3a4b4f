//! Holds, put to both.

use drawdown_ledger_model::history::{Lasts, Op};
use drawdown_proto::ledger::v1::{
    ExtendHoldRequest, ReleaseHoldRequest, ReserveTokensRequest, hold_service_server::HoldService,
};
use tonic::Request;

use super::Both;
use crate::world::request_id;

impl Both {
    pub(super) fn lasts_ms(&self, lasts: Lasts) -> i64 {
        lasts.micros(&self.naive, self.now).div_euclid(1000)
    }

    pub(super) async fn reserve(&mut self, op: &Op) {
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

    pub(super) async fn extend(&mut self, team: usize, which: usize, lasts: Lasts, more: i64) {
        let Some(hold) = self.naive.some_hold(team, which) else { return };
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

    pub(super) async fn release(&mut self, team: usize, which: usize) {
        let Some(hold) = self.naive.some_hold(team, which) else { return };
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
}

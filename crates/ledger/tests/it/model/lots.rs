//! Lots: bought, granted, moved, changed, taken back, put to both.

use drawdown_ledger_model::history::{Op, POOLS, When};
use drawdown_proto::ledger::v1::{
    self as pb, AdjustLotRequest, ChargeBackLotRequest, GrantTokensRequest, MoveLotRequest, PoolKind,
    PurchaseTokensRequest, RefundLotRequest, lot_service_server::LotService,
    token_service_server::TokenService,
};
use tonic::{Request, Status};

use super::{Both, instant};
use crate::world::{proto, request_id};

/// In the order of [`POOLS`].
pub(super) const KINDS_OF_POOLS: [PoolKind; POOLS.len()] =
    [PoolKind::Free, PoolKind::Enterprise, PoolKind::Credit, PoolKind::Promotional, PoolKind::Flex];

impl Both {
    pub(super) async fn purchase(&mut self, team: usize, tokens: i64, original: Option<When>) {
        let original = original.map(|when| self.resolve(when));
        let (number, settled) = (self.number(), self.settled());
        let set_up = original.filter(|original| *original <= self.latest(team));
        let taken = self.may_set_up(team, set_up)
            && self.naive.purchase(team, number, tokens, original, self.now, settled);
        let request = PurchaseTokensRequest {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            tokens,
            purchased_at: original.and_then(|original| proto(instant(original))),
            request_id: request_id(),
            note: String::new(),
        };
        let lot = self.world.tokens.purchase_tokens(Request::new(request)).await;
        assert_eq!(taken, lot.is_ok(), "{lot:?}");
        self.keep(number, lot.map(|answer| answer.into_inner().lot.unwrap()));
    }

    /// D61: original instants are taken as long as no usage of their windows is settled.
    pub(super) fn may_set_up(&mut self, team: usize, from: impl IntoIterator<Item = i64>) -> bool {
        let settled = from.into_iter().any(|from| self.naive.is_settled(team, from));
        if settled {
            self.naive.hit("D61 usage of its windows is settled");
        }
        !settled
    }

    pub(super) fn keep(&mut self, number: u64, lot: Result<pb::Lot, Status>) {
        if let Ok(lot) = lot {
            self.lots.insert(number, lot.lot_id);
        }
    }

    pub(super) async fn grant(&mut self, op: &Op) {
        let Op::Grant { team, pool, amount, start, expiry, leaves_older, .. } = op else { return };
        let start = start.map(|when| self.resolve(when));
        let expiry = self.resolve(*expiry);
        let (number, settled) = (self.number(), self.settled());
        if *leaves_older {
            self.naive.leaving_older.insert(number);
        }
        // A start in the past is set-up.
        let set_up = start.filter(|start| *start < self.latest(*team));
        let (pool_name, past) = (POOLS[*pool], set_up.is_some());
        let taken = self.may_set_up(*team, set_up)
            && self.naive.grant(*team, number, pool_name, *amount, start, expiry, past, self.now, settled);
        let request = GrantTokensRequest {
            account_id: self.teams[*team].account.to_string(),
            team_id: self.teams[*team].team.to_string(),
            micros: *amount,
            pool_kind: KINDS_OF_POOLS[*pool].into(),
            starts_at: start.and_then(|start| proto(instant(start))),
            expires_at: proto(instant(expiry)),
            note: "test".to_owned(),
            request_id: request_id(),
            leaves_older_debts: *leaves_older,
        };
        let lot = self.world.tokens.grant_tokens(Request::new(request)).await;
        assert_eq!(taken, lot.is_ok(), "{lot:?}");
        self.keep(number, lot.map(|answer| answer.into_inner().lot.unwrap()));
    }

    pub(super) async fn move_lot(&mut self, which: usize, from: usize, to: usize) {
        let Some(lot) = self.naive.some_lot(from, which) else { return };
        let settled = self.settled();
        let taken = self.naive.move_lot(from, to, lot, self.now, settled);
        let request = MoveLotRequest {
            account_id: self.teams[from].account.to_string(),
            lot_id: self.lots[&lot].clone(),
            from_team_id: self.teams[from].team.to_string(),
            to_team_id: self.teams[to].team.to_string(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.move_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    pub(super) async fn adjust(&mut self, which: usize, team: usize, delta: i64) {
        let Some(lot) = self.naive.some_lot(team, which) else { return };
        let settled = self.settled();
        let taken = self.naive.adjust(team, lot, delta, self.now, settled);
        let request = AdjustLotRequest {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            lot_id: self.lots[&lot].clone(),
            delta_micros: delta,
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.adjust_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    pub(super) async fn refund(&mut self, which: usize, team: usize, amount: Option<i64>) {
        let Some(lot) = self.naive.some_lot(team, which) else { return };
        let amount = amount.filter(|amount| *amount > 0);
        let settled = self.settled();
        let taken = self.naive.refund(team, lot, amount, self.now, settled);
        let request = RefundLotRequest {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            lot_id: self.lots[&lot].clone(),
            micros: amount.unwrap_or_default(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.refund_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }

    pub(super) async fn charge_back(&mut self, which: usize) {
        let Some(lot) = self.naive.some_lot(0, which) else { return };
        let settled = self.settled();
        let taken = self.naive.charge_back(lot, self.now, settled);
        let request = ChargeBackLotRequest {
            account_id: self.teams[0].account.to_string(),
            lot_id: self.lots[&lot].clone(),
            reason: "test".to_owned(),
            request_id: request_id(),
        };
        let answer = self.world.lot_service.charge_back_lot(Request::new(request)).await;
        assert_eq!(taken, answer.is_ok(), "{answer:?}");
    }
}

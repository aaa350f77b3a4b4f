//! What must be equal after each step.

use drawdown_ledger_model as naive;
use drawdown_proto::ledger::v1::{self as pb, GetBalanceRequest, token_service_server::TokenService};
use drawdown_types::Timestamp;
use tonic::Request;

use super::{ALLOWANCE, Both, instant};
use crate::{known::is_known, standings::Gate, world::proto};

/// How long a team may stay below zero, as the service's own setting.
const GRACE: i64 = 14 * 86_400 * naive::SECOND;

impl Both {
    /// A read ahead of now or behind it; before the last posting it is refused.
    pub(super) async fn read(&mut self, team: usize, at: i64) {
        let request = GetBalanceRequest {
            team_id: self.teams[team].team.to_string(),
            at: proto(instant(at)),
            ..GetBalanceRequest::default()
        };
        let answer = self.world.tokens.get_balance(Request::new(request)).await;
        if self.naive.teams[team].posted.is_some_and(|posted| at < posted) {
            assert!(answer.is_err(), "{answer:?}");
            self.naive.hit("a read before the last posting");
            return;
        }
        self.compare_balance(team, at, &answer.unwrap().into_inner().balance.unwrap());
    }

    pub(super) fn compare_balance(&self, team: usize, at: i64, balance: &pb::Balance) {
        let mut naive = self.naive.clone();
        naive.advance(team, at, at - ALLOWANCE);
        let mine = &naive.teams[team];
        let (open, owed) = (naive.available(team, at), naive.owed(team));
        let sum = |part: fn(&naive::Past) -> i64| mine.past.values().map(part).sum::<i64>();
        let held: i64 = mine.lots.iter().map(|lot| naive.held(team, lot.id)).sum();
        assert_eq!(
            (balance.available_micros, balance.uncharged_micros, balance.balance_micros, balance.held_micros),
            (open, owed, open - owed, held)
        );
        assert_eq!(
            (balance.purchased_micros, balance.moved_in_micros, balance.moved_out_micros),
            (mine.issued, mine.moved_in, sum(|past| past.moved))
        );
        assert_eq!(
            (balance.expired_micros, balance.void_micros),
            (sum(|past| past.forfeited), sum(|past| past.void))
        );
        assert_eq!(balance.negative_since, mine.below_since.and_then(|at| proto(instant(at))));
    }

    pub(super) async fn compare(&mut self) {
        for (team, buyer) in self.teams.clone().iter().enumerate() {
            if is_known(&self.world, buyer.team).await {
                self.naive.hit("a team remembered as it is stored");
            }
            let at = self.latest(team);
            self.compare_balance(team, at, &self.world.balance(*buyer).await);
            let mut naive = self.naive.clone();
            naive.advance(team, at, at - ALLOWANCE);
            if naive.teams[team].lots.iter().any(|lot| lot.state(at) == "closing" && lot.left > 0) {
                self.naive.hit("D3 gone from the balance at its expiry");
                if naive.owed(team) == 0 && naive.available(team, at) == 0 {
                    self.naive.hit("D10 an expiry ends at zero");
                }
            }
            let listed = self.world.lots(*buyer).await;
            let facts =
                |lot: &pb::Lot| (lot.remaining_micros, lot.held_micros, lot.granted_micros, lot.void_micros);
            for lot in &naive.teams[team].lots {
                let other = listed.iter().find(|other| other.lot_id == self.lots[&lot.id]).unwrap();
                let past = &naive.teams[team].past[&lot.id];
                assert_eq!(facts(other), (lot.left, naive.held(team, lot.id), past.received, past.void));
                let state = other.state().as_str_name().trim_start_matches("LOT_STATE_").to_lowercase();
                assert_eq!(state, lot.state(at));
            }
            let charged: Vec<_> = (self.world.charges(*buyer).await.into_iter())
                .map(|charge| {
                    let why = if charge.zero_rated.is_empty() { "priced" } else { &charge.zero_rated };
                    (why.to_owned(), charge.quantity, charge.amount_micros, charge.uncharged_micros)
                })
                .collect();
            let theirs = naive.teams[team].charges.iter().filter(|charge| charge.name != naive::PRIOR);
            let theirs: Vec<_> = theirs.map(|c| (c.why.to_owned(), c.quantity, c.amount, c.opened)).collect();
            assert_eq!(charged, theirs);
        }
    }

    /// What a gate remembers is what a reader computes at the latest instant of the sequence, whoever changed it and
    /// whenever. The ledger that told it was at `begin`: nothing is told of what was before.
    pub(super) fn compare_gate(&mut self, gate: &Gate, begin: Timestamp) {
        let mut grace = true;
        let latest = (0..self.teams.len()).map(|team| self.latest(team)).max().unwrap();
        let at = latest.max(begin.as_micros());
        let mut naive = self.naive.clone();
        for (team, buyer) in self.teams.iter().enumerate() {
            naive.advance(team, at, at - ALLOWANCE);
            let mine = &naive.teams[team];
            let held: i64 = mine.lots.iter().map(|lot| naive.held(team, lot.id)).sum();
            let told = gate.balance(buyer.team, instant(at));
            assert_eq!(
                (told.available_micros, told.uncharged_micros, told.held_micros, told.negative_since),
                (
                    naive.available(team, at),
                    naive.owed(team),
                    held,
                    mine.below_since.and_then(|at| proto(instant(at)))
                )
            );
            if gate.was_told_ahead(buyer.team, instant(at)) {
                self.naive.hit("D40 a balance that was told ahead");
            }
            let edge = |at: i64| (at + naive.window - 1).div_euclid(naive.window) * naive.window;
            grace &= mine.below_since.is_none_or(|since| at < edge(since + GRACE));
        }
        assert_eq!(gate.has_grace(self.teams[0].account, instant(at)), grace);
    }

    /// Usage that nobody pays for: client ids and reasons.
    pub(super) fn unattributed(&self) -> Vec<(String, String)> {
        let known = self.naive.unattributed.iter();
        known
            .map(|(batch, line, reason)| (self.lines[&(*batch, *line)].clone(), (*reason).to_owned()))
            .collect()
    }
}

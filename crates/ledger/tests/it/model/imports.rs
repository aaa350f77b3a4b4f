//! What moves here from another platform, put to both.

use drawdown_ledger::grpc::Imports;
use drawdown_ledger_model::{
    Arrival,
    history::{ArrivalSeed, Op, POOLS},
};
use drawdown_proto::ledger::v1::{
    Holdings, ImportTeamsRequest, ImportedLot, PriorDebt, TeamImport, import_service_server::ImportService,
};
use tonic::Request;

use super::{Both, instant, lots::KINDS_OF_POOLS};
use crate::world::{proto, request_id};

impl Both {
    pub(super) async fn import(&mut self, op: &Op) {
        let Op::Import { team, lots, debts, sorted, since, tied } = op else { return };
        let team = *team;
        let mut owed: Vec<(i64, i64)> =
            debts.iter().map(|(when, amount)| (self.resolve(*when), *amount)).collect();
        if *sorted {
            owed.sort_by_key(|(used, _)| *used);
        }
        let since = since.map(|when| self.resolve(when));
        let arrivals: Vec<Arrival> = lots.iter().map(|lot| self.arrival(lot)).collect();
        let begins = arrivals.iter().map(|lot| lot.start.max(lot.bought));
        let concerned: Vec<i64> = begins.chain(owed.iter().map(|(used, _)| *used)).collect();
        let (settled, before) = (self.settled(), self.naive.teams.clone());
        let taken = self.may_set_up(team, concerned)
            && self.naive.import(team, &arrivals, &owed, since, self.now, settled);
        let mut expected = self.holdings(team);
        if taken && !tied {
            // The books are as they would be, but one micro-token more is said to be there.
            self.naive.teams = before;
            self.naive.hit("D61 an import that does not tie");
            expected.scheduled_micros += 1;
        }
        let wanted = self.wanted(team, &arrivals, lots, (&owed, since), expected);
        let reason = "moved from the old platform".to_owned();
        let request = ImportTeamsRequest {
            teams: vec![wanted],
            reason,
            validate_only: false,
            request_id: request_id(),
        };
        let imports = Imports::new(self.world.ledger.clone());
        let answer = imports.import_teams(Request::new(request)).await;
        assert_eq!(taken && *tied, answer.is_ok(), "{answer:?}");
        let Ok(answer) = answer else { return };
        let made = answer.into_inner().teams.swap_remove(0).lots;
        assert_eq!(made.len(), arrivals.len());
        for (arrival, lot) in arrivals.iter().zip(made) {
            self.lots.insert(arrival.id, lot.lot_id);
        }
    }

    fn arrival(&mut self, lot: &ArrivalSeed) -> Arrival {
        let id = self.number();
        if lot.leaves_older {
            self.naive.leaving_older.insert(id);
        }
        Arrival {
            id,
            pool: POOLS[lot.pool],
            size: lot.size,
            left: lot.size * lot.percent / 100,
            bought: self.resolve(lot.bought),
            start: self.resolve(lot.start),
            expiry: self.resolve(lot.expiry),
        }
    }

    fn wanted(
        &self,
        team: usize,
        arrivals: &[Arrival],
        seeds: &[ArrivalSeed],
        (owed, since): (&[(i64, i64)], Option<i64>),
        expected: Holdings,
    ) -> TeamImport {
        let lot = |(arrival, seed): (&Arrival, &ArrivalSeed)| ImportedLot {
            leaves_older_debts: seed.leaves_older,
            pool_kind: KINDS_OF_POOLS[seed.pool].into(),
            original_micros: arrival.size,
            left_micros: arrival.left,
            purchased_at: proto(instant(arrival.bought)),
            starts_at: proto(instant(arrival.start)),
            expires_at: proto(instant(arrival.expiry)),
            ..ImportedLot::default()
        };
        let debt = |(used, amount): &(i64, i64)| PriorDebt {
            amount_micros: *amount,
            used_at: proto(instant(*used)),
        };
        TeamImport {
            account_id: self.teams[team].account.to_string(),
            team_id: self.teams[team].team.to_string(),
            lots: arrivals.iter().zip(seeds).map(lot).collect(),
            debts: owed.iter().map(debt).collect(),
            negative_since: since.and_then(|since| proto(instant(since))),
            expected: Some(expected),
        }
    }

    /// What the naive ledger says that a team has now.
    fn holdings(&self, team: usize) -> Holdings {
        let at = self.latest(team);
        let left = |state| {
            let lots = self.naive.teams[team].lots.iter().filter(|lot| lot.state(at) == state);
            lots.map(|lot| lot.left).sum::<i64>()
        };
        let (available, owed) = (left("open"), self.naive.owed(team));
        Holdings {
            available_micros: available,
            uncharged_micros: owed,
            balance_micros: available - owed,
            scheduled_micros: left("scheduled"),
            closing_micros: left("closing"),
        }
    }
}

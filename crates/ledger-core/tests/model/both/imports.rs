//! What moves here from another platform, put to both ledgers.

use drawdown_ledger_core::{Holdings, Import, ImportFault, ImportedLot, PriorDebt, import};
use drawdown_ledger_model::Arrival;

use super::*;

impl Both {
    pub(super) fn import(&mut self, op: &Op) {
        let Op::Import { team, lots, debts, sorted, since, tied } = op else { return };
        let mut owed: Vec<(i64, i64)> =
            debts.iter().map(|(when, amount)| (self.resolve(*when), *amount)).collect();
        if *sorted {
            owed.sort_by_key(|(used, _)| *used);
        }
        let since = since.map(|when| self.resolve(when));
        let arrivals: Vec<Arrival> = lots
            .iter()
            .map(|lot| Arrival {
                id: self.number(),
                pool: POOLS[lot.pool],
                size: lot.size,
                left: lot.size * lot.percent / 100,
                bought: self.resolve(lot.bought),
                start: self.resolve(lot.start),
                expiry: self.resolve(lot.expiry),
            })
            .collect();
        let leaving = lots.iter().zip(&arrivals).filter(|(seed, _)| seed.leaves_older).map(|(_, lot)| lot.id);
        self.naive.leaving_older.extend(leaving);
        let (now, settled) = (self.now, self.settled(self.now));
        let before = self.naive.teams.clone();
        let taken = self.naive.import(*team, &arrivals, &owed, since, now, settled);
        let at = self.naive.teams[*team].posted.map_or(now, |posted| posted.max(now));
        let mut expected = self.holdings(*team, at);
        let untied = taken && !tied;
        if untied {
            // The books are as they would be, but one micro-token more is said to be there.
            self.naive.teams = before;
            self.naive.hit("D61 an import that does not tie");
            expected.available = expected.available.checked_add(MicroTokens::from_micros(1)).unwrap();
        }
        let micros = MicroTokens::from_micros;
        let wish = Import {
            lots: arrivals
                .iter()
                .map(|lot| ImportedLot {
                    lot_id: id("lot", lot.id),
                    pool_kind: lot.pool.parse().unwrap(),
                    original: micros(lot.size),
                    left: micros(lot.left),
                    purchased_at: instant(lot.bought),
                    starts_at: instant(lot.start),
                    expires_at: instant(lot.expiry),
                    leaves_older_debts: self.naive.leaving_older.contains(&lot.id),
                })
                .collect(),
            debts: owed
                .iter()
                .map(|(used, amount)| PriorDebt { amount: micros(*amount), used_at: instant(*used) })
                .collect(),
            negative_since: since.map(instant),
            expected,
        };
        let mut loaded = self.store.load_items(&self.teams[*team]);
        let plan = import(&mut loaded, &wish, instant(now), instant(settled), &self.settings);
        if untied {
            let faults = plan.as_ref().unwrap_err();
            assert!(matches!(faults[..], [ImportFault::NotTied { what: "available", .. }]), "{faults:?}");
        }
        self.settle(taken && !untied, plan.ok());
    }

    fn holdings(&self, team: usize, at: i64) -> Holdings {
        let left = |state| {
            let lots = self.naive.teams[team].lots.iter().filter(|lot| lot.state(at) == state);
            MicroTokens::from_micros(lots.map(|lot| lot.left).sum())
        };
        Holdings {
            available: left("open"),
            scheduled: left("scheduled"),
            closing: left("closing"),
            uncharged: MicroTokens::from_micros(self.naive.owed(team)),
        }
    }
}

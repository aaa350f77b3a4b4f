//! Usage, put to both: a batch of the gate here, lines of usage there.

use std::collections::BTreeSet;

use drawdown_ledger_model::{
    self as naive, Adds,
    history::{LineSeed, METERS, TEAMS},
};
use drawdown_proto::ledger::v1::{self as pb, ContractKind, line};

use super::{Both, instant};
use crate::world::proto;

impl Both {
    pub(super) async fn batch(&mut self, seeds: &[LineSeed]) {
        self.batches += 1;
        let (mut lines, mut usage, mut received_first) = (Vec::new(), Vec::new(), i64::MAX);
        for (line, seed) in seeds.iter().enumerate() {
            let (wire, usage_of) = self.line(line, seed);
            received_first = received_first.min(usage_of.received);
            self.lines.insert((self.batches, line), usage_of.client.clone());
            lines.push(wire);
            usage.push(usage_of);
        }
        let loaded: Vec<usize> =
            (0..TEAMS).filter(|team| seeds.iter().any(|seed| seed.team == Some(*team))).collect();
        let settled = self.settled().min(received_first);
        self.naive.post(self.batches, &usage, &loaded, &[], self.now, settled);
        let batch = self.world.batch(self.number, self.producer, lines).await;
        self.world.post(&batch).await.unwrap();
    }

    /// Client ids are never used twice, so each sequence has its own.
    pub(super) fn client(&self, app: u64) -> String {
        format!("sequence{}-client{app}", self.number)
    }

    pub(super) fn line(&self, line: usize, seed: &LineSeed) -> (pb::Line, naive::Usage) {
        let size = self.naive.window;
        let window = self.resolve(seed.window).div_euclid(size) * size;
        let lag = seed.lag.windows(&self.naive);
        let received = window + size * (1 + lag);
        let counts = METERS[seed.meter] == "call";
        let adds = naive::prices::adds(METERS[seed.meter]);
        let values = match adds {
            Adds::Distinct(_) => naive::prices::values(seed.values),
            Adds::Up | Adds::Largest(_) => BTreeSet::new(),
        };
        let quantity = match adds {
            Adds::Distinct(_) => i64::try_from(values.len()).unwrap(),
            Adds::Up if counts => seed.quantity.clamp(1, 1 << 40),
            Adds::Up | Adds::Largest(_) => seed.quantity,
        };
        let hold = seed.team.and_then(|team| self.naive.some_hold(team, seed.hold?));
        let hold_id = hold.map(|hold| self.holds[&hold].clone()).unwrap_or_default();
        let app = usize::try_from(seed.app).unwrap();
        let attribution = match seed.team {
            None => line::Attribution::UnattributedReason("no_team".to_owned()),
            Some(team) => line::Attribution::Payer(pb::Payer {
                app_id: self.apps[app].to_string(),
                contract_kind: [ContractKind::Flex, ContractKind::Enterprise][team].into(),
                in_trial: seed.trial,
                ..crate::world::payer(self.teams[team])
            }),
        };
        let state = match adds {
            Adds::Up if counts => line::State::Count(pb::CountState {}),
            Adds::Up => line::State::Sum(pb::SumState { quantity }),
            Adds::Largest(_) => line::State::Max(pb::MaxState { value: quantity }),
            Adds::Distinct(_) => line::State::Unique(pb::UniqueState {
                values: values.iter().map(|value| vec![*value]).collect(),
            }),
        };
        let wire = pb::Line {
            client_id: self.client(seed.app),
            meter: METERS[seed.meter].to_owned(),
            failed: seed.failed,
            dimensions: [("region".to_owned(), seed.series.to_string())].into(),
            hold_id: hold_id.clone(),
            window_start: proto(instant(window)),
            received_window_start: proto(instant(received)),
            events: if counts { quantity.unsigned_abs() } else { 1 },
            state: Some(state),
            attribution: Some(attribution),
        };
        let usage = naive::Usage {
            line,
            team: seed.team,
            app: seed.app,
            client: self.client(seed.app),
            meter: METERS[seed.meter].to_owned(),
            failed: seed.failed,
            trial: seed.trial,
            series: format!("{}{hold_id}", seed.series).into_bytes(),
            window,
            received,
            quantity,
            values,
            hold,
        };
        (wire, usage)
    }
}

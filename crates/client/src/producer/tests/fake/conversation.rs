//! One stream: what it is told for what it says, and what it may not say.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use drawdown_metering_core::{
    dictionary::Dictionary,
    frame::{FrameLimits, FrameView},
    series::{SeriesKey, SeriesNumber, SeriesParts},
    shard::shard_of,
};
use drawdown_proto::metering::v1::{
    self as wire, ingest_request::Request as Ask, ingest_response::Response as Reply,
};
use tonic::{Code, Status};

use super::{
    refusal,
    state::{At, Counts, Fault, LaneKey, State},
};

/// What one stream is told, in order; `Err` ends it.
pub(super) type Told = Vec<Result<Reply, Status>>;

pub(super) struct Conversation {
    state: Arc<Mutex<State>>,
    dictionary: Dictionary,
    attached: Vec<LaneKey>,
    /// Up to where each of them was told to be applied.
    told: BTreeMap<LaneKey, u64>,
    stopped: Vec<LaneKey>,
    greeted: bool,
    epoch: u64,
}

impl Conversation {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self {
            state,
            dictionary: Dictionary::new(1_000),
            attached: Vec::new(),
            told: BTreeMap::new(),
            stopped: Vec::new(),
            greeted: false,
            epoch: 0,
        }
    }

    pub(super) fn hear(&mut self, ask: Ask) -> Told {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        match ask {
            Ask::Hello(hello) => {
                assert!(!std::mem::replace(&mut self.greeted, true), "a second hello");
                self.epoch = hello.epoch;
                if hello.epoch < state.epoch {
                    vec![Err(refusal(Code::Aborted, "FENCED"))]
                } else {
                    Told::new()
                }
            }
            Ask::Attach(attach) => vec![Ok(self.attach(&attach, &mut state))],
            Ask::Define(define) => {
                for definition in define.definitions {
                    self.define(&definition);
                }
                Told::new()
            }
            Ask::Frame(frame) => self.frame(&frame, &mut state),
            Ask::Rows(rows) => panic!("this producer sends columns: {rows:?}"),
        }
    }

    /// The worker settles now and then.
    pub(super) fn tick(&mut self) -> Told {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        if std::mem::take(&mut state.breaks) {
            return vec![Err(Status::unavailable("broken"))];
        }
        let mut told = Told::new();
        let overtaken =
            self.attached.iter().copied().filter(|key| state.lanes.get(key).unwrap().epoch > self.epoch);
        for key in overtaken.collect::<Vec<_>>() {
            told.extend(self.stop(key, "FENCED", &state));
        }
        for key in &self.mine(&state) {
            let applied = state.lanes.get(key).unwrap().applied;
            if self.told.insert(*key, applied.sequence).is_some_and(|before| before > applied.sequence) {
                let applied = Some(State::position(*key, applied));
                told.push(Ok(Reply::Rewound(wire::LaneRewound { applied })));
            }
        }
        if state.settle_by_itself && !self.attached.is_empty() {
            state.settle_all();
            let lanes = self.mine(&state).into_iter().map(|key| state.watermark(key)).collect();
            told.push(Ok(Reply::Watermarks(wire::Watermarks { lanes })));
        }
        told
    }

    /// Lanes that no newer stream of the producer has attached.
    fn mine(&self, state: &State) -> Vec<LaneKey> {
        let lanes = self.attached.iter().copied();
        lanes.filter(|key| state.lanes.get(key).unwrap().epoch <= self.epoch).collect()
    }

    fn attach(&mut self, attach: &wire::AttachLane, state: &mut State) -> Reply {
        assert!(self.greeted, "attach before hello");
        let lane = attach.lane.unwrap();
        let key = (lane.map_version, lane.shard);
        assert!(!self.attached.contains(&key), "attached twice");
        self.attached.push(key);
        state.lanes_seen.push(key);
        let at = state.lanes.entry(key).or_default();
        at.epoch = at.epoch.max(self.epoch);
        let (applied, settled) = (at.applied, at.settled);
        self.told.insert(key, applied.sequence);
        Reply::Attached(wire::LaneAttached {
            applied: Some(State::position(key, applied)),
            settled: Some(State::position(key, settled)),
            registered_epoch: state.epoch,
            send_through_sequence: applied.sequence + state.window,
        })
    }

    fn define(&mut self, definition: &wire::SeriesDefinition) {
        let series = definition.series.as_ref().unwrap();
        let dimensions = series.dimensions.iter();
        let parts = SeriesParts {
            client_id: series.client_id.as_bytes(),
            meter: series.meter.as_bytes(),
            outcome: u64::try_from(series.outcome).unwrap(),
            dimensions: dimensions.map(|d| (d.name.as_bytes(), d.value.as_bytes())).collect(),
            hold_id: series.hold_id.as_bytes(),
        };
        let key = SeriesKey::from_parts(&parts, "series").unwrap();
        let number = SeriesNumber::new(definition.number).unwrap();
        self.dictionary.define_one(number, key).unwrap();
    }

    fn frame(&mut self, frame: &wire::LaneFrame, state: &mut State) -> Told {
        state.frames_received += 1;
        let fault = state.faults.pop_front();
        if matches!(fault, Some(Fault::Break)) {
            return vec![Err(Status::unavailable("broken"))];
        }
        if matches!(fault, Some(Fault::Damage)) {
            return vec![Err(refusal(Code::InvalidArgument, "MESSAGE_MALFORMED"))];
        }
        let view = FrameView::parse(&frame.body, &FrameLimits::default()).unwrap();
        let key = (view.map_version(), view.shard());
        assert!(self.attached.contains(&key), "a frame before its lane was attached");
        if self.stopped.contains(&key) {
            // Sent before the producer could hear of it.
            return Told::new();
        }
        if state.lanes.get(&key).unwrap().epoch > self.epoch {
            return self.stop(key, "FENCED", state);
        }
        if let Some(Fault::Stop(reason)) = fault {
            return self.stop(key, reason, state);
        }
        self.dictionary.define(view.definitions()).unwrap();
        let counts = self.count(&view, state);
        let lane = state.lanes.get_mut(&key).unwrap();
        let (first, last) = view.sequences().into_inner();
        if last <= lane.applied.sequence {
            return vec![Ok(Reply::Watermarks(wire::Watermarks { lanes: vec![state.watermark(key)] }))];
        }
        if first != lane.applied.sequence + 1 || frame.chain_before != lane.applied.chain {
            let applied = Some(State::position(key, lane.applied));
            return vec![Ok(Reply::Rewound(wire::LaneRewound { applied }))];
        }
        assert!(last <= lane.applied.sequence + state.window, "beyond the window");
        lane.applied = At { sequence: last, chain: view.chain_after(frame.chain_before) };
        lane.unsettled.push_back((lane.applied, counts));
        self.after(fault, key, &view, state)
    }

    fn stop(&mut self, key: LaneKey, reason: &str, state: &State) -> Told {
        self.stopped.push(key);
        let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
        let settled = Some(State::position(key, state.lanes.get(&key).unwrap().settled));
        let (reason, detail, faults) = (reason.to_owned(), "as told".to_owned(), Vec::new());
        vec![Ok(Reply::Stopped(wire::LaneStopped { lane, reason, detail, faults, settled }))]
    }

    fn count(&self, view: &FrameView<'_>, state: &State) -> Counts {
        let mut counts = Counts::new();
        let shards = NonZeroU32::new(state.shard_count).unwrap();
        view.for_each(|number, quantity, _| {
            let key = self.dictionary.get(number).expect("a series that the stream has not defined");
            if view.map_version() == state.map_version {
                assert_eq!(shard_of(key.client_id().as_str(), shards), view.shard());
            }
            let sum = counts.entry(format!("{} {}", key.client_id(), key.meter())).or_default();
            *sum = (sum.0 + 1, sum.1 + quantity);
        });
        counts
    }

    fn after(&self, fault: Option<Fault>, key: LaneKey, view: &FrameView<'_>, state: &mut State) -> Told {
        match fault {
            Some(Fault::BreakAfter) => return vec![Err(Status::unavailable("broken"))],
            Some(Fault::ForgetAndBreak) => {
                state.forget();
                return vec![Err(Status::unavailable("broken"))];
            }
            Some(Fault::Forget) => {
                state.forget();
                let rewound = |key: &LaneKey| {
                    let applied = Some(State::position(*key, state.lanes.get(key).unwrap().applied));
                    Ok(Reply::Rewound(wire::LaneRewound { applied }))
                };
                return self.mine(state).iter().map(rewound).collect();
            }
            Some(Fault::Refuse(reason)) => {
                let lane = Some(wire::Lane { map_version: key.0, shard: key.1 });
                let refused = wire::EventsRefused {
                    lane,
                    reason: reason.to_owned(),
                    count: view.events(),
                    first_sequence: *view.sequences().start(),
                    fault: None,
                };
                return vec![
                    Ok(Reply::Refused(refused)),
                    Ok(Reply::Watermarks(wire::Watermarks { lanes: vec![state.watermark(key)] })),
                ];
            }
            Some(Fault::Settle) => state.settle_all(),
            None if state.settle_by_itself => state.settle_all(),
            None | Some(Fault::Break | Fault::Damage | Fault::Stop(_)) => {}
        }
        let lanes = self.mine(state).into_iter().map(|key| state.watermark(key)).collect();
        vec![Ok(Reply::Watermarks(wire::Watermarks { lanes }))]
    }
}

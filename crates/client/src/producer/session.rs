//! One stream's decisions, without the stream: what to send next, what an answer changes.
//!
//! Shape: for each lane, the next sequence to send (none while the service's store and this log do not
//! agree) and the window's end. The rules are those of `metering_core::resume`; this module only keeps
//! what they say. A session begins empty and ends with its stream, so nothing of a broken stream can
//! leak into the next.

use std::collections::BTreeMap;

use bytes::Bytes;
use drawdown_metering_core::{
    fault::FieldFault,
    frame::{FrameLimits, FrameView},
    reason,
    resume::{Answer, LaneLog as _, Resume, Source, resume},
    shard::{Lane, Position},
};
use drawdown_proto::metering::v1 as wire;
use drawdown_types::ProducerId;

use super::{
    encode::{definition, lane_of, lane_to_wire, position_of, position_to_wire},
    error::{Fault, LaneStop},
    index::{Index, LaneLog},
    log::{Body, FrameRef},
};

/// Why a stream can not go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// This producer stops for good.
    Fault(Fault),
    /// Another stream may do better.
    Reconnect(&'static str),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What an answer changed for others.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) settled_moved: bool,
    /// The ledger stands before what the log has freed; only its own word, at an opening, says what follows.
    pub(super) behind: bool,
    /// The service has counted or settled something, so the stream is of use.
    pub(super) watermark: bool,
    pub(super) stopped: Option<LaneStop>,
    /// Events that were not refused before: why, and how many.
    pub(super) refused: Option<(String, u32)>,
}

/// What to send next.
#[derive(Debug)]
pub(super) enum Outgoing {
    Attach(wire::AttachLane),
    Frame { frame: FrameRef, chain_before: u64, body: Option<Bytes> },
}

#[derive(Debug, Default)]
struct LaneSession {
    attached: bool,
    stopped: bool,
    /// Nothing can be sent before it is adopted.
    adopting: bool,
    /// The sequence to send next; `None` while nothing may be sent.
    next: Option<u64>,
    through: u64,
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Session {
    producer: ProducerId,
    epoch: u64,
    series_max: usize,
    lanes: BTreeMap<Lane, LaneSession>,
    /// The lane that sent last, so that every lane gets its turn.
    last: Option<Lane>,
    /// The map that events are appended by while this stream lasts.
    map_version: u32,
    /// Series that were in the log when this stream began.
    before: usize,
    /// How many of these it has not defined.
    undefined_before: usize,
    defined: Numbers,
    /// Frames went out that were not looked at, so `defined` has not all of it.
    unlooked: bool,
}

/// A set of series numbers.
#[derive(Debug, Default)]
struct Numbers {
    words: Vec<u64>,
    count: usize,
}

impl Numbers {
    /// Adds a number; answers whether it is new.
    fn insert(&mut self, number: u32) -> bool {
        let Ok(at) = usize::try_from(number / u64::BITS) else { return false };
        if self.words.len() <= at {
            self.words.resize(at.saturating_add(1), 0);
        }
        let Some(word) = self.words.get_mut(at) else { return false };
        let bit = 1_u64 << (number % u64::BITS);
        let new = *word & bit == 0;
        *word |= bit;
        self.count = self.count.saturating_add(usize::from(new));
        new
    }
}

impl Session {
    /// `series` are in the log; events are appended by the map of `map_version`.
    pub(super) fn new(
        producer: ProducerId,
        epoch: u64,
        series_max: u32,
        map_version: u32,
        series: usize,
    ) -> Self {
        Self {
            producer,
            epoch,
            series_max: usize::try_from(series_max).unwrap_or(usize::MAX),
            lanes: BTreeMap::new(),
            last: None,
            map_version,
            before: series,
            undefined_before: series,
            defined: Numbers::default(),
            unlooked: false,
        }
    }

    /// A lane that stopped on an earlier stream is left alone on this one.
    pub(super) fn leave_out(&mut self, lane: Lane) {
        self.lanes.insert(lane, LaneSession { stopped: true, ..LaneSession::default() });
    }

    /// Whether some lane may not send because the service's store does not agree with the log.
    pub(super) fn is_waiting(&self) -> bool {
        let waits =
            |lane: &LaneSession| lane.attached && !lane.stopped && !lane.adopting && lane.next.is_none();
        self.lanes.values().any(waits)
    }

    /// What to send next; `None` until an answer or a new frame comes.
    pub(super) fn next(&mut self, index: &mut Index) -> Option<Outgoing> {
        // Also lanes without anything to send: a restored ledger shows itself only in the answer.
        let unseen = index.lanes().find(|(lane, log)| {
            let wanted = log.is_adopting() || log.end().sequence > log.freed().sequence;
            wanted && !self.lanes.contains_key(lane)
        });
        if let Some((lane, log)) = unseen {
            self.lanes.insert(lane, LaneSession::default());
            return Some(Outgoing::Attach(wire::AttachLane {
                lane: Some(lane_to_wire(lane)),
                end_sequence: log.end().sequence,
                freed: Some(position_to_wire(lane, log.freed())),
            }));
        }
        self.next_frame(index)
    }

    fn next_frame(&mut self, index: &mut Index) -> Option<Outgoing> {
        let ready = |(lane, session): (&Lane, &LaneSession)| {
            let next = session.next.filter(|_| !session.stopped)?;
            let (frame, before) = index.lane(*lane)?.frame_at(next)?;
            (frame.end.sequence <= session.through).then(|| (frame.clone(), before))
        };
        let after = self.last.and_then(|last| {
            self.lanes.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)).find_map(ready)
        });
        let (frame, chain_before) = match after {
            Some(found) => found,
            None => self.lanes.iter().find_map(ready)?,
        };
        self.last = Some(frame.lane);
        if let Some(session) = self.lanes.get_mut(&frame.lane) {
            session.next = frame.end.sequence.checked_add(1);
        }
        let body = match &frame.body {
            Body::Held(body) => Some(body.clone()),
            Body::Stored(_) => index.take_unsent(frame.lane, frame.first_sequence),
        };
        Some(Outgoing::Frame { frame, chain_before, body })
    }

    /// Definitions that have to go before a frame because this stream has not had them.
    ///
    /// A frame defines the series that it is the first of its log to use, and under one map a series has one lane. So
    /// of the map that events are appended by, only series that are older than this stream can lack their definition;
    /// when it has all of them, frames are not looked at.
    pub(super) fn definitions_for(
        &mut self,
        lane: Lane,
        body: &[u8],
        index: &Index,
    ) -> Result<Vec<wire::SeriesDefinition>, Halt> {
        const TOO_MANY: Halt = Halt::Reconnect("the stream has defined as many series as it may");
        let fits = index.series_count() <= self.series_max;
        if self.undefined_before == 0 && lane.map_version == self.map_version && fits {
            self.unlooked = true;
            return Ok(Vec::new());
        }
        if self.unlooked && !fits {
            // How many it has is not known; the next stream counts from the beginning.
            return Err(TOO_MANY);
        }
        let limits = FrameLimits { bytes_max: usize::MAX, events_max: u32::MAX };
        let view = FrameView::parse(body, &limits)
            .map_err(|_| Fault::Contract("a frame of the own log can not be read"))?;
        for own in view.definitions() {
            self.define(own.number.get());
        }
        let mut missing = Vec::new();
        view.for_each_series(|number| {
            if self.define(number) {
                missing.push(number);
            }
        });
        if self.defined.count > self.series_max {
            return Err(TOO_MANY);
        }
        let defined = missing.into_iter().map(|number| {
            index.series(number).map(|key| definition(number, key)).ok_or(Halt::Fault(Fault::Contract(
                "a frame of the own log uses a series that the log has not",
            )))
        });
        defined.collect()
    }

    /// Notes that a series is defined; answers whether that is new.
    fn define(&mut self, number: u32) -> bool {
        let new = self.defined.insert(number);
        if new && usize::try_from(number).is_ok_and(|number| number <= self.before) {
            self.undefined_before = self.undefined_before.saturating_sub(1);
        }
        new
    }

    /// Takes an answer.
    pub(super) fn take(&mut self, response: wire::IngestResponse, index: &mut Index) -> Result<News, Halt> {
        use wire::ingest_response::Response;
        match response.response {
            Some(Response::Attached(attached)) => self.attached(attached, index),
            Some(Response::Watermarks(watermarks)) => {
                let mut news = News { watermark: true, ..News::default() };
                for lane in watermarks.lanes {
                    news.settled_moved |= self.watermark(lane, index)?;
                }
                Ok(news)
            }
            Some(Response::Rewound(rewound)) => self.rewound(rewound, index),
            Some(Response::Stopped(stopped)) => self.stopped(stopped, index),
            Some(Response::Refused(refused)) => {
                let lane = lane_of(self.producer, refused.lane).ok_or(NO_LANE)?;
                let (reason, count) = (refused.reason, refused.count);
                let new = index.refuse(lane, refused.first_sequence, reason.clone(), count);
                Ok(News { refused: new.then_some((reason, count)), ..News::default() })
            }
            // A kind of answer that a later version adds.
            None => Ok(News::default()),
        }
    }

    fn attached(&mut self, attached: wire::LaneAttached, index: &mut Index) -> Result<News, Halt> {
        let (lane, applied) = position_of(self.producer, attached.applied).ok_or(NO_LANE)?;
        let (_, settled) = position_of(self.producer, attached.settled).ok_or(NO_LANE)?;
        let answer = Answer {
            registered_epoch: attached.registered_epoch,
            applied: Some(applied),
            settled,
            source: Source::Stream,
        };
        let (Some(session), Some(log)) = (self.lanes.get_mut(&lane), index.lane_mut(lane)) else {
            return Err(Fault::Contract("a lane was attached that was not asked for").into());
        };
        session.attached = true;
        session.through = attached.send_through_sequence;
        if log.is_adopting() {
            if attached.registered_epoch > self.epoch {
                return Err(Fault::Fenced { registered: attached.registered_epoch, mine: self.epoch }.into());
            }
            let adopted = log.adopt(|adoption| adoption.attached(applied, settled));
            return Ok(session.adopted(adopted));
        }
        let verdict = resume(log, self.epoch, &answer);
        session.next = judged(verdict, lane, self.epoch)?.and_then(|from| from.sequence.checked_add(1));
        if verdict == Resume::AskForLook {
            let behind = settled.sequence < log.freed().sequence;
            return Ok(News { behind, ..News::default() });
        }
        // Also downwards: a restored ledger has taken back what it had settled.
        log.set_settled(settled);
        log.set_applied(applied.sequence);
        index.settle_refusals(lane, settled);
        Ok(News { settled_moved: true, ..News::default() })
    }

    fn watermark(&mut self, mark: wire::LaneWatermark, index: &mut Index) -> Result<bool, Halt> {
        let (lane, applied) = position_of(self.producer, mark.applied).ok_or(NO_LANE)?;
        let (Some(session), Some(log)) = (self.lanes.get_mut(&lane), index.lane_mut(lane)) else {
            return Ok(false);
        };
        let told = match mark.settled {
            Some(settled) => Some(position_of(self.producer, Some(settled)).ok_or(NO_LANE)?.1),
            None => None,
        };
        session.through = mark.send_through_sequence;
        if log.is_adopting() {
            return Ok(session.adopted(log.adopt(|adoption| adoption.moved(applied, told))).settled_moved);
        }
        let settled = told.unwrap_or_else(|| log.settled());
        let answer = Answer { registered_epoch: 0, applied: Some(applied), settled, source: Source::Stream };
        match judged(resume(log, self.epoch, &answer), lane, self.epoch)? {
            Some(from) => {
                let next = from.sequence.saturating_add(1);
                session.next = Some(session.next.map_or(next, |mine| mine.max(next)));
                log.set_applied(applied.sequence);
            }
            None => session.next = None,
        }
        // Told late it may be lower than what is known; only an attach lowers it.
        let moved = settled.sequence > log.settled().sequence;
        if moved {
            log.set_settled(settled);
            index.settle_refusals(lane, settled);
        }
        Ok(moved)
    }

    fn rewound(&mut self, rewound: wire::LaneRewound, index: &mut Index) -> Result<News, Halt> {
        let (lane, applied) = position_of(self.producer, rewound.applied).ok_or(NO_LANE)?;
        let (Some(session), Some(log)) = (self.lanes.get_mut(&lane), index.lane_mut(lane)) else {
            return Ok(News::default());
        };
        if log.is_adopting() {
            return Ok(session.adopted(log.adopt(|adoption| adoption.moved(applied, None))));
        }
        let answer = Answer {
            registered_epoch: 0,
            applied: Some(applied),
            settled: log.settled(),
            source: Source::Stream,
        };
        let from = judged(resume(log, self.epoch, &answer), lane, self.epoch)?;
        session.next = from.and_then(|from| from.sequence.checked_add(1));
        log.set_applied(applied.sequence);
        Ok(News::default())
    }

    fn stopped(&mut self, stopped: wire::LaneStopped, index: &mut Index) -> Result<News, Halt> {
        let lane = lane_of(self.producer, stopped.lane).ok_or(NO_LANE)?;
        // Judged first: what a newer process has settled since is no divergence.
        if stopped.reason == reason::FENCED {
            return Err(Fault::Fenced { registered: 0, mine: self.epoch }.into());
        }
        if let (Some((_, settled)), Some(log)) =
            (position_of(self.producer, stopped.settled), index.lane(lane).filter(is_own))
        {
            let answer = Answer { registered_epoch: 0, applied: None, settled, source: Source::Stream };
            judged(resume(log, self.epoch, &answer), lane, self.epoch)?;
        }
        self.lanes.entry(lane).or_default().stopped = true;
        let fields = stopped.faults.into_iter();
        let fields = fields.map(|fault| FieldFault::new(fault.field, fault.description)).collect();
        let stop = LaneStop { lane, reason: stopped.reason, detail: stopped.detail, fields };
        Ok(News { stopped: Some(stop), ..News::default() })
    }
}

impl LaneSession {
    /// What follows for a lane that is adopted at this position, or is not.
    fn adopted(&mut self, position: Option<Position>) -> News {
        self.adopting = position.is_none();
        self.next = position.and_then(|position| position.sequence.checked_add(1));
        News { settled_moved: position.is_some(), ..News::default() }
    }
}

/// Whether its positions are of frames of this process or this log.
fn is_own(log: &&LaneLog) -> bool {
    !log.is_adopting()
}

const NO_LANE: Halt = Halt::Fault(Fault::Contract("an answer names no lane or position"));

/// Where sending goes on, or why never.
pub(super) fn judged(verdict: Resume, lane: Lane, epoch: u64) -> Result<Option<Position>, Fault> {
    match verdict {
        Resume::SendFrom(from) => Ok(Some(from)),
        Resume::Wait | Resume::AskForLook => Ok(None),
        Resume::Fenced { registered } => Err(Fault::Fenced { registered, mine: epoch }),
        Resume::Diverged { settled, mine } => Err(Fault::Diverged { lane, settled, held: mine }),
        Resume::NameLost { settled, freed } => {
            Err(Fault::Freed { lane, settled: settled.sequence, freed: freed.sequence })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drawdown_metering_core::{
        frame::FrameBuilder,
        series::{Outcome, SeriesKey, SeriesNumber},
    };
    use drawdown_types::{ClientId, MeterSlug};

    use super::{
        super::log::{Marks, Recovered},
        *,
    };

    const MAP: u32 = 2;

    fn key(number: u32) -> SeriesKey {
        let client = ClientId::new(&format!("client_{number}")).unwrap();
        SeriesKey::new(client, MeterSlug::new("m").unwrap(), Outcome::Succeeded, vec![], None).unwrap()
    }

    fn index(series: u32) -> Index {
        let mut index = Index::new(&Recovered::default(), 0);
        grow(&mut index, series);
        index
    }

    fn grow(index: &mut Index, series: u32) {
        let known = u32::try_from(index.series_count()).unwrap();
        let new: Vec<_> = (known + 1..=series).map(|number| Arc::new(key(number))).collect();
        index.publish(Vec::new(), &new, Marks::new());
    }

    fn session(series_max: u32, index: &Index) -> Session {
        Session::new(ProducerId::generate(), 1, series_max, MAP, index.series_count())
    }

    /// The definitions that go before a frame that uses series and defines some of them.
    fn before(
        session: &mut Session,
        index: &Index,
        map_version: u32,
        [used, defined]: [&[u32]; 2],
    ) -> Result<Vec<u32>, Halt> {
        let lane = Lane { producer: session.producer, map_version, shard: 0 };
        let mut builder = FrameBuilder::new();
        for number in defined {
            builder.define(SeriesNumber::new(*number).unwrap(), &key(*number));
        }
        for number in used {
            builder.push(SeriesNumber::new(*number).unwrap(), 1, 0);
        }
        let definitions = session.definitions_for(lane, &builder.finish(lane, 1, 0), index)?;
        Ok(definitions.iter().map(|definition| definition.number).collect())
    }

    #[test]
    fn series_older_than_the_stream_are_defined_when_they_are_used_first() {
        let mut index = index(3);
        let mut session = session(10, &index);
        assert_eq!(before(&mut session, &index, MAP, [&[1, 2, 1], &[]]).unwrap(), [1, 2]);
        grow(&mut index, 4);
        // Its own definition is enough, and what is defined stays so.
        assert_eq!(before(&mut session, &index, MAP, [&[4, 1], &[4]]).unwrap(), [] as [u32; 0]);
        assert_eq!(before(&mut session, &index, MAP, [&[3, 4], &[]]).unwrap(), [3]);
        assert_eq!(before(&mut session, &index, MAP, [&[1, 2, 3, 4], &[]]).unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn frames_of_another_map_are_always_looked_at() {
        let mut index = index(0);
        let mut session = session(10, &index);
        grow(&mut index, 2);
        // Of this map: defined by the frame that came first. Of another one: that frame may come later.
        assert_eq!(before(&mut session, &index, MAP, [&[1], &[]]).unwrap(), [] as [u32; 0]);
        assert_eq!(before(&mut session, &index, 1, [&[1, 2], &[]]).unwrap(), [1, 2]);
        assert_eq!(before(&mut session, &index, 3, [&[1, 2], &[]]).unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn a_stream_that_may_define_no_more_gives_way_to_another() {
        let mut index = index(0);
        let mut unlooked = session(2, &index);
        grow(&mut index, 2);
        assert_eq!(before(&mut unlooked, &index, MAP, [&[1, 2], &[1, 2]]).unwrap(), [] as [u32; 0]);
        grow(&mut index, 3);
        // How many it has is not known here.
        assert!(matches!(before(&mut unlooked, &index, MAP, [&[1], &[]]), Err(Halt::Reconnect(_))));
        let mut counted = session(2, &index);
        assert_eq!(before(&mut counted, &index, MAP, [&[1, 3], &[]]).unwrap(), [1, 3]);
        assert!(matches!(before(&mut counted, &index, MAP, [&[2], &[]]), Err(Halt::Reconnect(_))));
    }
}

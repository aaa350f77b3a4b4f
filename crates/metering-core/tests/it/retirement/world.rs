//! Everything around the two: logs, instances, workers, and the calls that are on their way.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    idle::at_rest,
    look::{Cursor, Head, Remedy, Trouble, Verdict, after_trouble, look},
    shard::Lane,
};

use super::{
    Rule, Step,
    ledger::{Ledger, Ranges},
    redis::{Answer, Call, Redis, Span},
};
use crate::setup::lane;

pub(super) const INSTANCES: usize = 2;
pub(super) const LANES: u128 = 2;

/// Generation and roll.
type Roll = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The ledger has to be asked.
    Wanted,
    /// It has said this, asked under that roll.
    Found {
        roll: Roll,
        settled: u64,
    },
    Live(u64),
}

/// An instance of metering.
#[derive(Debug, Default)]
struct Instance {
    /// Roll and open batch, as looked at last.
    belief: Option<(Roll, u64)>,
    generation: Option<u64>,
    seats: BTreeMap<Lane, Phase>,
    /// Taken from streams, and not known to be applied or lost.
    pending: Vec<Span>,
    /// The call that has to be answered first.
    awaits: Option<u64>,
}

#[derive(Debug, Default)]
struct Worker {
    cursor: Option<Cursor>,
    head: Option<Option<Head>>,
    trouble: Option<Trouble>,
}

pub(super) struct World {
    rule: Rule,
    /// Whether Redis may lose or take back something: then resets are right.
    faults: bool,
    ledger: Ledger,
    redis: Redis,
    backup: Redis,
    ends: BTreeMap<Lane, u64>,
    instances: [Instance; INSTANCES],
    workers: [Worker; INSTANCES],
    calls: Vec<(u64, usize, Call)>,
    /// Random numbers are those that never come twice.
    fresh: u64,
    /// The highest event that each lane had applied in a generation.
    applied: BTreeMap<(u64, Lane), u64>,
    pub(super) wrong: Option<String>,
    pub(super) retired: usize,
}

impl Instance {
    fn lose(&mut self) {
        self.pending.clear();
        self.seats.values_mut().for_each(|phase| *phase = Phase::Wanted);
    }

    fn acknowledge(&mut self) {
        for (lane, _, to) in std::mem::take(&mut self.pending) {
            if let Some(Phase::Live(acked)) = self.seats.get_mut(&lane) {
                *acked = to;
            }
        }
    }

    fn is_pending(&self, lane: &Lane) -> bool {
        self.pending.iter().any(|(pending, _, _)| pending == lane)
    }
}

impl World {
    pub(super) fn new(rule: Rule, faults: bool) -> Self {
        let mut redis = Redis::default();
        redis.call(&Call::Install { seen: None, generation: 1, last: 0 }, rule);
        Self {
            rule,
            faults,
            ledger: Ledger::new(1),
            backup: redis.clone(),
            redis,
            ends: BTreeMap::new(),
            instances: Default::default(),
            workers: Default::default(),
            calls: Vec::new(),
            fresh: 1,
            applied: BTreeMap::new(),
            wrong: None,
            retired: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    fn is_wrong(&mut self, what: String) {
        if !self.faults {
            self.wrong.get_or_insert(what);
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Append(number, events) => *self.ends.entry(lane(number)).or_default() += events,
            Step::Seat(of, number) => drop(self.instances[of].seats.insert(lane(number), Phase::Wanted)),
            Step::Leave(of, number) => drop(self.instances[of].seats.remove(&lane(number))),
            Step::Look(of) => self.look(of),
            Step::Ask(of) => self.ask(of),
            Step::Attach(of, number) => self.attach(of, lane(number)),
            Step::Flush(of, events) => self.flush(of, events),
            Step::GiveUp(of) => (self.instances[of].awaits, self.instances[of].belief) = (None, None),
            Step::Crash(of) => self.instances[of] = Instance::default(),
            Step::Deliver(at, copy) => {
                if !self.calls.is_empty() {
                    self.deliver(at % self.calls.len(), copy);
                }
            }
            Step::ReadCursor(of) => {
                (self.workers[of].cursor, self.workers[of].head) = (Some(self.ledger.cursor()), None);
            }
            Step::ReadHead(of) => self.workers[of].head = Some(self.redis.head()),
            Step::Act(of) => self.act(of),
            Step::RetireLanes(of) => self.retire_lanes(of),
            Step::Serve(of, number, events) => {
                for step in [Step::Look(of), Step::Ask(of), Step::Attach(of, number)] {
                    self.step(step);
                }
                self.deliver_of(of);
                self.flush(of, events);
                self.deliver_of(of);
            }
            Step::Work(of) => {
                for step in [Step::ReadCursor(of), Step::ReadHead(of), Step::Act(of)] {
                    self.step(step);
                }
            }
            Step::Retire(of) => {
                self.step(Step::ReadCursor(of));
                self.step(Step::ReadHead(of));
                let before = self.calls.len();
                self.retire_lanes(of);
                if self.calls.len() > before {
                    self.deliver(before, false);
                }
            }
            Step::Empty if self.faults => self.redis = Redis::default(),
            Step::Keep if self.faults => self.backup = self.redis.clone(),
            Step::GoBack if self.faults => self.redis = self.backup.clone(),
            Step::Empty | Step::Keep | Step::GoBack => {}
        }
    }

    // === instances ===

    fn look(&mut self, of: usize) {
        let instance = &mut self.instances[of];
        if instance.awaits.is_some() {
            return;
        }
        let Some(head) = self.redis.head() else {
            instance.belief = None;
            return;
        };
        let roll = (head.generation, head.roll);
        instance.belief = Some((roll, head.open));
        let moved = instance.generation.replace(head.generation).is_some_and(|g| g != head.generation);
        let others_moved = instance.seats.iter().any(|(lane, phase)| match phase {
            Phase::Live(acked) => !instance.is_pending(lane) && self.redis.lane(lane) != Some(*acked),
            Phase::Wanted | Phase::Found { .. } => false,
        });
        let stands = |after: bool| {
            let at = |(_, from, to): &Span| Some(if after { *to } else { *from });
            instance.pending.iter().all(|span| self.redis.lane(&span.0) == at(span))
        };
        if moved || others_moved || !(stands(true) || stands(false)) {
            instance.lose();
        } else if stands(true) {
            instance.acknowledge();
        }
        for phase in instance.seats.values_mut() {
            if matches!(phase, Phase::Found { roll: asked, .. } if *asked != roll)
                && self.rule != Rule::RollAtAttach
            {
                *phase = Phase::Wanted;
            }
        }
    }

    fn ask(&mut self, of: usize) {
        let instance = &mut self.instances[of];
        let Some((roll, _)) = instance.belief else { return };
        for (lane, phase) in &mut instance.seats {
            if *phase == Phase::Wanted {
                *phase = Phase::Found { roll, settled: self.ledger.settled(lane) };
            }
        }
    }

    fn attach(&mut self, of: usize, lane: Lane) {
        let instance = &self.instances[of];
        let Some((believed, _)) = instance.belief.filter(|_| instance.awaits.is_none()) else { return };
        let Some(Phase::Found { roll, settled }) = instance.seats.get(&lane).copied() else { return };
        if instance.is_pending(&lane) {
            return;
        }
        let (generation, roll) = if self.rule == Rule::RollAtAttach { believed } else { roll };
        self.send(of, Call::Attach { generation, roll, lane, settled });
    }

    fn flush(&mut self, of: usize, events: u64) {
        let instance = &mut self.instances[of];
        let Some(((generation, _), batch)) = instance.belief.filter(|_| instance.awaits.is_none()) else {
            return;
        };
        if instance.pending.is_empty() {
            instance.pending = instance
                .seats
                .iter()
                .filter_map(|(lane, phase)| match phase {
                    Phase::Live(acked) => Some((*lane, *acked, *self.ends.get(lane)?)),
                    Phase::Wanted | Phase::Found { .. } => None,
                })
                .filter(|(_, acked, end)| end > acked)
                .map(|(lane, acked, end)| (lane, acked, end.min(acked + events)))
                .collect();
        }
        let spans = instance.pending.clone();
        if !spans.is_empty() {
            self.send(of, Call::Apply { generation, batch, spans });
        }
    }

    fn send(&mut self, of: usize, call: Call) {
        let number = self.fresh();
        self.instances[of].awaits = Some(number);
        self.calls.push((number, of, call));
    }

    /// What an instance waits for arrives at once.
    fn deliver_of(&mut self, of: usize) {
        let awaited = self.instances[of].awaits;
        if let Some(at) = self.calls.iter().position(|(number, _, _)| Some(*number) == awaited) {
            self.deliver(at, false);
        }
    }

    fn deliver_all(&mut self) {
        while !self.calls.is_empty() {
            self.deliver(0, false);
        }
    }

    fn deliver(&mut self, at: usize, copy: bool) {
        let (number, of, call) = self.calls[at].clone();
        if !copy {
            self.calls.remove(at);
        }
        let before = self.redis.head().map_or(0, |head| head.lanes.len());
        let answer = self.redis.call(&call, self.rule);
        match (&call, answer) {
            (Call::Apply { generation, spans, .. }, Answer::Ok) => self.was_applied(*generation, spans),
            (Call::RetireLanes { .. }, Answer::Ok) => {
                self.retired += before - self.redis.head().map_or(0, |head| head.lanes.len());
            }
            _ => {}
        }
        let instance = &mut self.instances[of];
        if instance.awaits != Some(number) {
            return;
        }
        instance.awaits = None;
        match (call, answer) {
            (Call::Apply { .. }, Answer::Ok) => instance.acknowledge(),
            (Call::Attach { lane, .. }, Answer::At(applied)) => {
                if let Some(phase @ Phase::Found { .. }) = instance.seats.get_mut(&lane) {
                    *phase = Phase::Live(applied);
                }
            }
            _ => instance.belief = None,
        }
    }

    fn was_applied(&mut self, generation: u64, spans: &[Span]) {
        for (lane, from, to) in spans {
            let highest = self.applied.entry((generation, *lane)).or_default();
            let before = std::mem::replace(highest, (*highest).max(*to));
            if *from < before {
                self.is_wrong(format!("events {} to {before} of {lane} were applied twice", from + 1));
            }
        }
    }

    // === workers ===

    fn act(&mut self, of: usize) {
        let worker = &mut self.workers[of];
        let (Some(a), Some(head)) = (worker.cursor.take(), worker.head.take()) else { return };
        let verdict = match look(&a, head.as_ref(), None) {
            Verdict::Confirm(_) => look(&a, head.as_ref(), Some(&self.ledger.cursor())),
            verdict => verdict,
        };
        match verdict {
            Verdict::Damaged(cause) => self.reset(&a, head.as_ref(), cause.to_string()),
            Verdict::Seal { batch } => self.redis.seal(a.generation, batch),
            Verdict::Settle { batch, seal } => {
                if self.settle(a.generation, batch, &seal) {
                    self.redis.retire(a.generation, batch, &seal);
                    return;
                }
                let trouble = Trouble { generation: a.generation, batch, seal };
                let before = self.workers[of].trouble.replace(trouble.clone());
                if after_trouble(before.as_ref(), &trouble) == Remedy::Reset {
                    self.reset(&a, head.as_ref(), format!("batch {batch} can not be settled"));
                }
            }
            Verdict::Confirm(_) | Verdict::Again | Verdict::Idle => {}
        }
    }

    fn settle(&mut self, generation: u64, batch: u64, seal: &str) -> bool {
        let Some(list) = self.redis.list(generation, batch) else { return false };
        if super::redis::seal_of(list) != seal {
            return false;
        }
        let mut ranges = Ranges::new();
        for (lane, from, to) in list.iter().flatten() {
            let range = ranges.entry(*lane).or_insert((*from, *from));
            if range.1 != *from {
                return false;
            }
            range.1 = *to;
        }
        self.ledger.post(generation, batch, &ranges)
    }

    fn reset(&mut self, a: &Cursor, head: Option<&Head>, cause: String) {
        if a.generation != self.ledger.generation {
            return;
        }
        self.is_wrong(format!("the shard was reset: {cause}"));
        let generation = self.fresh();
        self.ledger.generation = generation;
        let (number, seen) = (self.fresh(), head.map(|head| head.generation));
        self.calls.push((number, 0, Call::Install { seen, generation, last: self.ledger.last() }));
    }

    fn retire_lanes(&mut self, of: usize) {
        let worker = &self.workers[of];
        let (Some(cursor), Some(Some(head))) = (&worker.cursor, &worker.head) else { return };
        let lanes: Vec<_> = at_rest(cursor, head).map(|(lane, state)| (lane, state.applied)).collect();
        let (generation, roll) = (head.generation, head.roll);
        if !lanes.is_empty() {
            let (number, next) = (self.fresh(), self.fresh());
            self.calls.push((number, 0, Call::RetireLanes { generation, roll, next, lanes }));
        }
    }

    // === the end ===

    /// Everything under way arrives, one instance serves all lanes, both workers work. Says whether all is settled.
    pub(super) fn finish(&mut self) -> bool {
        self.instances = Default::default();
        for number in 1..=LANES {
            self.step(Step::Seat(0, number));
        }
        for _ in 0..60 {
            self.deliver_all();
            self.step(Step::GiveUp(0));
            for number in 1..=LANES {
                self.step(Step::Serve(0, number, 100));
                self.deliver_all();
            }
            for of in 0..INSTANCES {
                self.step(Step::Work(of));
                self.deliver_all();
            }
        }
        self.ends.iter().all(|(lane, end)| self.ledger.settled(lane) == *end)
    }

    /// What each lane was charged and what its log has.
    pub(super) fn charged(&self) -> Vec<(u64, u64)> {
        let charged = |lane: &Lane| self.ledger.charged.get(lane).copied().unwrap_or_default();
        self.ends.iter().map(|(lane, end)| (charged(lane), *end)).collect()
    }
}

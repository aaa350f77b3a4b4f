//! The split of a batch between cells, what producers are told, and a model of both with everything that may fail.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_metering_core::{
    cells::{LEADING, UnknownCell, settled_in_all, split},
    look::{Cursor, LaneSettled},
    meter::Aggregation,
    series::{Outcome, SeriesKey},
    settle::{Line, MergedBatch, Total},
    shard::Position,
};
use drawdown_types::{ClientId, MeterSlug, Timestamp};
use proptest::{collection::vec, prelude::*};

use crate::setup::lane;

/// One event of a client in a meter, as a line of its own.
fn line(client: usize, meter: usize, sequence: u64, quantity: i64) -> Line {
    let client = ClientId::new(&format!("client-{client}")).unwrap();
    let meter = MeterSlug::new(["bytes", "calls"][meter % 2]).unwrap();
    let window = Timestamp::from_millis(i64::try_from(sequence).unwrap() * 60_000).unwrap();
    Line {
        series: SeriesKey::new(client, meter, Outcome::Succeeded, Vec::new(), None).unwrap().into(),
        aggregation: Aggregation::Sum,
        window_start: window,
        received_window_start: window,
        events: 1,
        quantity,
        values: Vec::new(),
    }
}

fn batch(lines: Vec<Line>) -> MergedBatch {
    let mut totals: BTreeMap<MeterSlug, Total> = BTreeMap::new();
    for line in &lines {
        let total = totals.entry(line.series.meter().clone()).or_default();
        total.events += line.events;
        total.quantity += line.quantity;
    }
    let events = lines.iter().map(|line| line.events).sum();
    MergedBatch { lanes: Vec::new(), lines, events, clamped: 0, refused: BTreeMap::new(), totals }
}

fn sums<'a>(lines: impl IntoIterator<Item = &'a Line>) -> BTreeMap<MeterSlug, Total> {
    batch(lines.into_iter().cloned().collect()).totals
}

proptest! {
    #[test]
    fn every_line_is_in_one_cell_and_the_sums_are_those_of_the_lines(
        lines in vec((0_usize..6, 0_usize..2, 0_i64..1 << 40), 0..40),
        cells in vec(0_u8..3, 6),
    ) {
        let lines = lines.into_iter().enumerate();
        let lines = lines.map(|(at, (client, meter, n))| line(client, meter, at.try_into().unwrap(), n));
        let whole = batch(lines.collect());
        let cell_of = |line: &Line| {
            let client: usize = line.series.client_id().as_str()["client-".len()..].parse().unwrap();
            cells[client]
        };
        let made = split(&whole, &[1, 2], cell_of).unwrap();
        prop_assert_eq!(made.others.keys().copied().collect::<Vec<_>>(), [1, 2]);
        let mut seen = 0;
        for (cell, part) in made.others.iter().map(|(cell, part)| (*cell, part)).chain([(LEADING, &made.leading)]) {
            prop_assert!(part.iter().all(|line| cell_of(line) == cell));
            // In the order of the batch, so that every try sends the same.
            prop_assert!(part.windows(2).all(|two| two[0].window_start < two[1].window_start));
            seen += part.len();
        }
        prop_assert_eq!(seen, whole.lines.len());
        let elsewhere: BTreeMap<_, _> = made.elsewhere.iter().map(|(meter, sum)| ((*meter).clone(), *sum)).collect();
        prop_assert_eq!(&elsewhere, &sums(made.others.values().flatten().copied()));
        let events: u64 = elsewhere.values().map(|total| total.events).sum();
        prop_assert_eq!(made.events_elsewhere, events);
        prop_assert_eq!(events + u64::try_from(made.leading.len()).unwrap(), whole.events);
    }
}

#[test]
fn a_cell_that_nobody_has_told_of_is_no_reason_to_guess() {
    let whole = batch(vec![line(0, 0, 1, 5), line(1, 0, 2, 5)]);
    assert_eq!(split(&whole, &[1], |_| 2), Err(UnknownCell(2)));
    assert_eq!(split(&whole, &[], |_| 1), Err(UnknownCell(1)));
    let alone = split(&whole, &[], |_| LEADING).unwrap();
    assert_eq!((alone.leading.len(), alone.others.len(), alone.events_elsewhere), (2, 0, 0));
}

fn at(sequence: u64) -> Position {
    Position { sequence, chain: sequence * 7 }
}

fn cursor(last_batch: u64, settled: &[(u128, u64)]) -> Cursor {
    let lanes = settled.iter().map(|(number, sequence)| {
        let state = LaneSettled { epoch: 3, settled: at(*sequence) };
        (lane(*number), state)
    });
    Cursor { generation: 9, last_batch, lanes: lanes.collect() }
}

#[test]
fn producers_are_told_what_is_settled_in_all_cells() {
    let leading = cursor(5, &[(1, 50), (2, 20), (3, 8)]);
    let level = cursor(5, &[(1, 50), (2, 20), (3, 8)]);
    let behind = cursor(4, &[(1, 40), (2, 20)]);
    assert_eq!(settled_in_all(&leading, []), leading);
    assert_eq!(settled_in_all(&leading, [&level]), leading);
    // A lane that began with the last batch stands at 0 there; epochs and numbers stay the leading cell's.
    let mut told = leading.clone();
    told.lanes.get_mut(&lane(1)).unwrap().settled = at(40);
    told.lanes.get_mut(&lane(3)).unwrap().settled = Position::START;
    assert_eq!(settled_in_all(&leading, [&behind]), told);
    assert_eq!(settled_in_all(&leading, [&level, &behind]), told);
    // Restored, added, or read after it went on: what it lacks is kept, and was freed or will be told next time.
    for other in [cursor(3, &[(1, 30)]), cursor(0, &[]), cursor(6, &[(1, 60)])] {
        assert_eq!(settled_in_all(&leading, [&other]), leading);
    }
}

/// What happens to a shard with two other cells.
#[derive(Clone, Debug)]
enum Step {
    /// Events come and are applied in Redis.
    Append(u8),
    /// A try at the next batch, cut after so many events, by resolution number so and so; it dies after so many posts.
    Settle { events: u8, resolution: u64, posts: u8 },
    /// Redis loses everything; producers send again what is not settled.
    LoseRedis,
    /// Another cell is brought up from what the leading one keeps.
    Follow { cell: u8 },
    /// A cell that follows is put back by so many batches.
    Restore { cell: u8, batches: u64 },
    /// Producers hear what is settled, and free it.
    Tell,
}

#[derive(Default)]
struct CellModel {
    /// Sequences that each batch charged here, and where the lane stands after it.
    batches: Vec<(BTreeSet<u64>, u64)>,
}

impl CellModel {
    fn settled(&self) -> u64 {
        self.batches.last().map_or(0, |(_, to)| *to)
    }

    fn cursor(&self) -> Cursor {
        cursor(self.batches.len().try_into().unwrap(), &[(1, self.settled())])
    }
}

#[derive(Default)]
struct Model {
    appended: u64,
    freed: u64,
    /// The sealed batch that is not retired: from (exclusive), to.
    sealed: Option<(u64, u64)>,
    /// The leading cell, then the others.
    cells: [CellModel; 3],
    /// What the leading cell keeps for the others, by batch.
    parts: Vec<[BTreeSet<u64>; 2]>,
}

impl Model {
    fn settle(&mut self, events: u8, resolution: u64, mut posts: u8) {
        // Others first: the leading cell is at most one batch ahead.
        for cell in 1..3 {
            self.follow(cell, &mut posts);
        }
        let from = self.cells[0].settled();
        let cut = self.appended.min(from + u64::from(events));
        let (from, to) = *self.sealed.get_or_insert((from, cut));
        if posts == 0 || from == to {
            self.sealed = self.sealed.filter(|_| from != to);
            return;
        }
        if self.cells[0].settled() == from {
            let lines = (from + 1..=to).map(|sequence| line(0, 0, sequence, 1)).collect();
            let whole = batch(lines);
            let sequence = |line: &Line| u64::try_from(line.window_start.as_millis() / 60_000).unwrap();
            // Every try may resolve a line another way.
            let made =
                split(&whole, &[1, 2], |line| u8::try_from((sequence(line) * 31 + resolution) % 3).unwrap());
            let made = made.unwrap();
            let of = |lines: &[&Line]| lines.iter().map(|line| sequence(line)).collect::<BTreeSet<_>>();
            self.parts.push([of(&made.others[&1]), of(&made.others[&2])]);
            self.cells[0].batches.push((of(&made.leading), to));
        }
        posts -= 1;
        for cell in 1..3 {
            self.follow(cell, &mut posts);
        }
        if self.cells.iter().all(|cell| cell.batches.len() == self.parts.len()) {
            self.sealed = None;
        }
    }

    fn follow(&mut self, cell: usize, posts: &mut u8) {
        while *posts > 0 && self.cells[cell].batches.len() < self.parts.len() {
            let number = self.cells[cell].batches.len();
            let to = self.cells[0].batches[number].1;
            self.cells[cell].batches.push((self.parts[number][cell - 1].clone(), to));
            *posts -= 1;
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(events) => self.appended += u64::from(events),
            Step::Settle { events, resolution, posts } => self.settle(events, resolution, posts),
            Step::LoseRedis => self.sealed = None,
            Step::Follow { cell } => self.follow(usize::from(cell), &mut 1),
            Step::Restore { cell, batches } => {
                let cell = &mut self.cells[usize::from(cell)];
                let keep = cell.batches.len().saturating_sub(batches.try_into().unwrap());
                cell.batches.truncate(keep);
            }
            Step::Tell => {
                let [leading, others @ ..] = &self.cells;
                let others = others.each_ref().map(CellModel::cursor);
                let told = settled_in_all(&leading.cursor(), &others);
                self.freed = self.freed.max(told.lanes[&lane(1)].settled.sequence);
            }
        }
    }
}

fn steps(restores: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..if restores { 12 } else { 11 }, any::<u8>(), any::<u64>(), 0_u8..6, 1_u8..3);
    let step = step.prop_map(|(kind, events, resolution, posts, cell)| match kind {
        0..3 => Step::Append(events % 9),
        3..8 => Step::Settle { events: events % 7 + 1, resolution: resolution % 3, posts },
        8 => Step::LoseRedis,
        9 => Step::Follow { cell },
        10 => Step::Tell,
        _ => Step::Restore { cell, batches: resolution % 3 },
    });
    vec(step, 0..60)
}

fn check(steps: &[Step], restores: bool) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for step in steps {
        model.step(step);
        prop_assert!(model.freed <= model.cells[0].settled(), "what Redis may need again was freed");
        let least = model.cells.iter().map(CellModel::settled).min().unwrap();
        prop_assert!(restores || model.freed <= least, "freed {} of {least}", model.freed);
        let (leading, others) = (model.parts.len(), &model.cells[1..]);
        prop_assert!(restores || others.iter().all(|cell| cell.batches.len() + 1 >= leading));
    }
    // Nothing fails any more: everything is settled, everywhere, once.
    while model.cells[0].settled() < model.appended {
        model.settle(u8::MAX, 0, u8::MAX);
    }
    model.settle(1, 0, u8::MAX);
    let mut charged = BTreeMap::<u64, u32>::new();
    for (sequences, _) in model.cells.iter().flat_map(|cell| &cell.batches) {
        sequences.iter().for_each(|sequence| *charged.entry(*sequence).or_default() += 1);
    }
    prop_assert_eq!(charged, (1..=model.appended).map(|sequence| (sequence, 1)).collect());
    let ends = model.cells.each_ref().map(|cell| (cell.batches.len(), cell.settled()));
    prop_assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_dies_each_event_is_charged_in_one_cell(steps in steps(false)) {
        check(&steps, false)?;
    }

    #[test]
    fn a_cell_that_is_put_back_is_brought_up_again(steps in steps(true)) {
        check(&steps, true)?;
    }
}

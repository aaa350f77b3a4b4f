//! Random histories: what may happen to two teams of an account. A step names instants, lots and holds by what
//! the model holds when it is made, so that most steps concern something that is there.

use proptest::prelude::*;

use crate::{Hold, Ledger, month_of};

pub use crate::prices::METERS;

/// A point in time, relative to what the ledger holds when the step is made.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Microseconds from now.
    FromNow(i64),
    /// A full hour, counted from the one that now is in: few of them, so that lots often tie.
    Hour(i64),
    /// Where the month begins that lies so many after the present one.
    Month(i64),
    /// The `which`-th start, expiry or close of a lot, `nudge` microseconds off.
    Boundary { which: usize, nudge: i64 },
}

#[derive(Clone, Debug)]
pub struct LineSeed {
    pub team: Option<usize>,
    pub app: u64,
    pub meter: usize,
    pub failed: bool,
    pub trial: bool,
    pub series: u8,
    pub window: When,
    /// Windows between the end of the window and its receipt; 0 to the limit and one more.
    pub lag: Lag,
    pub quantity: i64,
    /// The distinct values, a bit each, where the meter counts such.
    pub values: u8,
    /// A hold of the team, of those made so far.
    pub hold: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub enum Lag {
    None,
    Windows(i64),
    Limit { windows_more: i64 },
}

/// A lot of another platform.
#[derive(Clone, Debug)]
pub struct ArrivalSeed {
    pub pool: usize,
    pub size: i64,
    /// What is left of it; now and then nothing, or more than there was.
    pub percent: i64,
    pub bought: When,
    pub start: When,
    pub expiry: When,
    pub leaves_older: bool,
}

/// When a hold is over by itself.
#[derive(Clone, Copy, Debug)]
pub enum Lasts {
    /// At an instant, which is rarely a possible one.
    Until(When),
    /// A part of what is possible, from now, in percent.
    Percent(i64),
}

#[derive(Clone, Debug)]
pub enum Op {
    /// The clock moves, usually forward.
    Clock(When),
    /// A job rolls a team forward.
    Job {
        team: usize,
    },
    Purchase {
        team: usize,
        tokens: i64,
        original: Option<When>,
    },
    Grant {
        team: usize,
        pool: usize,
        amount: i64,
        start: Option<When>,
        expiry: When,
        set_up: bool,
        leaves_older: bool,
    },
    /// What is left of lots, and debts, of another platform.
    Import {
        team: usize,
        lots: Vec<ArrivalSeed>,
        /// Instants and amounts.
        debts: Vec<(When, i64)>,
        /// The oldest debt comes first.
        sorted: bool,
        since: Option<When>,
        /// The team is said to hold what it would.
        tied: bool,
    },
    Move {
        lot: usize,
        from: usize,
        to: usize,
    },
    Adjust {
        lot: usize,
        team: usize,
        delta: i64,
    },
    Refund {
        lot: usize,
        team: usize,
        amount: Option<i64>,
    },
    Chargeback {
        lot: usize,
    },
    Reserve {
        team: usize,
        app: Option<u64>,
        amount: i64,
        least: Option<i64>,
        lasts: Lasts,
    },
    Extend {
        team: usize,
        hold: usize,
        lasts: Lasts,
        more: i64,
    },
    Release {
        team: usize,
        hold: usize,
    },
    /// A new version of a rate card: for each meter one of its prices.
    Publish {
        kind: usize,
        from: When,
        change: Vec<u8>,
        /// What counts by the month stays as it is inside one.
        careful: bool,
    },
    Batch {
        lines: Vec<LineSeed>,
        split: bool,
        /// Its lines are the last of their holds.
        last: bool,
    },
    /// Usage is taken back, in percent of what stands of it; now and then more than that. Most of what is
    /// charged instead belongs to the same window.
    Correct {
        team: usize,
        charge: usize,
        percent: i64,
        again: Option<LineSeed>,
        same_window: bool,
    },
    /// A read ahead of now, or behind it.
    Read {
        team: usize,
        at: When,
    },
    /// Settlement stands still, or goes on.
    Settlement {
        stands: bool,
    },
}

pub const POOLS: [&str; 5] = ["free", "enterprise", "credit", "promotional", "flex"];
pub const KINDS: [&str; 2] = ["flex", "enterprise"];
pub const TEAMS: usize = 2;
pub const HOUR: i64 = 3_600_000_000;

#[derive(Clone, Debug)]
pub struct Setup {
    pub window_secs: u32,
    pub lateness_windows: i64,
    pub pools: Vec<usize>,
    pub start: i64,
}

pub fn setup() -> impl Strategy<Value = Setup> {
    let starts = [
        // Two hours before 29 February; before the end of a year; before an ordinary month's end.
        1_709_157_600_000_000i64,
        1_735_682_400_000_000,
        1_748_728_800_000_000,
    ];
    (
        prop_oneof![Just(60u32), Just(900), Just(1)],
        prop_oneof![1 => Just(0i64), 2 => Just(3), 3 => Just(20)],
        Just((0..POOLS.len()).collect::<Vec<_>>()).prop_shuffle(),
        prop::sample::select(starts.to_vec()),
        0i64..90_000_000,
    )
        .prop_map(|(window_secs, lateness_windows, pools, start, odd)| Setup {
            window_secs,
            lateness_windows,
            pools,
            start: start + odd,
        })
}

fn when(reach: i64) -> impl Strategy<Value = When> {
    let nudge = prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 1 => Just(1i64)];
    prop_oneof![
        3 => (-reach..reach).prop_map(When::FromNow),
        1 => Just(When::FromNow(0)),
        3 => (-2i64..4).prop_map(When::Hour),
        2 => (any::<usize>(), nudge).prop_map(|(which, nudge)| When::Boundary { which, nudge }),
    ]
}

fn line() -> impl Strategy<Value = LineSeed> {
    let lag = prop_oneof![
        4 => Just(Lag::None),
        4 => (0i64..6).prop_map(Lag::Windows),
        1 => (-1i64..2).prop_map(|windows_more| Lag::Limit { windows_more }),
    ];
    let who = (
        prop_oneof![1 => Just(None), 24 => (0..TEAMS).prop_map(Some)],
        0u64..3,
        prop_oneof![9 => 0usize..3, 2 => Just(3usize), 12 => 4..METERS.len() - 1, 1 => Just(METERS.len() - 1)],
    );
    let how = (prop::bool::weighted(0.15), prop::bool::weighted(0.08), 0u8..2);
    let quantity =
        prop_oneof![2 => Just(0i64), 24 => 1i64..12, 8 => 1i64..40, 3 => 1i64..800, 1 => Just(1i64 << 48)];
    let hold = prop::option::weighted(0.4, any::<usize>());
    let values = (any::<u8>(), any::<u8>()).prop_map(|(some, of)| some & of);
    (who, how, when(2 * HOUR), lag, quantity, values, hold).prop_map(
        |(who, how, window, lag, quantity, values, hold)| LineSeed {
            team: who.0,
            app: who.1,
            meter: who.2,
            failed: how.0,
            trial: how.1,
            series: how.2,
            window,
            lag,
            quantity,
            values,
            hold,
        },
    )
}

/// What happens to lots that are there. Most are of the team that is named, since others are refused.
fn lots() -> impl Strategy<Value = Op> {
    let some = prop_oneof![3 => 1i64..3_000_000, 1 => Just(0i64), 1 => Just(1i64 << 50)];
    let less = prop::option::weighted(0.5, some.clone());
    let delta = (some, any::<bool>()).prop_map(|(amount, up)| if up { amount } else { -amount });
    prop_oneof![
        4 => (any::<usize>(), 0..TEAMS, 0..TEAMS).prop_map(|(lot, from, to)| Op::Move { lot, from, to }),
        2 => (any::<usize>(), 0..TEAMS, delta).prop_map(|(lot, team, delta)| Op::Adjust { lot, team, delta }),
        2 => (any::<usize>(), 0..TEAMS, less).prop_map(|(lot, team, amount)| Op::Refund { lot, team, amount }),
        1 => any::<usize>().prop_map(|lot| Op::Chargeback { lot }),
    ]
}

fn holds() -> impl Strategy<Value = Op> {
    let lasts =
        || prop_oneof![1 => when(2 * HOUR).prop_map(Lasts::Until), 6 => (1i64..101).prop_map(Lasts::Percent)];
    let app = prop::option::weighted(0.3, 0u64..3);
    let amount = prop_oneof![2 => 1i64..2_000_000, 8 => 1i64..50_000, 1 => Just(0i64), 1 => Just(1i64 << 45)];
    let least = prop::option::weighted(0.4, 0i64..30_000);
    let reserve = (0..TEAMS, app, amount, least, lasts())
        .prop_map(|(team, app, amount, least, lasts)| Op::Reserve { team, app, amount, least, lasts });
    let more = prop_oneof![2 => Just(0i64), 3 => 1i64..30_000, 1 => Just(-1i64)];
    let extend = (0..TEAMS, any::<usize>(), lasts(), more).prop_map(|(team, hold, lasts, more)| Op::Extend {
        team,
        hold,
        lasts,
        more,
    });
    prop_oneof![
        6 => reserve,
        2 => extend,
        1 => (0..TEAMS, any::<usize>()).prop_map(|(team, hold)| Op::Release { team, hold }),
    ]
}

fn leaves_older() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

/// An instant that lies in the past, mostly.
fn past() -> impl Strategy<Value = When> {
    prop_oneof![
        12 => (0..5 * HOUR).prop_map(|by| When::FromNow(-by)),
        4 => (-6i64..1).prop_map(When::Hour),
        1 => when(HOUR),
    ]
}

fn imports() -> impl Strategy<Value = Op> {
    let size = prop_oneof![3 => Just(1_000_000i64), 1 => Just(20_000i64), 3 => 100i64..3_000_000];
    let percent = prop_oneof![3 => Just(100i64), 12 => 1i64..100, 1 => Just(0i64), 1 => Just(101i64)];
    let lot = (0..POOLS.len(), size, percent, past(), when(3 * HOUR), when(4 * HOUR), leaves_older())
        .prop_map(|(pool, size, percent, bought, start, expiry, leaves_older)| ArrivalSeed {
            pool,
            size,
            percent,
            bought,
            start,
            expiry,
            leaves_older,
        });
    let debt = (past(), prop_oneof![12 => 1i64..1_500_000, 1 => Just(0i64)]);
    (
        0..TEAMS,
        prop::collection::vec(lot, 0..4),
        prop::collection::vec(debt, 0..5),
        prop::bool::weighted(0.9),
        prop::option::weighted(0.4, past()),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(team, lots, debts, sorted, since, tied)| Op::Import {
            team,
            lots,
            debts,
            sorted,
            since,
            tied,
        })
}

fn corrections() -> impl Strategy<Value = Op> {
    let percent = prop_oneof![4 => Just(100i64), 4 => 1i64..100, 1 => Just(0i64), 1 => Just(101i64)];
    let again = prop::option::weighted(0.6, line());
    (0..TEAMS, any::<usize>(), percent, again, prop::bool::weighted(0.8)).prop_map(
        |(team, charge, percent, again, same_window)| Op::Correct {
            team,
            charge,
            percent,
            again,
            same_window,
        },
    )
}

/// A version of a rate card.
pub fn publish() -> impl Strategy<Value = Op> {
    let from = prop_oneof![2 => when(HOUR), 3 => (0i64..3).prop_map(When::Month)];
    let price = prop_oneof![2 => Just(0u8), 2 => 0u8..4];
    let change = prop::collection::vec(price, METERS.len());
    (0..KINDS.len(), from, change, prop::bool::weighted(0.9))
        .prop_map(|(kind, from, change, careful)| Op::Publish { kind, from, change, careful })
}

fn op() -> impl Strategy<Value = Op> {
    let clock = prop_oneof![
        4 => when(HOUR).prop_map(Op::Clock),
        4 => (any::<usize>(), -1i64..2).prop_map(|(which, nudge)| Op::Clock(When::Boundary { which, nudge })),
        1 => (0i64..40).prop_map(|hours| Op::Clock(When::Hour(hours))),
        1 => (0i64..400 * 24 * HOUR).prop_map(|by| Op::Clock(When::FromNow(by))),
    ];
    let tokens = prop_oneof![6 => 100i64..102, 1 => Just(99i64), 1 => Just(1_000_000_001i64)];
    let purchase = (0..TEAMS, tokens, prop::option::weighted(0.3, when(30 * HOUR)))
        .prop_map(|(team, tokens, original)| Op::Purchase { team, tokens, original });
    // Few sizes and few expiries, so that lots often tie in the draw order.
    let amount = prop_oneof![
        8 => prop::sample::select(vec![1i64, 20_000, 20_000, 1_000_000, 1_000_000, 10_000_000]),
        4 => 1i64..3_000_000,
        1 => Just(0i64)
    ];
    let grant = (
        (0..TEAMS, 0..POOLS.len(), amount),
        prop::option::weighted(0.6, when(3 * HOUR)),
        when(3 * HOUR),
        prop::bool::weighted(0.25),
        leaves_older(),
    )
        .prop_map(|((team, pool, amount), start, expiry, set_up, leaves_older)| Op::Grant {
            team,
            pool,
            amount,
            start,
            expiry,
            set_up,
            leaves_older,
        });
    let batch = (prop::collection::vec(line(), 1..14), prop::bool::weighted(0.3), prop::bool::weighted(0.3))
        .prop_map(|(lines, split, last)| Op::Batch { lines, split, last });
    prop_oneof![
        6 => clock,
        1 => (0..TEAMS).prop_map(|team| Op::Job { team }),
        5 => purchase,
        8 => grant,
        1 => publish(),
        9 => batch,
        5 => lots(),
        8 => holds(),
        6 => corrections(),
        4 => imports(),
        3 => (0..TEAMS, when(3 * HOUR)).prop_map(|(team, at)| Op::Read { team, at }),
        1 => any::<bool>().prop_map(|stands| Op::Settlement { stands }),
    ]
}

pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..45)
}

pub fn history() -> impl Strategy<Value = (Setup, Vec<Op>)> {
    (setup(), ops())
}

impl When {
    /// The instant that it names.
    #[must_use]
    pub fn at(self, ledger: &Ledger, now: i64) -> i64 {
        match self {
            Self::FromNow(by) => now + by,
            Self::Hour(hours) => (now.div_euclid(HOUR) + hours) * HOUR,
            Self::Month(after) => month_of(now, after),
            Self::Boundary { which, nudge } => {
                let lots = ledger.teams.iter().flat_map(|team| &team.lots).filter(|lot| !lot.closed);
                let holds = ledger.teams.iter().flat_map(|team| &team.holds).filter(|hold| !hold.over);
                let mut instants: Vec<i64> =
                    lots.flat_map(|lot| [lot.start, lot.valid_from, lot.expiry, lot.closes]).collect();
                instants.extend(holds.map(|hold| hold.expires));
                which.checked_rem(instants.len()).map_or(now, |place| instants[place]) + nudge
            }
        }
    }
}

impl Lasts {
    /// How long the hold lasts from now.
    #[must_use]
    pub fn micros(self, ledger: &Ledger, now: i64) -> i64 {
        match self {
            Self::Until(when) => when.at(ledger, now) - now,
            Self::Percent(part) => ledger.lateness / 100 * part,
        }
    }
}

impl Lag {
    /// In windows.
    #[must_use]
    pub const fn windows(self, ledger: &Ledger) -> i64 {
        match self {
            Self::None => 0,
            Self::Windows(windows) => windows,
            Self::Limit { windows_more } => ledger.lateness / ledger.window + windows_more,
        }
    }
}

impl Ledger {
    /// One of the lots of a team; now and then, and where it has none, one of any team.
    #[must_use]
    pub fn some_lot(&self, team: usize, which: usize) -> Option<u64> {
        let all: Vec<u64> = self.teams.iter().flat_map(|team| &team.lots).map(|lot| lot.id).collect();
        let own: Vec<u64> = self.teams[team].lots.iter().map(|lot| lot.id).collect();
        let lots = if own.is_empty() || which.is_multiple_of(8) { all } else { own };
        which.checked_rem(lots.len()).map(|place| lots[place])
    }

    /// A charge of a team, one of the newest; mostly one that costs something.
    #[must_use]
    pub fn some_charge(&self, team: usize, which: usize) -> Option<usize> {
        let charges = &self.teams[team].charges;
        let costs = |place: &usize| {
            // Usage from before an import is no charge.
            charges[*place].name != crate::PRIOR && (charges[*place].amount > 0 || which.is_multiple_of(4))
        };
        let newest: Vec<usize> = (0..charges.len()).rev().filter(costs).take(12).collect();
        which.checked_rem(newest.len()).map(|place| newest[place])
    }

    /// One of the newest holds of a team, open or over.
    #[must_use]
    pub fn some_hold(&self, team: usize, which: usize) -> Option<u64> {
        let newest: Vec<&Hold> = self.teams[team].holds.iter().rev().take(3).collect();
        which.checked_rem(newest.len()).map(|place| newest[place].id)
    }
}

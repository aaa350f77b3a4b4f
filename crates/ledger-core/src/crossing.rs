//! Finds the facts between two states of a team: from the state before, the journal rows of a plan and the
//! state after. It looks at books, never at kinds of rows, so whatever moves tokens is seen.
//!
//! The walk goes through time once: instants at which a lot starts, nears its expiry or expires, and the
//! transactions of the plan, in order. At one instant time comes first (D40): a lot that expires then is
//! gone before a transaction looks. Everything that time does at one instant is one step, as it is for a
//! reader; the rows of a transaction are looked at one by one, so that a dip inside it is seen (D48).
//!
//! Cost: O(rows + instants · lots); without rows and with nothing due it is one comparison.

use std::{collections::BTreeSet, time::Duration};

use drawdown_types::{AccountId, LotId, MicroTokens, TeamId, Timestamp, WindowSize};

use crate::{
    journal::{Book, JournalRow},
    lot::Lot,
    notice::{Fact, Notice, NoticeRules, Watch},
    team::Team,
};

const DAY_SECS: u64 = 86_400;

/// What a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The facts, in order of their instants; of one instant in the order in which they became true.
    pub notices: Vec<Notice>,
    /// What to keep beside the team.
    pub watch: Watch,
}

/// The facts from `before` to `after`, up to `to`, the instant of the writer. `watch` is what was kept beside
/// the team before; `journal` the rows that were written in between, by sequence, of this team only. `to` lies
/// at or after every row.
#[must_use]
pub fn notices(
    before: &Team,
    watch: Watch,
    after: &Team,
    journal: &[JournalRow],
    to: Timestamp,
    rules: &NoticeRules,
    window_size: WindowSize,
) -> Told {
    let due = watch.due.filter(|due| *due <= to);
    if journal.is_empty() && due.is_none() {
        return Told { notices: Vec::new(), watch };
    }
    let mut walk = Walk::new(before, watch, after, journal, to, rules, window_size);
    if let Some(due) = due {
        walk.list_instants(due, to);
    }
    for rows in journal.chunk_by(|a, b| a.transaction == b.transaction) {
        if let Some(first) = rows.first() {
            walk.advance(first.posted_at);
            walk.transaction(rows, first.posted_at);
        }
    }
    walk.advance(to);
    let watch = Watch { told_percent: walk.told_percent, due: next_instant(after, to, rules) };
    Told { notices: walk.notices, watch }
}

fn days_before(at: Timestamp, days: u16) -> Option<Timestamp> {
    at.checked_sub(Duration::from_secs(u64::from(days).saturating_mul(DAY_SECS)))
}

/// The instants at which time alone changes something about a lot.
fn instants<'a>(lot: &'a Lot, rules: &'a NoticeRules) -> impl Iterator<Item = Timestamp> + 'a {
    let near = rules.expiring_days().iter().filter_map(|days| days_before(lot.expires_at, *days));
    [lot.starts_at, lot.expires_at].into_iter().chain(near)
}

/// When time alone makes the next fact about a team true, after `to`.
fn next_instant(team: &Team, to: Timestamp, rules: &NoticeRules) -> Option<Timestamp> {
    let live = team.lots.iter().filter(|lot| lot.is_live());
    live.flat_map(|lot| instants(lot, rules)).filter(|at| *at > to).min()
}

/// What is left of the open lots, and what these were granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    available: i128,
    granted: i128,
    /// Of what is available, what may pay any debt (D57).
    payable: i128,
}

impl Share {
    const fn add(&mut self, tracked: &Tracked<'_>) {
        self.available = self.available.saturating_add(tracked.remaining);
        self.granted = self.granted.saturating_add(tracked.granted);
        if !tracked.lot.leaves_older_debts {
            self.payable = self.payable.saturating_add(tracked.remaining);
        }
    }

    const fn remove(&mut self, tracked: &Tracked<'_>) {
        self.available = self.available.saturating_sub(tracked.remaining);
        self.granted = self.granted.saturating_sub(tracked.granted);
        if !tracked.lot.leaves_older_debts {
            self.payable = self.payable.saturating_sub(tracked.remaining);
        }
    }

    /// At or below a level. Without an open lot there is nothing left of anything.
    const fn is_at_or_below(self, percent: u8) -> bool {
        self.available.saturating_mul(100) <= self.granted.saturating_mul(percent as i128)
    }

    const fn is_below(self, other: Self) -> bool {
        match (self.granted, other.granted) {
            (_, 0) => false,
            (0, _) => true,
            _ => self.available.saturating_mul(other.granted) < other.available.saturating_mul(self.granted),
        }
    }
}

/// A lot as the walk sees it.
struct Tracked<'a> {
    lot: &'a Lot,
    remaining: i128,
    granted: i128,
    /// It lives in the team at this point of the walk.
    here: bool,
    /// It is closed, or has moved away for good: what a correction gives back to it passes through (D43).
    gone: bool,
}

impl Tracked<'_> {
    fn is_open(&self, at: Timestamp) -> bool {
        self.here && self.lot.starts_at <= at && at < self.lot.expires_at
    }
}

struct Walk<'a> {
    to: Timestamp,
    rules: &'a NoticeRules,
    window_size: WindowSize,
    account_id: AccountId,
    team_id: TeamId,
    lots: Vec<Tracked<'a>>,
    owed: i128,
    negative_since: Option<Timestamp>,
    told_percent: Option<u8>,
    seq: i64,
    instants: BTreeSet<Timestamp>,
    notices: Vec<Notice>,
}

/// Sums of one team are `i64` by rule (D53); saturation is never reached.
fn micros(amount: i128) -> MicroTokens {
    let fallback = if amount < 0 { i64::MIN } else { i64::MAX };
    MicroTokens::from_micros(i64::try_from(amount).unwrap_or(fallback))
}

fn wide(amount: MicroTokens) -> i128 {
    amount.as_micros().into()
}

impl<'a> Walk<'a> {
    fn new(
        before: &Team,
        watch: Watch,
        after: &'a Team,
        journal: &[JournalRow],
        to: Timestamp,
        rules: &'a NoticeRules,
        window_size: WindowSize,
    ) -> Self {
        let bringing: Vec<&JournalRow> = journal.iter().filter(|row| brings(row)).collect();
        let tracked = |lot: &'a Lot| {
            let earlier = before.lots.iter().find(|earlier| earlier.lot_id == lot.lot_id);
            let here = earlier.is_some_and(|lot| lot.is_live());
            let remaining = earlier.map_or(0, |lot| wide(lot.remaining));
            // A lot that comes back was granted something here before, though it is not loaded any more.
            let brought = bringing.iter().filter(|row| row.lot_id == Some(lot.lot_id));
            let granted = brought.fold(wide(lot.granted), |sum, row| sum.saturating_sub(wide(row.amount)));
            // A lot that moved away and lives here afterwards came back whole.
            let gone = earlier
                .is_some_and(|earlier| earlier.closed_at.is_some() || (!earlier.is_here() && !lot.is_here()));
            Tracked { lot, remaining, granted, here, gone }
        };
        Self {
            to,
            rules,
            window_size,
            account_id: before.balance.account_id,
            team_id: before.balance.team_id,
            lots: after.lots.iter().map(tracked).collect(),
            owed: wide(before.balance.uncharged()),
            negative_since: before.balance.negative_since,
            told_percent: watch.told_percent,
            seq: before.balance.version,
            instants: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Every instant of the lots that are here from the one that is due up to `to`.
    fn list_instants(&mut self, due: Timestamp, to: Timestamp) {
        let here = self.lots.iter().filter(|tracked| tracked.here);
        let all = here.flat_map(|tracked| instants(tracked.lot, self.rules));
        self.instants = all.filter(|at| (due..=to).contains(at)).collect();
    }

    fn tell(&mut self, occurred_at: Timestamp, fact: Fact) {
        let (account_id, team_id, seq) = (self.account_id, self.team_id, self.seq);
        self.notices.push(Notice { account_id, team_id, occurred_at, seq, fact });
    }

    fn share(&self, at: Timestamp) -> Share {
        let mut share = Share::default();
        self.lots.iter().filter(|tracked| tracked.is_open(at)).for_each(|tracked| share.add(tracked));
        share
    }

    /// Time alone, up to `to`.
    fn advance(&mut self, to: Timestamp) {
        while let Some(at) = self.instants.first().copied().filter(|at| *at <= to) {
            self.instants.pop_first();
            self.step(at);
        }
    }

    fn step(&mut self, at: Timestamp) {
        let mut facts = Vec::new();
        let mut started = false;
        for tracked in self.lots.iter().filter(|tracked| tracked.here) {
            let (lot, left) = (tracked.lot, tracked.remaining);
            started |= lot.starts_at == at && left > 0;
            let near = self.rules.expiring_days().iter();
            let near = near.filter(|days| left > 0 && days_before(lot.expires_at, **days) == Some(at));
            facts.extend(near.map(|days| Fact::LotExpiring {
                lot_id: lot.lot_id,
                days: *days,
                left: micros(left),
                expires_at: lot.expires_at,
            }));
            if lot.expires_at == at && left > 0 {
                let (lot_id, closes_at) = (lot.lot_id, lot.closes_at);
                facts.push(Fact::LotExpired { lot_id, left: micros(left), closes_at });
            }
        }
        for fact in facts {
            self.tell(at, fact);
        }
        let share = self.share(at);
        self.levels(share, share, started, at);
    }

    fn transaction(&mut self, rows: &[JournalRow], at: Timestamp) {
        let mut share = self.share(at);
        let mut lowest_share: Option<Share> = None;
        let mut lowest: Option<i128> = None;
        let mut nettings: Vec<(LotId, MicroTokens, MicroTokens)> = Vec::new();
        let mut facts = Vec::new();
        let mut place = 0_usize;
        self.seq = rows.last().map_or(self.seq, |row| row.seq);
        for row in rows {
            self.owed = match (row.debit, row.credit) {
                (Book::Uncharged, _) => self.owed.saturating_add(wide(row.amount)),
                (_, Book::Uncharged) => self.owed.saturating_sub(wide(row.amount)),
                _ => self.owed,
            };
            if let Some(lot_id) = row.lot_id
                && let Some(tracked) = find(&mut self.lots, lot_id, &mut place)
            {
                let fact = apply(tracked, row, at, &mut share);
                if matches!(fact, Some(Fact::LotAdded { .. })) {
                    // What is due of a lot before it came is nothing new.
                    let later = instants(tracked.lot, self.rules);
                    self.instants.extend(later.filter(|instant| (at < *instant) && (*instant <= self.to)));
                }
                facts.extend(fact);
            }
            net(&mut nettings, row);
            if lowest_share.is_none_or(|lowest| share.is_below(lowest)) {
                lowest_share = Some(share);
            }
            let balance = share.payable.saturating_sub(self.owed);
            lowest = Some(lowest.map_or(balance, |lowest| lowest.min(balance)));
        }
        let came = facts.iter().any(|fact| match fact {
            Fact::LotAdded { starts_at, expires_at, .. } => *starts_at <= at && at < *expires_at,
            _ => false,
        });
        for fact in facts {
            self.tell(at, fact);
        }
        for (lot_id, from, to) in nettings {
            self.tell(at, Fact::DebtNetted { lot_id, from, to, owed: micros(self.owed) });
        }
        let balance = share.payable.saturating_sub(self.owed);
        // Of usage from before an import it is known since when it is owed (D61).
        let prior = |row: &&JournalRow| row.credit == Book::Consumed && row.charge_id.is_none();
        let since = rows.iter().filter(prior).map(|row| row.effective_at).min().unwrap_or(at);
        self.zero(lowest.unwrap_or(balance), balance, at, since);
        self.levels(lowest_share.unwrap_or(share), share, came, at);
    }

    /// The balance here is without lots that leave older debts: what they have pays nothing that is owed (D57).
    /// The clock starts where a transaction ends below zero, and is cleared by one that ends at or above it
    /// (D48). A dip is told where no clock was running.
    fn zero(&mut self, lowest: i128, balance: i128, at: Timestamp, since: Timestamp) {
        let below = balance < 0;
        match self.negative_since {
            None if lowest < 0 => {
                let deadline = below.then(|| self.rules.deadline(since, self.window_size));
                self.tell(at, Fact::BelowZero { lowest: micros(lowest), balance: micros(balance), deadline });
                self.negative_since = below.then_some(since);
            }
            Some(since) if !below => {
                self.tell(at, Fact::BackAtZero { balance: micros(balance), since });
                self.negative_since = None;
            }
            None | Some(_) => {}
        }
    }

    /// Tells every armed level that the lowest point reached, the highest first, then arms what the end of the
    /// step left behind. `came` says that a lot came or started, which arms without the margin.
    fn levels(&mut self, lowest: Share, end: Share, came: bool, at: Timestamp) {
        for percent in self.rules.levels().iter().rev().copied() {
            let armed = self.told_percent.is_none_or(|told| percent < told);
            if armed && lowest.is_at_or_below(percent) {
                self.told_percent = Some(percent);
                let (available, granted) = (micros(lowest.available), micros(lowest.granted));
                self.tell(at, Fact::LevelReached { percent, available, granted });
            }
        }
        let Some(told) = self.told_percent else { return };
        let margin = if came { 0 } else { self.rules.rearm_points() };
        let mut levels = self.rules.levels().iter().copied().filter(|percent| *percent >= told);
        self.told_percent = levels.find(|percent| end.is_at_or_below(percent.saturating_add(margin)));
    }
}

/// Rows of one lot mostly follow each other, in the order of the lots: the search goes on where it ended.
fn find<'w, 'a>(
    lots: &'w mut [Tracked<'a>],
    lot_id: LotId,
    place: &mut usize,
) -> Option<&'w mut Tracked<'a>> {
    let named = |tracked: &Tracked<'_>| tracked.lot.lot_id == lot_id;
    let ahead = lots.iter().skip(*place).position(named).map(|ahead| place.saturating_add(ahead));
    *place = ahead.or_else(|| lots.iter().position(named))?;
    lots.get_mut(*place)
}

/// A row that makes its lot larger: bought, granted, adjusted, moved in.
const fn brings(row: &JournalRow) -> bool {
    matches!((row.debit, row.credit), (Book::Issued | Book::Moved, Book::Lot))
}

/// A row and its lot: what the open lots hold afterwards, and what became true of the lot.
fn apply(tracked: &mut Tracked<'_>, row: &JournalRow, at: Timestamp, share: &mut Share) -> Option<Fact> {
    let amount = wide(row.amount);
    if tracked.is_open(at) {
        share.remove(tracked);
    }
    let mut fact = None;
    if row.debit == Book::Lot {
        tracked.remaining = tracked.remaining.saturating_sub(amount);
    }
    if brings(row) {
        tracked.granted = tracked.granted.saturating_add(amount);
    }
    match row.credit {
        Book::Lot => {
            tracked.remaining = tracked.remaining.saturating_add(amount);
            if !tracked.here && !tracked.gone {
                tracked.here = true;
                fact = Some(added(tracked.lot, row));
            }
        }
        Book::Expired if !tracked.gone => {
            tracked.gone = true;
            let (lot_id, expired_at) = (tracked.lot.lot_id, tracked.lot.expires_at);
            fact = Some(Fact::LotClosed { lot_id, forfeited: row.amount, expired_at });
        }
        Book::Moved => tracked.here = false,
        Book::Issued | Book::Held | Book::Consumed | Book::Uncharged | Book::Void | Book::Expired => {}
    }
    if tracked.is_open(at) {
        share.add(tracked);
    }
    fact
}

fn added(lot: &Lot, row: &JournalRow) -> Fact {
    Fact::LotAdded {
        lot_id: lot.lot_id,
        pool: lot.pool_kind,
        amount: row.amount,
        starts_at: lot.starts_at,
        expires_at: lot.expires_at,
        moved: row.debit == Book::Moved,
    }
}

/// Rows of one lot that pay the debt on and on are one fact.
fn net(nettings: &mut Vec<(LotId, MicroTokens, MicroTokens)>, row: &JournalRow) {
    let (Book::Lot, Book::Uncharged, Some(lot_id), Some(debt)) =
        (row.debit, row.credit, row.lot_id, row.debt)
    else {
        return;
    };
    match nettings.last_mut() {
        Some((last, _, to)) if *last == lot_id && *to == debt.from => *to = debt.to,
        _ => nettings.push((lot_id, debt.from, debt.to)),
    }
}

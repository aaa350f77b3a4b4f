//! What a billing system pulls: everything that was posted to an account, each row once.
//!
//! Shape. Each team's charges and journal rows are two gapless sequences that become visible in their order. The order over teams is
//! made of slices of them (`0055_postings.sql`), cut when a reader has come to the end of those there are: one short transaction under
//! the lock of the account's head, so a pull that finds enough to read writes nothing. Inside of a slice charges come first, with
//! their journal rows, then the rows that belong to no charge.
//!
//! Why nothing is missed or told twice: slices of a team join without gap or overlap, because they are cut one after the other from
//! where the last one ends; places become visible in their own order, because they are given under the lock; a slice ends at what
//! the balance counts, and a balance is committed with what it counts. Nothing of that hangs on a clock.
//!
//! Cost of a page: two statements for as many slices as fit into it as a whole, three for one that does not, each a walk along a primary
//! key. Rows that belong to charges lie between them, so looking for others stops after [`SCANNED_ROWS_MAX`] places and the page is short.
//! A page that is full looks for the next posting, so that it says whether one follows: a charge that is left in a slice does, a row only
//! where it belongs to none. That is one statement, or three where the slice that was begun has no charge any more. It stops after as
//! many places too: then the page says that more follows, and the next one knows.

use std::collections::HashMap;

use drawdown_ledger_core::Kind;
use drawdown_types::{AccountId, TeamId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::Error,
    reports::archived,
    service::{Ledger, connection},
    store::{
        Reader, partitions,
        postings::{self, Piece, PostedCharge, Range, Slice, UnitPrice},
        reads::JournalRead,
    },
};

/// Slices that are looked at for one page.
const SLICES_MAX: i64 = 1000;
/// Places of a team's journal that are looked through for rows that belong to no charge, for one page.
const SCANNED_ROWS_MAX: i64 = 100_000;

/// How far a reader has come: inside of a slice, or at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The slice; 0 before the first.
    pub(crate) position: i64,
    /// Its name, in halves.
    pub(crate) mark: (u64, u64),
    /// The last charge that was told.
    pub(crate) charge: i64,
    /// The last journal row that was told or passed over.
    pub(crate) row: i64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostingQuestion {
    /// The billed account.
    pub(crate) account: AccountId,
    /// One of its teams; none for all.
    pub(crate) team: Option<TeamId>,
    /// After this place.
    pub(crate) after: Place,
    /// Up to this one; none for all there is.
    pub(crate) until: Option<Place>,
}

/// A charge with what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The charge.
    pub(crate) charge: PostedCharge,
    /// Its journal rows.
    pub(crate) rows: Vec<JournalRead>,
    /// Whole units that it pays, where its price counts those.
    pub(crate) units: Option<i64>,
}

/// A thing that was posted.
#[derive(Clone, Debug)]
pub(crate) enum Posting {
    /// A charge.
    Charge(Box<Told>),
    /// A row that belongs to no charge.
    Row(JournalRead),
}

/// A part of the order.
#[derive(Clone, Debug, Default)]
pub(crate) struct PostingPage {
    /// What was posted, with the team.
    pub(crate) postings: Vec<(TeamId, Posting)>,
    /// Where to go on.
    pub(crate) next: Place,
    /// More follows already.
    pub(crate) more: bool,
}

/// A slice, or what is left of one.
#[derive(Clone, Copy, Debug)]
struct Rest {
    slice: Slice,
    charge: i64,
    charge_to: i64,
    row: i64,
    row_to: i64,
}

// === impl Place ===

impl Place {
    fn end_of(slice: &Slice) -> Self {
        Self {
            position: slice.position,
            mark: slice.mark.as_u64_pair(),
            charge: slice.charge_to,
            row: slice.row_to,
        }
    }
}

// === impl Rest ===

impl Rest {
    /// What of a slice lies behind one place and before another.
    fn of(slice: Slice, after: Place, until: Option<Place>) -> Self {
        let begun = slice.position == after.position;
        let (charge, row) =
            if begun { (after.charge, after.row) } else { (slice.charge_after, slice.row_after) };
        let ended = until.filter(|until| until.position == slice.position);
        let (charge_to, row_to) =
            ended.map_or((slice.charge_to, slice.row_to), |until| (until.charge, until.row));
        Self { slice, charge, charge_to, row, row_to }
    }

    const fn is_empty(&self) -> bool {
        self.charge >= self.charge_to && self.row >= self.row_to
    }

    /// At most so many postings are in it.
    fn bound(&self) -> usize {
        let charges = self.charge_to.saturating_sub(self.charge).max(0);
        let rows = self.row_to.saturating_sub(self.row).max(0);
        usize::try_from(charges.saturating_add(rows)).unwrap_or(usize::MAX)
    }

    fn check_kept(&self, until: Option<Timestamp>) -> Result<(), Error> {
        let charges = self.charge < self.charge_to && self.charge < self.slice.charges_archived;
        let rows = self.row < self.row_to && self.row < self.slice.rows_archived;
        if charges || rows { Err(archived(until)) } else { Ok(()) }
    }

    const fn charges(&self) -> Piece {
        self.piece(self.charge, self.charge_to)
    }

    const fn rows(&self, up_to: i64) -> Piece {
        self.piece(self.row, up_to)
    }

    const fn piece(&self, after: i64, up_to: i64) -> Piece {
        Piece { place: self.slice.position, team_id: self.slice.team_id, after, up_to }
    }

    fn place(&self) -> Place {
        Place {
            position: self.slice.position,
            mark: self.slice.mark.as_u64_pair(),
            charge: self.charge,
            row: self.row,
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// The slice that a place is in, where it is the one that the place was given out for.
    pub(crate) async fn has_place(&self, account: AccountId, place: Place) -> Result<bool, Error> {
        if place.position == 0 {
            return Ok(true);
        }
        let mut reader = self.pool.read_of(Some(account)).await?;
        let range = Range { team: None, from: place.position, to: place.position, limit: 1 };
        let found = postings::slices(&mut reader, account, range, false).await?;
        Ok(found.first().is_some_and(|slice| slice.mark.as_u64_pair() == place.mark))
    }

    /// The place behind everything that is posted by now.
    pub(crate) async fn last_place(&self, account: AccountId) -> Result<Place, Error> {
        self.cut(account).await?;
        let mut reader = self.pool.read_of(Some(account)).await?;
        let position = postings::head(&mut reader, account).await?;
        let range = Range { team: None, from: position, to: position, limit: 1 };
        let last = postings::slices(&mut reader, account, range, false).await?;
        Ok(last.first().map(Place::end_of).unwrap_or_default())
    }

    async fn cut(&self, account: AccountId) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        postings::lock_in_tx(connection(&mut tx), account).await?;
        postings::cut_in_tx(connection(&mut tx), account).await?;
        tx.commit().await?;
        Ok(())
    }

    /// What was posted after a place, at most `rows` postings.
    pub(crate) async fn postings(&self, asked: &PostingQuestion, rows: usize) -> Result<PostingPage, Error> {
        let mut page = PostingPage { next: asked.after, ..PostingPage::default() };
        let mut has_cut = asked.until.is_some();
        loop {
            let mut reader = self.pool.read_of(Some(asked.account)).await?;
            page.more = self.fill(&mut reader, asked, rows, &mut page).await?;
            drop(reader);
            if page.more || has_cut {
                break;
            }
            self.cut(asked.account).await?;
            has_cut = true;
        }
        self.count_units(&mut page).await?;
        Ok(page)
    }

    /// Fills a page from the slices there are; whether more follows in them.
    async fn fill(
        &self,
        reader: &mut Reader,
        asked: &PostingQuestion,
        rows: usize,
        page: &mut PostingPage,
    ) -> Result<bool, Error> {
        let archived = partitions::archived_until(reader, asked.account, asked.team).await?;
        loop {
            let room = rows.saturating_sub(page.postings.len());
            if room == 0 {
                return any_follows(reader, asked, archived.is_some(), page).await;
            }
            let rests = rests(reader, asked, page.next, archived.is_some()).await?;
            let mut left = room;
            let fits = |rest: &&Rest| {
                let after = left.checked_sub(rest.bound());
                left = after.unwrap_or_default();
                after.is_some()
            };
            let whole = rests.iter().take_while(fits).count();
            let (group, first) = (rests.get(..whole).unwrap_or_default(), rests.first());
            match (group, first) {
                (_, None) => return Ok(false),
                ([], Some(first)) => {
                    first.check_kept(archived)?;
                    if part_of_slice(reader, asked.account, *first, room, page).await? {
                        return Ok(true);
                    }
                }
                (group, Some(_)) => {
                    group.iter().try_for_each(|rest| rest.check_kept(archived))?;
                    whole_slices(reader, asked.account, group, page).await?;
                }
            }
        }
    }

    /// A price whose unit costs at least three micro-tokens says by the amount how many units it was: what is rounded down at
    /// both ends of a state differs by less than one micro-token.
    async fn count_units(&self, page: &mut PostingPage) -> Result<(), Error> {
        let told = page.postings.iter().filter_map(|(_, posting)| match posting {
            Posting::Charge(told) => told.charge.price_id,
            Posting::Row(_) => None,
        });
        let mut prices: Vec<Uuid> = told.collect();
        prices.sort_unstable();
        prices.dedup();
        if prices.is_empty() {
            return Ok(());
        }
        let found = postings::unit_prices(&mut *self.pool.read().await?, &prices).await?;
        let prices: HashMap<Uuid, UnitPrice> =
            found.into_iter().map(|price| (price.price_id, price)).collect();
        for (_, posting) in &mut page.postings {
            if let Posting::Charge(told) = posting {
                let price = told.charge.price_id.and_then(|id| prices.get(&id));
                told.units = price.and_then(|price| units(price, told.charge.amount_micros));
            }
        }
        Ok(())
    }
}

/// What slices there are have behind a place, those that have something.
async fn rests(
    reader: &mut Reader,
    asked: &PostingQuestion,
    after: Place,
    is_archived: bool,
) -> Result<Vec<Rest>, Error> {
    let to = asked.until.map_or(i64::MAX, |until| until.position);
    let range = Range { team: asked.team, from: after.position, to, limit: SLICES_MAX };
    let slices = postings::slices(reader, asked.account, range, is_archived).await?;
    let rests = slices.into_iter().map(|slice| Rest::of(slice, after, asked.until));
    Ok(rests.filter(|rest| !rest.is_empty()).collect())
}

/// Whether a posting follows in the slices there are. Places that are looked through in vain are passed over, so nobody looks through
/// them again; after [`SCANNED_ROWS_MAX`] of them the next page goes on.
async fn any_follows(
    reader: &mut Reader,
    asked: &PostingQuestion,
    is_archived: bool,
    page: &mut PostingPage,
) -> Result<bool, Error> {
    let mut left = SCANNED_ROWS_MAX;
    loop {
        let rests = rests(reader, asked, page.next, is_archived).await?;
        if rests.is_empty() {
            return Ok(false);
        }
        for rest in rests {
            let scanned = rest.row.saturating_add(left).min(rest.row_to);
            let nothing = rest.charge >= rest.charge_to
                && postings::rows(reader, asked.account, &[rest.rows(scanned)], false, 1).await?.is_empty();
            if !nothing {
                return Ok(true);
            }
            page.next = Rest { row: scanned, ..rest }.place();
            if scanned < rest.row_to {
                return Ok(true);
            }
            left = left.saturating_sub(scanned.saturating_sub(rest.row));
        }
    }
}

/// Reads slices that fit as a whole.
async fn whole_slices(
    reader: &mut Reader,
    account: AccountId,
    group: &[Rest],
    page: &mut PostingPage,
) -> Result<(), Error> {
    let all: Vec<Piece> = group.iter().map(Rest::charges).collect();
    let charges = postings::charges(reader, account, &all, i64::MAX).await?;
    let ends: Vec<Piece> = group.iter().map(|rest| rest.rows(rest.slice.row_to)).collect();
    let mut told = with_rows(reader, account, charges, &ends).await?;
    let all: Vec<Piece> = group.iter().map(|rest| rest.rows(rest.row_to)).collect();
    let mut rows = postings::rows(reader, account, &all, false, i64::MAX).await?;
    // Both are by place: what belongs to a slice is in front of what belongs to the next.
    for rest in group {
        let (team, place) = (TeamId::from_uuid(rest.slice.team_id), rest.slice.position);
        let charges = told.iter().take_while(|told| told.charge.place == place).count();
        page.postings.extend(told.drain(..charges).map(|told| (team, Posting::Charge(Box::new(told)))));
        let others = rows.iter().take_while(|(of, _)| *of == place).count();
        page.postings.extend(rows.drain(..others).map(|(_, row)| (team, Posting::Row(row))));
        page.next = Rest { charge: rest.charge_to, row: rest.row_to, ..*rest }.place();
    }
    Ok(())
}

/// Reads of a slice what fits; whether the page ends with it though it may have room, or a charge follows.
async fn part_of_slice(
    reader: &mut Reader,
    account: AccountId,
    mut rest: Rest,
    room: usize,
    page: &mut PostingPage,
) -> Result<bool, Error> {
    let team = TeamId::from_uuid(rest.slice.team_id);
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let charges = postings::charges(reader, account, &[rest.charges()], limit).await?;
    let row_to = match charges.last() {
        // Rows of a charge are posted at its instant.
        Some(last) if last.seq < rest.charge_to => {
            postings::last_row(reader, account, rest.slice.team_id, last.posted_at.0).await?
        }
        Some(_) | None => rest.slice.row_to,
    };
    rest.charge = charges.last().map_or(rest.charge_to, |last| last.seq);
    let end = rest.rows(row_to.min(rest.slice.row_to));
    let told = with_rows(reader, account, charges, &[end]).await?;
    let room = room.saturating_sub(told.len());
    page.postings.extend(told.into_iter().map(|told| (team, Posting::Charge(Box::new(told)))));
    if rest.charge < rest.charge_to || room == 0 {
        page.next = rest.place();
        return Ok(rest.charge < rest.charge_to);
    }
    let scanned = rest.row.saturating_add(SCANNED_ROWS_MAX).min(rest.row_to);
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let rows = postings::rows(reader, account, &[rest.rows(scanned)], false, limit).await?;
    let is_full = rows.len() >= room;
    rest.row = match rows.last() {
        Some((_, last)) if is_full => last.seq,
        Some(_) | None => scanned,
    };
    page.postings.extend(rows.into_iter().map(|(_, row)| (team, Posting::Row(row))));
    page.next = rest.place();
    Ok(!is_full && rest.row < rest.row_to)
}

/// Charges with their journal rows, which lie between the first one's place and the end of the journal that is named for their
/// slice.
async fn with_rows(
    reader: &mut Reader,
    account: AccountId,
    charges: Vec<PostedCharge>,
    ends: &[Piece],
) -> Result<Vec<Told>, Error> {
    let ends: HashMap<i64, Piece> = ends.iter().map(|end| (end.place, *end)).collect();
    let mut pieces: Vec<Piece> = Vec::new();
    for charge in charges.iter().filter(|charge| charge.lot_id.is_none() && charge.amount_micros != 0) {
        if pieces.last().is_none_or(|piece| piece.place != charge.place)
            && let Some(end) = ends.get(&charge.place)
        {
            pieces.push(Piece { after: charge.journal_seq.saturating_sub(1), ..*end });
        }
    }
    let mut by_charge: HashMap<Uuid, Vec<JournalRead>> = HashMap::new();
    for (_, row) in postings::rows(reader, account, &pieces, true, i64::MAX).await? {
        if let Some(charge) = row.charge_id {
            by_charge.entry(charge).or_default().push(row);
        }
    }
    let told = charges.into_iter().map(|charge| {
        let rows = match charge.lot_id {
            Some(lot) => vec![own_row(&charge, lot)],
            None => by_charge.remove(&charge.charge_id).unwrap_or_default(),
        };
        Told { charge, rows, units: None }
    });
    Ok(told.collect())
}

/// The row that a charge is itself, where one lot paid all of it (`ledger.charge_row`).
fn own_row(charge: &PostedCharge, lot: Uuid) -> JournalRead {
    JournalRead {
        seq: charge.journal_seq,
        kind: Kind::Charge.as_str().to_owned(),
        debit_book: "lot".to_owned(),
        credit_book: "consumed".to_owned(),
        amount_micros: charge.amount_micros,
        lot_id: Some(lot),
        charge_id: Some(charge.charge_id),
        debt_from_micros: 0,
        debt_to_micros: 0,
        posted_at: charge.posted_at,
        effective_at: charge.window_start,
        hold_id: None,
        reverses: None,
    }
}

fn units(price: &UnitPrice, amount_micros: i64) -> Option<i64> {
    let unit_micros = i128::from(price.micros).checked_mul(price.charged_unit.into())?;
    let per_units = i128::from(price.per_units);
    let paid = i128::from(amount_micros.unsigned_abs()).checked_mul(per_units)?;
    if unit_micros < per_units.checked_mul(3)? {
        return None;
    }
    // To the nearest: half a unit is added, and what is below a whole one is cut off.
    let units = paid.checked_mul(2)?.checked_add(unit_micros)?.checked_div(unit_micros.checked_mul(2)?)?;
    let units = i64::try_from(units).ok()?;
    Some(if amount_micros < 0 { units.checked_neg()? } else { units })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_say_how_many_units_they_paid() {
        let price = |micros, per_units, charged_unit| UnitPrice {
            price_id: Uuid::nil(),
            micros,
            per_units,
            charged_unit,
        };
        // 3 tokens an hour in whole units of 20 minutes: a token each.
        let hours = price(3_000_000, 3_600, 1_200);
        for (amount, expected) in [(0, 0), (1_000_000, 1), (7_000_000, 7), (-2_000_000, -2)] {
            assert_eq!(units(&hours, amount), Some(expected), "{amount}");
        }
        // 10 micro-tokens for 3 units of one: each costs 3⅓, and states are rounded down.
        let thirds = price(10, 3, 1);
        for before in 0..30_i64 {
            for after in before..30 {
                let amount = after * 10 / 3 - before * 10 / 3;
                assert_eq!(units(&thirds, amount), Some(after - before), "{before} {after}");
            }
        }
        assert_eq!(units(&price(2, 1, 1), 4), None);
        assert_eq!(units(&price(i64::MAX, 1, i64::MAX), i64::MAX), Some(0));
    }
}

//! A naive model of lots: every charge in its recorded order, one by one, no positions, no batches.
//!
//! It answers one question: given these lots and these charges, what has each lot paid and what is
//! owed? Written from the rules alone (D3, D4, D7, D41, D42); it covers what the scenarios here use:
//! lots that exist before the first charge, no holds, no moves.

use drawdown_types::Timestamp;

/// A lot as it was granted.
#[derive(Debug, Clone)]
pub struct ModelLot {
    /// Its id.
    pub id: String,
    /// Rank of its pool: 0 is drawn first.
    pub pool_rank: u32,
    /// Micro-tokens at first.
    pub granted: i64,
    /// When it was bought or granted.
    pub purchased_at: Timestamp,
    /// First instant.
    pub starts_at: Timestamp,
    /// First instant after its validity.
    pub expires_at: Timestamp,
    /// What it paid so far.
    pub paid: i64,
}

/// A charge as it was recorded.
#[derive(Debug, Clone)]
pub struct ModelCharge {
    /// Start of its window.
    pub window_start: Timestamp,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// Micro-tokens.
    pub amount: i64,
}

/// Lets `lots` pay `charges`; returns what stays owed.
pub fn pay_in_order(lots: &mut [ModelLot], charges: &[ModelCharge]) -> i64 {
    lots.sort_by(|a, b| {
        let key =
            |lot: &ModelLot| (lot.pool_rank, lot.expires_at, lot.granted, lot.purchased_at, lot.id.clone());
        key(a).cmp(&key(b))
    });
    let mut owed = 0;
    for charge in charges {
        let mut rest = charge.amount;
        for lot in lots.iter_mut().filter(|lot| holds(lot, charge.window_start)) {
            rest -= take(lot, rest);
        }
        owed += rest;
        for lot in lots.iter_mut().filter(|lot| holds(lot, charge.posted_at)) {
            owed -= take(lot, owed);
        }
    }
    owed
}

fn holds(lot: &ModelLot, at: Timestamp) -> bool {
    lot.starts_at <= at && at < lot.expires_at
}

fn take(lot: &mut ModelLot, wanted: i64) -> i64 {
    let paid = wanted.min(lot.granted - lot.paid);
    lot.paid += paid;
    paid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs).unwrap()
    }

    fn lot(granted: i64, from: i64, to: i64) -> ModelLot {
        ModelLot {
            id: String::new(),
            pool_rank: 0,
            granted,
            purchased_at: at(from),
            starts_at: at(from),
            expires_at: at(to),
            paid: 0,
        }
    }

    #[test]
    fn an_expired_lot_pays_for_its_own_windows_only() {
        let mut lots = [lot(100, 0, 600), lot(100, 0, 6000)];
        let charge = |window, amount| ModelCharge { window_start: at(window), posted_at: at(5000), amount };
        let owed = pay_in_order(&mut lots, &[charge(540, 30), charge(600, 80), charge(60, 90)]);
        assert_eq!((lots[0].paid, lots[1].paid, owed), (100, 100, 0));
    }

    #[test]
    fn an_open_lot_pays_debts_of_earlier_windows() {
        let mut lots = [lot(100, 600, 6000)];
        let charge = ModelCharge { window_start: at(0), posted_at: at(700), amount: 130 };
        assert_eq!(pay_in_order(&mut lots, &[charge]), 30);
        assert_eq!(lots[0].paid, 100);
    }
}

//! Corrections (D11, D43): usage that did not happen, or not as it was metered, is taken back by rows that point
//! at what they correct, and may be charged again.
//!
//! What is reversed is a quantity, not money: the state of the key shrinks, and the refund is price(before) −
//! price(after), which need not be what the line once cost. The refund is taken from the corrected line, then
//! from the latest lines of its key; of each line first from what is owed, then from its payments, the last
//! first. Tokens go back to the lot that paid, where that lives now.
//!
//! | team | what its transaction does, in this order |
//! |---|---|
//! | of the corrected line | cancels debt, reverses payments, charges again if it is to pay, sends on what belongs to a lot that moved, expires what belongs to a closed one, pays debts |
//! | where a lot lives now | receives, charges again if it is to pay, expires, pays debts |
//! | another one that is to pay | charges again |
//!
//! All are at one instant, teams in the order of this table. What came back is used for the new charge before
//! anything else (D41), so that a charge made again for the same amount is paid as it was.

use drawdown_types::{ChargeId, LotId, MeterSlug, MicroTokens, Quantity, TeamId, Timestamp};

use crate::{
    batch::{Attribution, Batch, Charge, Line, Payer, Rated, Unattributable},
    command::{can_issue, instant_of},
    plan::Plan,
    posting::{Cause, Posting, Returned},
    price::PriceBook,
    rater::Rater,
    rating::{Cycle, PeriodKey, Periods, SeenValue, UsageKey, UsageState},
    roll::bring_forward,
    settings::Settings,
    standing::ChargeJournal,
    team::Team,
};

/// A charge as far as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingCharge {
    /// Its name.
    pub charge_id: ChargeId,
    /// The team that bears it.
    pub team_id: TeamId,
    /// Its meter.
    pub meter: MeterSlug,
    /// The window that decided about its price and lots.
    pub window: Timestamp,
    /// Why it costs what it costs.
    pub rated: Rated,
    /// What it was for, less what was taken back.
    pub quantity: Quantity,
}

/// A day or month of a meter that aggregates by it, without a line that is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodShrink {
    /// The period.
    pub key: PeriodKey,
    /// Its quantity as stored.
    pub before: Quantity,
    /// The same without the line: the largest of the other lines' values, or how many distinct ones they have.
    pub after: Quantity,
    /// Values that no other line of the period has.
    pub gone: Vec<SeenValue>,
}

/// What to take back, and what to charge instead.
#[derive(Clone, Debug)]
pub struct Correction<'a> {
    /// The name of the correction: of its rows, and of the negative charge.
    pub charge_id: ChargeId,
    /// The line.
    pub corrected: &'a StandingCharge,
    /// How much of it, in base units.
    pub quantity: Quantity,
    /// Of a line of `max` or `unique`, which is taken back whole: its period.
    pub period: Option<PeriodShrink>,
    /// Usage to charge instead, with its payer, at its own window and whatever its age.
    pub recharge: Option<&'a Line>,
    /// Other lines of the same key that cost something, the latest first.
    pub latest: &'a [ChargeId],
    /// What decides how much of the corrected and the latest lines stands.
    pub journal: &'a ChargeJournal,
    /// The states of the key, of its price without a month, and of [`crate::usage_keys`] of the recharge.
    pub states: &'a [UsageState],
    /// Those of [`crate::periods_wanted`] of the recharge.
    pub periods: &'a Periods,
    /// The rate cards.
    pub prices: &'a PriceBook,
}

/// What a correction took back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// The name of the correction.
    pub charge_id: ChargeId,
    /// The charge that it corrects.
    pub corrects: ChargeId,
    /// The team.
    pub team_id: TeamId,
    /// The window of the corrected line.
    pub window: Timestamp,
    /// As the corrected line.
    pub rated: Rated,
    /// What was taken back, in base units.
    pub quantity: Quantity,
    /// The refund.
    pub amount: MicroTokens,
    /// What of it was still owed.
    pub cancelled: MicroTokens,
    /// The first of its rows; absent where nothing moved.
    pub journal_seq: Option<i64>,
    /// The instant.
    pub posted_at: Timestamp,
    /// Distinct values that are seen no more.
    pub gone: Vec<SeenValue>,
}

/// Why a correction can not be. All but [`CorrectionError::MoreLines`] and [`CorrectionError::LotElsewhere`],
/// which ask the caller to load more, are permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionError {
    /// Nothing would change.
    #[error("a correction of nothing")]
    Nothing,
    /// More than stands.
    #[error("{asked} units are more than the {standing} that stand of charge {charge_id}")]
    MoreThanStands {
        /// The charge.
        charge_id: ChargeId,
        /// What was asked for.
        asked: Quantity,
        /// What stands.
        standing: Quantity,
    },
    /// Largest values and distinct ones are taken back whole (D43).
    #[error("charge {0} is of a meter that does not add up: it is taken back whole or not at all")]
    WholeOnly(ChargeId),
    /// The latest lines that were given do not cover the refund.
    #[error("more of the latest lines are needed to cover the refund")]
    MoreLines,
    /// A lot that paid lives in a team that was not given.
    #[error("lot {0} lives in a team that is not loaded")]
    LotElsewhere(LotId),
    /// The team of a charge was not given.
    #[error("team {0} is not loaded")]
    TeamMissing(TeamId),
    /// The states, prices or journal given do not fit the charge.
    #[error("the books do not fit charge {0}")]
    Unfit(ChargeId),
    /// The usage to charge instead can not be charged.
    #[error("the usage to charge instead can not be charged: {}", .0.as_str())]
    RechargeUnfit(Unattributable),
    /// The sums of a team would not fit (D53).
    #[error("the sums of a team would not fit")]
    Overflow,
}

/// Corrects a charge. `teams` must hold the team of the corrected line, that of the recharge, and every team in
/// which a lot lives that gets something back, each once, with the lots that paid whatever their state.
///
/// # Errors
/// [`CorrectionError`]; the teams are unchanged then.
pub fn correct(
    teams: &mut [Team],
    correction: &Correction<'_>,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
    new_charge_id: impl FnOnce() -> ChargeId,
) -> Result<(Plan, Corrected), CorrectionError> {
    check(correction)?;
    let at = teams.iter().map(|team| instant_of(team, now)).fold(now, Ord::max);
    let batch = Batch {
        lines: &[],
        states: correction.states,
        periods: correction.periods,
        prices: correction.prices,
        settings,
        now,
        settled_until,
        last_of_holds: &[],
    };
    let mut rater = Rater::new(&batch);
    let refund = shrink(&mut rater, correction)?;
    let mut work = Work {
        correction,
        rater,
        new_charge_id: Some(new_charge_id),
        plan: Plan { instant: Some(at), ..Plan::default() },
        at,
        settled_until,
        settings,
        charges: Vec::new(),
    };
    let mut changed = teams.to_vec();
    let team_id = correction.corrected.team_id;
    let own = changed.iter().position(|team| team.balance.team_id == team_id);
    let own = own.ok_or(CorrectionError::TeamMissing(team_id))?;
    let (corrected, gone) = work.take_back(&mut changed, own, refund)?;
    work.hand_over(&mut changed, own, &gone)?;
    let Work { mut plan, rater, charges, .. } = work;
    plan.charges = charges;
    let rated = rater.into_changed();
    (plan.states, plan.new_states, plan.periods) = (rated.states, rated.new_states, rated.periods);
    teams.clone_from_slice(&changed);
    Ok((plan, corrected))
}

fn check(
    Correction { corrected, quantity, period, prices, .. }: &Correction<'_>,
) -> Result<(), CorrectionError> {
    let standing = corrected.quantity;
    // Also where the line cost nothing by rule, and so is in no period.
    let by_period = prices.meters().get(&corrected.meter).is_some_and(|adds| adds.period().is_some());
    if *quantity == Quantity::ZERO {
        return Err(CorrectionError::Nothing);
    }
    if *quantity > standing {
        let charge_id = corrected.charge_id;
        return Err(CorrectionError::MoreThanStands { charge_id, asked: *quantity, standing });
    }
    if (by_period || period.is_some()) && *quantity != standing {
        return Err(CorrectionError::WholeOnly(corrected.charge_id));
    }
    Ok(())
}

/// What the states of the corrected line lose is what is refunded. A line that cost nothing by rule is in no
/// state.
fn shrink(rater: &mut Rater<'_>, correction: &Correction<'_>) -> Result<MicroTokens, CorrectionError> {
    let StandingCharge { charge_id, team_id, window, rated, .. } = correction.corrected;
    let unfit = CorrectionError::Unfit(*charge_id);
    let Some(price_id) = rated.price_id() else { return Ok(MicroTokens::ZERO) };
    let (meter, price) = correction.prices.named(price_id).ok_or_else(|| unfit.clone())?;
    let by = match (&correction.period, price.period) {
        (Some(period), Some(_)) => rater.shrink(period).ok_or_else(|| unfit.clone())?,
        (None, None) => correction.quantity,
        _ => return Err(unfit),
    };
    let key = UsageKey { team_id: *team_id, price_id, cycle: Cycle::of(*window) };
    rater.take_back(&price, meter, key, by).ok_or(unfit)
}

/// A correction under way.
struct Work<'a, N> {
    correction: &'a Correction<'a>,
    rater: Rater<'a>,
    new_charge_id: Option<N>,
    plan: Plan,
    at: Timestamp,
    settled_until: Timestamp,
    settings: &'a Settings,
    charges: Vec<Charge>,
}

/// Tokens that leave for the teams where their lots live now.
type Gone = Vec<(LotId, MicroTokens)>;

impl<N: FnOnce() -> ChargeId> Work<'_, N> {
    /// The transaction of the corrected line's team.
    fn take_back(
        &mut self,
        teams: &mut [Team],
        own: usize,
        refund: MicroTokens,
    ) -> Result<(Corrected, Gone), CorrectionError> {
        let Correction { charge_id, corrected, quantity, period, .. } = self.correction;
        let team = teams.get_mut(own).ok_or(CorrectionError::TeamMissing(corrected.team_id))?;
        let mut plan = std::mem::take(&mut self.plan);
        let mut posting = Posting::new(team, &mut plan, self.settings);
        bring_forward(&mut posting, self.at, self.settled_until);
        let mut journal = self.correction.journal.clone();
        journal.rows.extend(posting.written().iter().cloned());
        posting.begin(self.at);
        posting.record();
        let before = posting.team().balance.version;
        let mut returned = Returned::default();
        let cancelled = self.reverse(&mut posting, &journal, refund, &mut returned)?;
        let moved = posting.team().balance.version > before;
        self.recharge(&mut posting, &mut returned)?;
        let gone = posting.settle_returned(returned);
        posting.end();
        posting.finish();
        self.plan = plan;
        let corrected = Corrected {
            charge_id: *charge_id,
            corrects: corrected.charge_id,
            team_id: corrected.team_id,
            window: corrected.window,
            rated: corrected.rated,
            quantity: *quantity,
            amount: refund,
            cancelled,
            journal_seq: moved.then(|| before.saturating_add(1)),
            posted_at: self.at,
            gone: period.as_ref().map(|period| period.gone.clone()).unwrap_or_default(),
        };
        Ok((corrected, gone))
    }

    /// Takes `refund` from the corrected line, then from the latest of its key; gives what of it was owed.
    fn reverse(
        &self,
        posting: &mut Posting<'_>,
        journal: &ChargeJournal,
        refund: MicroTokens,
        returned: &mut Returned,
    ) -> Result<MicroTokens, CorrectionError> {
        let Correction { charge_id, corrected, latest, .. } = self.correction;
        let cause = Cause {
            charge_id: Some(*charge_id),
            price_id: corrected.rated.price_id(),
            window: corrected.window,
        };
        let (mut left, mut cancelled) = (refund, MicroTokens::ZERO);
        let take = |left: &mut MicroTokens, of: MicroTokens| {
            let part = of.min(*left);
            *left = left.checked_sub(part).unwrap_or_default();
            part
        };
        for line in std::iter::once(&corrected.charge_id).chain(*latest) {
            if left == MicroTokens::ZERO {
                break;
            }
            let standing = journal.standing(*line);
            for open in standing.open.iter().rev() {
                let part = take(&mut left, open.length());
                if part > MicroTokens::ZERO {
                    posting.cancel(cause, open.last(part));
                    cancelled = cancelled.checked_add(part).ok_or(CorrectionError::Overflow)?;
                }
            }
            for paid in standing.paid.iter().rev() {
                let part = take(&mut left, paid.amount);
                if part > MicroTokens::ZERO {
                    let index = posting.place_of(paid.lot_id);
                    let index = index.ok_or(CorrectionError::LotElsewhere(paid.lot_id))?;
                    let debt = paid.debt.map(|debt| debt.last(part));
                    posting.give_back(returned, index, cause, (part, paid.seq), debt);
                }
            }
        }
        (left == MicroTokens::ZERO).then_some(cancelled).ok_or(CorrectionError::MoreLines)
    }

    /// The transactions of the other teams.
    fn hand_over(&mut self, teams: &mut [Team], own: usize, gone: &Gone) -> Result<(), CorrectionError> {
        let mut homes = Vec::with_capacity(gone.len());
        for (lot_id, amount) in gone {
            let lives = |team: &Team| team.lots.iter().any(|lot| lot.lot_id == *lot_id && lot.is_here());
            let home = teams.iter().position(lives).ok_or(CorrectionError::LotElsewhere(*lot_id))?;
            homes.push((home, *lot_id, *amount));
        }
        if let Some(payer) = self.payer().filter(|_| self.charges.is_empty()) {
            let home = teams.iter().position(|team| team.balance.team_id == payer.team_id);
            home.ok_or(CorrectionError::TeamMissing(payer.team_id))?;
        }
        for (index, team) in teams.iter_mut().enumerate().filter(|(index, _)| *index != own) {
            let arriving: Vec<_> = homes.iter().filter(|(home, ..)| *home == index).collect();
            let pays = self.payer().is_some_and(|payer| payer.team_id == team.balance.team_id);
            if arriving.is_empty() && !pays {
                continue;
            }
            let mut plan = std::mem::take(&mut self.plan);
            let mut posting = Posting::new(team, &mut plan, self.settings);
            bring_forward(&mut posting, self.at, self.settled_until);
            posting.begin(self.at);
            let mut returned = Returned::default();
            // The last that was sent on is the last that had paid.
            for (_, lot_id, amount) in arriving.into_iter().rev() {
                if !can_issue(posting.team(), *amount) {
                    return Err(CorrectionError::Overflow);
                }
                let place = posting.place_of(*lot_id).ok_or(CorrectionError::LotElsewhere(*lot_id))?;
                posting.arrive(&mut returned, place, *amount);
            }
            self.recharge(&mut posting, &mut returned)?;
            posting.settle_returned(returned);
            posting.end();
            posting.finish();
            self.plan = plan;
        }
        Ok(())
    }

    fn payer(&self) -> Option<Payer> {
        match self.correction.recharge?.attribution {
            Attribution::Payer(payer) => Some(payer),
            Attribution::Nobody(_) => None,
        }
    }

    /// Charges what is to be charged instead, where this team is to pay it.
    fn recharge(
        &mut self,
        posting: &mut Posting<'_>,
        returned: &mut Returned,
    ) -> Result<(), CorrectionError> {
        let Some((line, payer)) = self.correction.recharge.zip(self.payer()) else { return Ok(()) };
        if payer.team_id != posting.team().balance.team_id {
            return Ok(());
        }
        let unfit = CorrectionError::RechargeUnfit;
        let quantity = line.quantity().ok_or_else(|| unfit(Unattributable::Overflow))?;
        let rating = self.rater.rate(line, &payer, quantity, line.window).map_err(unfit)?;
        let (rated, amount) = (rating.rated, rating.amount);
        if !posting.can_consume(amount) {
            return Err(unfit(Unattributable::Overflow));
        }
        let Some(new_charge_id) = self.new_charge_id.take() else { return Ok(()) };
        self.rater.keep(rating, line);
        let charge_id = new_charge_id();
        let cause =
            |price_id| Cause { charge_id: Some(charge_id), price_id: Some(price_id), window: line.window };
        let charged = match rated.price_id() {
            Some(price_id) => posting.charge_again(cause(price_id), amount, returned),
            None => posting.record(),
        };
        self.charges.push(Charge {
            charge_id,
            line: 0,
            team_id: payer.team_id,
            window: line.window,
            rated,
            quantity,
            amount,
            uncharged: charged.uncharged,
            journal_seq: charged.first_seq,
            posted_at: self.at,
        });
        Ok(())
    }
}

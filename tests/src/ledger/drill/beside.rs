//! Who holds tokens and who moves lots while everybody writes. What one of them finds taken, moved or spent by
//! another is rightly refused and counted; any other refusal ends the drill.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use drawdown_proto::{
    ledger::v1::{
        self, hold_service_server::HoldService as _, lot_service_server::LotService as _,
        token_service_server::TokenService as _,
    },
    scalar::timestamp_from_proto,
};
use drawdown_types::AppId;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::Part;
use crate::{
    ledger::{expected::Expected, fleet::FleetTeam},
    load::Bits,
};

/// How long a hold lasts at least, and how much longer it may, in minutes: some end by themselves, since a round of
/// all writers takes half an hour.
const HOLD_MINUTES: (i64, u64) = (20, 40);
/// Most micro-tokens of one hold.
const HOLD_MICROS_MAX: u64 = 400_000;

/// What holds and moves came to.
#[derive(Debug, Default)]
pub(super) struct BesideTally {
    held: AtomicU64,
    captured: AtomicU64,
    moved: AtomicU64,
    refused: AtomicU64,
}

impl BesideTally {
    /// Calls that were rightly refused: another writer was first.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn id() -> String {
    AppId::generate().to_string()
}

/// Counts a refusal for one of `reasons`.
fn counted<T>(outcome: Result<T, Status>, reasons: &[&str], tally: &AtomicU64) -> Result<Option<T>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(status) => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
            if reasons.contains(&reason.as_str()) {
                tally.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            Err(status).with_context(|| reason)
        }
    }
}

impl Part {
    /// Holds tokens, uses some of them at once, lets go of some, forgets others; gives what was used.
    pub(super) async fn hold(self: std::sync::Arc<Self>, seed: u64) -> Result<Expected> {
        let mut bits = Bits(seed);
        let mut expected = Expected::default();
        while self.goes_on() {
            let place = self.team(&mut bits);
            let team = &self.fleet.teams[place];
            let Some(hold) = self.reserve(team, &mut bits).await? else { continue };
            match bits.draw() >> 62 {
                0 => {}
                1 => {
                    let request = v1::ReleaseHoldRequest {
                        team_id: team.id().to_owned(),
                        hold_id: hold.hold_id,
                        request_id: id(),
                    };
                    let released = self.handlers.holds.release_hold(Request::new(request)).await;
                    counted(released, &["HOLD_OVER"], &self.beside.refused)?;
                }
                _ => self.capture(place, &hold, &mut bits, &mut expected).await?,
            }
        }
        Ok(expected)
    }

    async fn reserve(&self, team: &FleetTeam, bits: &mut Bits) -> Result<Option<v1::Hold>> {
        let drawn = bits.draw();
        let minutes = HOLD_MINUTES.0 + i64::try_from((drawn >> 32) % HOLD_MINUTES.1)?;
        let request = v1::ReserveTokensRequest {
            account_id: team.account_id().to_owned(),
            team_id: team.id().to_owned(),
            app_id: String::new(),
            micros: i64::try_from(1 + drawn % HOLD_MICROS_MAX)?,
            at_least_micros: 1,
            lasts_ms: minutes * 60_000,
            note: String::new(),
            request_id: id(),
        };
        let answer = self.handlers.holds.reserve_tokens(Request::new(request)).await;
        let Some(answer) = counted(answer, &["HOLD_INSUFFICIENT"], &self.beside.refused)? else {
            tokio::task::yield_now().await;
            return Ok(None);
        };
        self.beside.held.fetch_add(1, Ordering::Relaxed);
        Ok(Some(answer.into_inner().hold.context("no hold")?))
    }

    async fn capture(
        &self,
        place: usize,
        hold: &v1::Hold,
        bits: &mut Bits,
        expected: &mut Expected,
    ) -> Result<()> {
        let (team, meter) = (&self.fleet.teams[place], place % crate::ledger::fleet::METERS);
        let drawn = bits.draw();
        let quantity = i64::try_from(1 + drawn % 1024)?;
        let (app_id, client_id) = team.app(0);
        let request = v1::CaptureHoldRequest {
            team_id: hold.team_id.clone(),
            hold_id: hold.hold_id.clone(),
            app_id: app_id.to_owned(),
            client_id: client_id.to_owned(),
            meter: crate::ledger::fleet::slug(meter),
            quantity,
            failed: false,
            last: drawn >> 63 == 1,
            request_id: id(),
        };
        self.handlers.holds.capture_hold(Request::new(request)).await.context("capture")?;
        let window = timestamp_from_proto(hold.window_start.as_ref().context("no window")?)?;
        expected.add(place, meter, window, 1, quantity);
        self.beside.captured.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Moves one lot after the other to another team of its account.
    pub(super) async fn transfer(self: std::sync::Arc<Self>, seed: u64) -> Result<()> {
        let mut bits = Bits(seed);
        while self.goes_on() {
            let drawn = bits.draw();
            let from = usize::try_from(drawn >> 33)? % self.fleet.teams.len();
            let from = &self.fleet.teams[from];
            let others = |team: &&FleetTeam| team.account == from.account && team.team != from.team;
            let others: Vec<_> = self.fleet.teams.iter().filter(others).collect();
            let to = others[usize::try_from(drawn % 97)? % others.len()];
            let request =
                v1::ListLotsRequest { team_id: from.id().to_owned(), ..v1::ListLotsRequest::default() };
            let lots = self.handlers.tokens.list_lots(Request::new(request)).await.context("lots")?;
            let left = |lot: &v1::Lot| {
                lot.remaining_micros > 0 && lot.held_micros == 0 && lot.state() == v1::LotState::Open
            };
            let Some(lot) = lots.into_inner().lots.into_iter().rev().find(left) else {
                tokio::task::yield_now().await;
                continue;
            };
            let request = v1::MoveLotRequest {
                account_id: from.account_id().to_owned(),
                lot_id: lot.lot_id,
                from_team_id: from.id().to_owned(),
                to_team_id: to.id().to_owned(),
                reason: "drill".to_owned(),
                request_id: id(),
            };
            let moved = self.handlers.lots.move_lot(Request::new(request)).await;
            let taken = ["LOT_UNKNOWN", "LOT_NOT_OPEN", "LOT_EMPTY", "LOT_HELD"];
            if counted(moved, &taken, &self.beside.refused)?.is_some() {
                self.beside.moved.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

//! `StandingService`.
//!
//! A stream is pulled, as that of notices: it looks for changes when the last ones were taken, so a slow reader holds
//! nothing here but a snapshot's name and the ids of teams it has still to be told. Changes of one team in between are
//! one state. It looks at an interval: nothing wakes it, so a posting does nothing for it, and commits of other
//! processes are seen as those of this one.

use std::{pin::Pin, sync::Arc};

use drawdown_proto::{
    ledger::v1::{
        ListStandingsRequest, ListStandingsResponse, WatchStandingsRequest, WatchStandingsResponse,
        standing_service_server::StandingService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal, Violations, page, refusal};
use drawdown_types::{TeamId, Timestamp};
use futures::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{decode::parsed, encode_report, encode_standing, status};
use crate::{
    config::FeedConfig,
    error::Error,
    reason,
    service::Ledger,
    store::{
        standings::{Look, snapshot_before},
        watermarks::Watermarks,
    },
};

const PAGE_ROWS_DEFAULT: u32 = 1000;
const CURSOR: &str = "cursor";
/// The name of the feed in a cursor's seal.
const FEED: &str = "standings";

/// Where a reader goes on: origin, the transaction before which it has seen everything, the version of the catalogue.
type Place = (String, i64, i64);

/// `StandingService` over a ledger.
#[derive(Clone)]
pub struct Standings {
    ledger: Arc<Ledger>,
    config: FeedConfig,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A stream between two messages.
struct Watching {
    ledger: Arc<Ledger>,
    config: FeedConfig,
    /// What the reader has seen when it has dealt with everything sent.
    place: Place,
    /// The snapshot of the last look.
    snapshot: String,
    /// Of the last look: what is to be told, and how far the reader is then.
    pending: Vec<TeamId>,
    look: Option<(Look, Timestamp)>,
    /// The catalogue as the reader has it.
    catalogue: i64,
    /// Nothing was sent yet.
    first: bool,
    told_at: Instant,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

type Messages = Pin<Box<dyn Stream<Item = Result<WatchStandingsResponse, Status>> + Send>>;

fn place(look: &Look) -> Place {
    (look.origin.clone(), look.oldest, look.catalogue)
}

/// The place in a cursor; `None` for the empty one.
fn open(cursor: &str) -> Result<Option<Place>, Refusal> {
    page::decode(FEED, cursor).map_err(|refusal| {
        Refusal::new(refusal.code, refusal.reason, refusal.message)
            .violation(CURSOR, "must be a cursor of an answer before, or empty")
    })
}

/// Refuses a place from which nobody can go on: another server's, or one behind which something was removed.
fn check(look: &Look, origin: &str, oldest: i64) -> Result<(), Refusal> {
    if look.origin != origin {
        let why = "the cursor does not belong here: begin without one";
        return Err(Refusal::new(Code::InvalidArgument, reason::CURSOR_FOREIGN, why)
            .violation(CURSOR, "was given out by another server, or before this one was restored or reset"));
    }
    if oldest <= look.removed {
        return Err(behind("it is not kept any more which teams changed since"));
    }
    Ok(())
}

fn behind(why: &str) -> Refusal {
    Refusal::new(
        Code::FailedPrecondition,
        reason::CURSOR_EXPIRED,
        "the reader is too far behind: begin without a cursor",
    )
    .violation(CURSOR, why)
}

/// The oldest transaction that a snapshot may not have seen.
fn oldest_of(snapshot: &str) -> i64 {
    snapshot.split(':').next().and_then(|oldest| oldest.parse().ok()).unwrap_or_default()
}

// === impl Standings ===

impl Standings {
    /// Serves this ledger; streams end when `stop` is cancelled.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, config: FeedConfig, stop: CancellationToken) -> Self {
        Self { ledger, config, streams: Arc::new(Semaphore::new(config.streams_max)), stop }
    }

    async fn list(&self, request: &ListStandingsRequest) -> Result<ListStandingsResponse, Error> {
        let named = self.named(&request.team_ids)?;
        let as_of = self.ledger.clock.now();
        let look = self.ledger.look_at_feed(None, 0).await?;
        // The list's begin and the last team of the page before.
        let before: Option<(Place, TeamId)> = page::decode(FEED, &request.page_token)?;
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.ledger.limits.page_rows_max);
        let (begin, after) = match before {
            Some((begin, after)) => {
                check(&look, &begin.0, begin.1)?;
                (begin, Some(after))
            }
            None => (place(&look), None),
        };
        let all = named.is_empty();
        let ids = if all { self.ledger.next_teams(after, rows).await? } else { named };
        let standings = self.ledger.standings(&ids, as_of).await?;
        let full = all && u32::try_from(ids.len()).unwrap_or(u32::MAX) >= rows;
        let next = ids.last().filter(|_| full);
        let first = after.is_none();
        let meters = if first { Some(self.ledger.meter_standings().await?) } else { None };
        Ok(ListStandingsResponse {
            teams: standings.teams.iter().map(|team| encode_standing::team(&self.ledger, team)).collect(),
            accounts: standings.accounts.iter().map(encode_standing::account).collect(),
            meters: meters.map(|meters| encode_standing::meters(&meters, as_of)),
            rules: first.then(|| encode_standing::rules(&self.ledger)),
            next_page_token: next.map(|next| page::encode(FEED, &(&begin, next))).unwrap_or_default(),
            cursor: page::encode(FEED, &begin),
            as_of: Some(timestamp_to_proto(as_of)),
            completeness: Some(encode_report::completeness(&self.ledger.reach(
                as_of,
                look.newest_window,
                Watermarks::default(),
            ))),
            cell: self.ledger.cells.number.into(),
        })
    }

    /// Teams by name, each once.
    fn named(&self, ids: &[String]) -> Result<Vec<TeamId>, Error> {
        let mut v = Violations::new();
        let max = usize::try_from(self.ledger.limits.page_rows_max).unwrap_or(usize::MAX);
        if ids.len() > max {
            v.push("team_ids", format!("are {}, at most {max}", ids.len()));
        }
        let ids = ids.iter().enumerate().take(max);
        let ids: Vec<_> = ids.map(|(index, id)| parsed(&mut v, &format!("team_ids[{index}]"), id)).collect();
        let mut ids: Vec<TeamId> = v.finish(reason::REQUEST_INVALID, ids.into_iter().collect())?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn watch(&self, request: &WatchStandingsRequest) -> Result<Messages, Error> {
        let full = || {
            Refusal::new(
                Code::ResourceExhausted,
                reason::STREAMS_EXHAUSTED,
                "this instance has as many streams as it takes",
            )
            .retry_after(refusal::RETRY_AFTER_DEFAULT)
        };
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| full())?;
        let look = self.ledger.look_at_feed(None, 0).await?;
        let (place, snapshot) = match open(&request.cursor)? {
            Some(place) => {
                check(&look, &place.0, place.1)?;
                let snapshot = snapshot_before(place.1);
                (place, snapshot)
            }
            None => (place(&look), look.snapshot),
        };
        let watching = Watching {
            ledger: Arc::clone(&self.ledger),
            config: self.config,
            catalogue: place.2,
            place,
            snapshot,
            pending: Vec::new(),
            look: None,
            first: true,
            told_at: Instant::now(),
            stop: self.stop.clone(),
            _permit: permit,
        };
        let messages = futures::stream::try_unfold(watching, |mut watching| async move {
            let message = watching.next().await;
            let message = message.map_err(|error| status::of(error, &watching.ledger.metrics))?;
            Ok(message.map(|message| (message, watching)))
        });
        Ok(Box::pin(messages))
    }
}

// === impl Watching ===

impl Watching {
    /// The next message; `None` where the service stops.
    async fn next(&mut self) -> Result<Option<WatchStandingsResponse>, Error> {
        loop {
            let fresh = self.look.is_none();
            if fresh {
                self.look().await?;
            }
            let catalogue = self.look.as_ref().map_or(self.catalogue, |(look, _)| look.catalogue);
            let silent = self.told_at.elapsed() >= self.config.heartbeat;
            if !self.pending.is_empty() || catalogue != self.catalogue || self.first || silent {
                return self.message(catalogue).await.map(Some);
            }
            self.look = None;
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(self.config.poll_interval) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        // Before the look: everything that was committed by then is seen by it.
        let as_of = self.ledger.clock.now();
        let max = self.config.behind_teams_max;
        let mut look = self.ledger.look_at_feed(Some(&self.snapshot), max.saturating_add(1)).await?;
        check(&look, &self.place.0, oldest_of(&self.snapshot))?;
        if look.teams.len() > max {
            return Err(behind(&format!("more than {max} teams changed since")).into());
        }
        self.snapshot.clone_from(&look.snapshot);
        self.pending = std::mem::take(&mut look.teams);
        self.look = Some((look, as_of));
        Ok(())
    }

    /// Tells the next of what is pending. Only with the last of it the reader is where the look was.
    async fn message(&mut self, catalogue: i64) -> Result<WatchStandingsResponse, Error> {
        let rest = self.pending.len().saturating_sub(self.config.message_teams_max);
        let told = self.pending.split_off(rest);
        let now = self.ledger.clock.now();
        let standings = self.ledger.standings(&told, now).await?;
        let mut response = WatchStandingsResponse {
            teams: standings.teams.iter().map(|team| encode_standing::team(&self.ledger, team)).collect(),
            accounts: standings.accounts.iter().map(encode_standing::account).collect(),
            rules: self.first.then(|| encode_standing::rules(&self.ledger)),
            cell: self.ledger.cells.number.into(),
            ..WatchStandingsResponse::default()
        };
        if catalogue != self.catalogue {
            let meters = self.ledger.meter_standings().await?;
            self.catalogue = meters.version;
            response.meters = Some(encode_standing::meters(&meters, now));
        }
        if self.pending.is_empty()
            && let Some((look, as_of)) = self.look.take()
        {
            self.place = place(&look);
            let reach = self.ledger.reach(as_of, look.newest_window, Watermarks::default());
            response.completeness = Some(encode_report::completeness(&reach));
            response.as_of = Some(timestamp_to_proto(as_of));
        }
        response.cursor = page::encode(FEED, &self.place);
        self.first = false;
        self.told_at = Instant::now();
        Ok(response)
    }
}

#[tonic::async_trait]
impl StandingService for Standings {
    type WatchStandingsStream = Messages;

    async fn list_standings(
        &self,
        request: Request<ListStandingsRequest>,
    ) -> Result<Response<ListStandingsResponse>, Status> {
        let listed = self.list(request.get_ref()).await;
        listed.map(Response::new).map_err(|error| status::of(error, &self.ledger.metrics))
    }

    async fn watch_standings(
        &self,
        request: Request<WatchStandingsRequest>,
    ) -> Result<Response<Self::WatchStandingsStream>, Status> {
        let watched = self.watch(request.get_ref()).await;
        watched.map(Response::new).map_err(|error| status::of(error, &self.ledger.metrics))
    }
}

//! `NoticeService`.
//!
//! A stream is pulled: it reads its next notices when the last ones were taken, so a slow reader holds nothing
//! here but a place in the order. It wakes when the relay of this process saw the order move.

use std::{pin::Pin, sync::Arc};

use drawdown_proto::ledger::v1::{
    ListNoticesRequest, ListNoticesResponse, NoticeFilter, WatchNoticesRequest, WatchNoticesResponse,
    notice_service_server::NoticeService,
};
use drawdown_service::{Code, Refusal, page, refusal};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{decode_notice, encode_notice, status};
use crate::{
    config::WatchConfig,
    cursor,
    error::Error,
    reason,
    service::Ledger,
    store::outbox::{self, Choice, Head},
};

const PAGE_ROWS_DEFAULT: u32 = 1000;
const CURSOR: &str = "cursor";

/// `NoticeService` over a ledger.
#[derive(Clone)]
pub struct Notices {
    ledger: Arc<Ledger>,
    config: WatchConfig,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A stream between two messages.
struct Watching {
    ledger: Arc<Ledger>,
    config: WatchConfig,
    choice: Choice,
    position: i64,
    heads: watch::Receiver<Option<Head>>,
    /// Somebody has not heard of the cursor for a while, or never.
    silent: bool,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

type Messages = Pin<Box<dyn Stream<Item = Result<WatchNoticesResponse, Status>> + Send>>;

impl Notices {
    /// Serves this ledger; streams end when `stop` is cancelled.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, config: WatchConfig, stop: CancellationToken) -> Self {
        Self { ledger, config, streams: Arc::new(Semaphore::new(config.streams_max)), stop }
    }

    /// Which notices; a team brings its account along, by which they are found.
    async fn choice(&self, filter: Option<&NoticeFilter>) -> Result<Choice, Error> {
        let mut choice = decode_notice::choice(filter)?;
        if let Some(team) = choice.team {
            let account = self.ledger.account_of(team).await?;
            if choice.account.is_some_and(|named| named != account) {
                let why = "the team belongs to another account";
                return Err(Refusal::new(Code::FailedPrecondition, reason::TEAM_NOT_OF_ACCOUNT, why)
                    .violation("filter.team_id", why)
                    .into());
            }
            choice.account = Some(account);
        }
        Ok(choice)
    }

    async fn list(&self, request: &ListNoticesRequest) -> Result<ListNoticesResponse, Error> {
        let choice = self.choice(request.filter.as_ref()).await?;
        let head = outbox::head(&mut *self.ledger.pool.read().await?).await?;
        let after = cursor::open("page_token", &request.page_token, &head, &choice)?.unwrap_or(head.removed);
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.ledger.limits.page_rows_max);
        let mut reader = self.ledger.pool.read_of(choice.account).await?;
        let read = outbox::read(&mut reader, &choice, after, head.position, rows.into()).await?;
        let more = u32::try_from(read.len()).unwrap_or(u32::MAX) >= rows;
        let behind = if more { read.last().map_or(after, |last| last.position) } else { head.position };
        let cursor = cursor::seal(&head, &choice, behind);
        let next_page_token = if more { cursor.clone() } else { String::new() };
        let notices = read.iter().map(encode_notice::notice).collect();
        Ok(ListNoticesResponse { notices, next_page_token, cursor })
    }

    async fn watch(&self, request: &WatchNoticesRequest) -> Result<Messages, Error> {
        let full = || {
            Refusal::new(
                Code::ResourceExhausted,
                reason::STREAMS_EXHAUSTED,
                "this instance has as many streams as it takes",
            )
            .retry_after(refusal::RETRY_AFTER_DEFAULT)
        };
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| full())?;
        let choice = self.choice(request.filter.as_ref()).await?;
        let heads = self.ledger.head.subscribe();
        let head = outbox::head(&mut *self.ledger.pool.read().await?).await?;
        let begin = if request.new_only { head.position } else { head.removed };
        let position = cursor::open(CURSOR, &request.cursor, &head, &choice)?.unwrap_or(begin);
        let watching = Watching {
            ledger: Arc::clone(&self.ledger),
            config: self.config,
            choice,
            position,
            heads,
            silent: true,
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
    async fn next(&mut self) -> Result<Option<WatchNoticesResponse>, Error> {
        loop {
            // Before the read: what happens after it wakes the wait below.
            self.heads.mark_unchanged();
            let head = outbox::head(&mut *self.ledger.pool.read().await?).await?;
            cursor::check_kept(CURSOR, &head, self.position)?;
            let rows = i64::from(self.config.rows_max);
            let read = if head.position > self.position {
                let mut reader = self.ledger.pool.read_of(self.choice.account).await?;
                outbox::read(&mut reader, &self.choice, self.position, head.position, rows).await?
            } else {
                Vec::new()
            };
            let full = i64::try_from(read.len()).unwrap_or(i64::MAX) >= rows;
            let last = read.last().map(|last| last.position).filter(|_| full);
            self.position = last.unwrap_or(head.position);
            if !read.is_empty() || self.silent {
                self.silent = false;
                let notices = read.iter().map(encode_notice::notice).collect();
                let cursor = cursor::seal(&head, &self.choice, self.position);
                return Ok(Some(WatchNoticesResponse { notices, cursor }));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                changed = self.heads.changed() => if changed.is_err() { return Ok(None) },
                () = tokio::time::sleep(self.config.heartbeat) => self.silent = true,
            }
        }
    }
}

#[tonic::async_trait]
impl NoticeService for Notices {
    type WatchNoticesStream = Messages;

    async fn watch_notices(
        &self,
        request: Request<WatchNoticesRequest>,
    ) -> Result<Response<Self::WatchNoticesStream>, Status> {
        let watched = self.watch(request.get_ref()).await;
        watched.map(Response::new).map_err(|error| status::of(error, &self.ledger.metrics))
    }

    async fn list_notices(
        &self,
        request: Request<ListNoticesRequest>,
    ) -> Result<Response<ListNoticesResponse>, Status> {
        let listed = self.list(request.get_ref()).await;
        listed.map(Response::new).map_err(|error| status::of(error, &self.ledger.metrics))
    }
}

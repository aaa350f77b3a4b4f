//! `ReportService`. A stream is a task that reads the next part when there is room for it: a slow reader
//! holds a few parts in memory and no connection of the database.

use std::sync::Arc;

use drawdown_proto::ledger::v1::{
    ExportUsageRequest, ExportUsageResponse, GetForecastRequest, GetForecastResponse, GetStatementRequest,
    GetStatementResponse, IssueStatementsRequest, IssueStatementsResponse, ListStatementsRequest,
    ListStatementsResponse, StreamChargesRequest, StreamChargesResponse, StreamJournalRequest,
    StreamJournalResponse, SummarizeUsageRequest, SummarizeUsageResponse,
    report_service_server::ReportService,
};
use drawdown_service::page;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{decode_report, encode, encode_report, export, statement, status};
use crate::{
    error::Error,
    reports::{ChargeCursor, ChargeQuestion, JournalCursor, JournalQuestion},
    service::Ledger,
};

const PAGE_ROWS_DEFAULT: u32 = 1000;

/// `ReportService` over a ledger.
#[derive(Clone)]
pub struct Reports(Arc<Ledger>);

/// A message, and where the next one begins.
type Part<M, C> = Result<(M, Option<C>), Error>;

impl Reports {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn summarize(&self, request: &SummarizeUsageRequest) -> Result<SummarizeUsageResponse, Error> {
        let (scope, filter, by) = decode_report::summary(request)?;
        let summary = self.0.summarize(scope, &filter, &by).await?;
        encode_report::summary(&summary, &by)
    }

    async fn charges_message(
        &self,
        asked: &ChargeQuestion,
        at: ChargeCursor,
    ) -> Part<StreamChargesResponse, ChargeCursor> {
        let rows = self.0.limits.reports.stream_rows.into();
        let completeness = Some(encode_report::completeness(&self.0.charges_reach(&at)));
        let part = self.0.charges_part(asked, at, rows).await?;
        let charges = encode_report::charges(asked.of.team, part.charges)?;
        Ok((StreamChargesResponse { charges, completeness }, part.next))
    }

    async fn journal_message(
        &self,
        asked: &JournalQuestion,
        at: JournalCursor,
    ) -> Part<StreamJournalResponse, JournalCursor> {
        let rows = self.0.limits.reports.stream_rows.into();
        let completeness = Some(encode_report::completeness(&self.0.journal_reach(&at)));
        let (read, next) = self.0.journal_part(asked, at, rows).await?;
        let rows = read.into_iter().map(|row| encode::journal_row(asked.of.team, row)).collect();
        Ok((StreamJournalResponse { rows, completeness }, next))
    }

    /// A stream of the parts that `part` reads one after the other, from `begin` until there is no next one,
    /// a failure, or a reader that has gone.
    fn stream<M, C, F>(&self, begin: C, part: F) -> ReceiverStream<Result<M, Status>>
    where
        M: Send + 'static,
        C: Send + 'static,
        F: for<'a> Fn(&'a Self, C) -> BoxFuture<'a, Part<M, C>> + Send + Sync + 'static,
    {
        let (messages, receiver) = mpsc::channel(self.0.limits.reports.stream_messages_max);
        let service = self.clone();
        tokio::spawn(async move {
            let mut cursor = Some(begin);
            while let Some(at) = cursor {
                // Reserved first, so that nothing is read before there is room for it.
                let Ok(room) = messages.reserve().await else { return };
                match part(&service, at).await {
                    Ok((message, next)) => {
                        room.send(Ok(message));
                        cursor = next;
                    }
                    Err(error) => {
                        room.send(Err(status::of(error, &service.0.metrics)));
                        return;
                    }
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

#[tonic::async_trait]
impl ReportService for Reports {
    type ExportUsageStream = ReceiverStream<Result<ExportUsageResponse, Status>>;
    type StreamChargesStream = ReceiverStream<Result<StreamChargesResponse, Status>>;
    type StreamJournalStream = ReceiverStream<Result<StreamJournalResponse, Status>>;

    async fn summarize_usage(
        &self,
        request: Request<SummarizeUsageRequest>,
    ) -> Result<Response<SummarizeUsageResponse>, Status> {
        self.summarize(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn issue_statements(
        &self,
        request: Request<IssueStatementsRequest>,
    ) -> Result<Response<IssueStatementsResponse>, Status> {
        statement::issue(&self.0, request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn get_statement(
        &self,
        request: Request<GetStatementRequest>,
    ) -> Result<Response<GetStatementResponse>, Status> {
        statement::get(&self.0, request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_statements(
        &self,
        request: Request<ListStatementsRequest>,
    ) -> Result<Response<ListStatementsResponse>, Status> {
        let request = request.get_ref();
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max).into();
        statement::list(&self.0, request, rows).await.map(Response::new).map_err(self.failed())
    }

    async fn get_forecast(
        &self,
        request: Request<GetForecastRequest>,
    ) -> Result<Response<GetForecastResponse>, Status> {
        let read = async {
            let (account, team, rate) = decode_report::forecast(request.get_ref())?;
            let found = self.0.forecast(account, team, rate).await?;
            Ok(encode_report::forecast(team, &found))
        };
        read.await.map(Response::new).map_err(self.failed())
    }

    async fn stream_charges(
        &self,
        request: Request<StreamChargesRequest>,
    ) -> Result<Response<Self::StreamChargesStream>, Status> {
        let begin = async {
            let asked = decode_report::charge_stream(request.get_ref())?;
            let begin = self.0.charges_begin(&asked).await?;
            Ok((asked, begin))
        };
        let (asked, begin) = begin.await.map_err(self.failed())?;
        let asked = Arc::new(asked);
        let stream = self.stream(begin, move |service: &Self, at| {
            let (service, asked) = (service.clone(), Arc::clone(&asked));
            async move { service.charges_message(&asked, at).await }.boxed()
        });
        Ok(Response::new(stream))
    }

    async fn export_usage(
        &self,
        request: Request<ExportUsageRequest>,
    ) -> Result<Response<Self::ExportUsageStream>, Status> {
        let begin = async {
            let asked = decode_report::export(request.get_ref())?;
            if let Some(team) = asked.whose.team_id {
                self.0.check_team_of(team, asked.whose.account_id).await?;
            }
            Ok((asked, self.0.begin_export()?))
        };
        let (asked, place) = begin.await.map_err(self.failed())?;
        let (parts, receiver) = mpsc::channel(self.0.limits.reports.stream_messages_max);
        let ledger = Arc::clone(&self.0);
        tokio::spawn(async move { export::send(&ledger, asked, parts, place).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn stream_journal(
        &self,
        request: Request<StreamJournalRequest>,
    ) -> Result<Response<Self::StreamJournalStream>, Status> {
        let begin = async {
            let asked = decode_report::journal_stream(request.get_ref())?;
            let begin = self.0.journal_begin(&asked).await?;
            Ok((asked, begin))
        };
        let (asked, begin) = begin.await.map_err(self.failed())?;
        let asked = Arc::new(asked);
        let stream = self.stream(begin, move |service: &Self, at| {
            let (service, asked) = (service.clone(), Arc::clone(&asked));
            async move { service.journal_message(&asked, at).await }.boxed()
        });
        Ok(Response::new(stream))
    }
}

//! An export as a stream of parts; the last message says what went into the file.

use drawdown_proto::ledger::v1::{ExportSummary, ExportUsageResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use super::{encode_report, status};
use crate::{
    error::Error,
    reports::{ExportQuestion, Exported, Taker},
    service::Ledger,
};

pub(super) type Parts = mpsc::Sender<Result<ExportUsageResponse, Status>>;

/// Sends parts, the first with the content type.
struct Sender<'a> {
    parts: &'a Parts,
    content_type: &'static str,
}

impl Taker for Sender<'_> {
    async fn take(&mut self, part: Vec<u8>) -> bool {
        let content_type = std::mem::take(&mut self.content_type).to_owned();
        self.parts.send(Ok(ExportUsageResponse { part, summary: None, content_type })).await.is_ok()
    }
}

fn summary(exported: &Exported) -> Result<ExportSummary, Error> {
    Ok(ExportSummary {
        lines: exported.sums.lines,
        sums: Some(encode_report::export_sums(&exported.sums)?),
        completeness: Some(encode_report::completeness(&exported.reach)),
        size_bytes: exported.size_bytes,
        sha256: exported.sha256.to_vec(),
    })
}

/// Sends a file and its summary. Whoever waits for the summary knows that the file is whole.
pub(super) async fn send(ledger: &Ledger, asked: ExportQuestion, parts: Parts, _place: OwnedSemaphorePermit) {
    let mut sender = Sender { parts: &parts, content_type: asked.format.content_type() };
    let exported = async {
        let exported = ledger.export(asked, &mut sender).await?;
        exported.as_ref().map(summary).transpose()
    };
    let limit = ledger.limits.reports.export_timeout;
    let last = match tokio::time::timeout(limit, exported).await {
        Ok(Ok(Some(summary))) => {
            Ok(ExportUsageResponse { summary: Some(summary), ..ExportUsageResponse::default() })
        }
        Ok(Err(error)) => Err(status::of(error, &ledger.metrics)),
        // The reader has gone, or does not take what is there: its stream ends without a summary.
        Ok(Ok(None)) | Err(_) => return,
    };
    // A reader that has gone needs no end.
    let _ = parts.send(last).await;
}

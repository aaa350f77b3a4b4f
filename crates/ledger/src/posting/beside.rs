//! A statement under way while this side works: the server writes charges for as long as it takes to make what follows.

use sqlx::{Postgres, Transaction};
use tracing::Instrument as _;

use crate::{error::Error, store::write::Statement};

/// Sends a statement by a task of its own, since all of it has to be sent before the server begins, does `work`, and waits
/// for the statement. Who stops waiting gives the transaction up: it is taken back when the statement has ended.
pub(super) async fn beside<T, W>(
    mut tx: Transaction<'static, Postgres>,
    statement: Statement<T>,
    work: impl FnOnce() -> W,
) -> Result<(Transaction<'static, Postgres>, T, W), Error>
where
    T: Send + 'static,
{
    let sending = async move {
        let answer = statement.run_in_tx(&mut tx).await?;
        Ok::<_, Error>((tx, answer))
    };
    let sent = tokio::spawn(sending.in_current_span());
    let done = work();
    let (tx, answer) = sent.await.map_err(|error| Error::Broken(error.to_string()))??;
    Ok((tx, answer, done))
}

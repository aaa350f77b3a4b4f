//! What all handlers do alike: an act from its message to its answer, and lists a page at a time.

use drawdown_service::{Refusal, page};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status};

use super::decode::Keyed;
use crate::acts::{Act, Acts};

/// What a call comes to.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// Decodes an act and runs it to its end.
pub(crate) async fn act<Q: Send, A: Act>(
    acts: &Acts,
    request: Request<Q>,
    decode: fn(&Q) -> Result<Keyed<A>, Refusal>,
) -> Answer<A::Reply> {
    let (act, key) = decode(request.get_ref())?;
    Ok(Response::new(acts.run(&act, &key).await?))
}

/// One page of a list, named so that a token of another list does not fit.
pub(crate) struct Page {
    list: String,
    rows: usize,
}

impl Page {
    pub(crate) fn new(acts: &Acts, list: String, page_size: u32) -> Self {
        let rows_max = acts.limits.page_rows_max;
        let rows = page::size(page_size, rows_max, rows_max);
        Self { list, rows: usize::try_from(rows).unwrap_or(usize::MAX) }
    }

    /// How many rows to read: one more than the page has, which tells whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// Behind which row to begin; `first` where the caller has no token.
    pub(crate) fn after<C: DeserializeOwned>(&self, page_token: &str, first: C) -> Result<C, Refusal> {
        Ok(page::decode(&self.list, page_token)?.unwrap_or(first))
    }

    /// A page that was read one row too far: without that row, and with the token of the next page.
    pub(crate) fn cut<R, C: Serialize>(
        &self,
        mut rows: Vec<R>,
        cursor: impl FnOnce(&R) -> C,
    ) -> (Vec<R>, String) {
        if rows.len() <= self.rows {
            return (rows, String::new());
        }
        rows.truncate(self.rows);
        let token = rows.last().map(|last| page::encode(&self.list, &cursor(last))).unwrap_or_default();
        (rows, token)
    }
}

//! Which batches are settled in a state of the database: with them an answer names what is in it.
//!
//! A batch moves its shard's number in the transaction that writes its charges. So in one snapshot the numbers and the
//! books belong together; read a statement later, the numbers could name a batch that the answer does not have.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::error::Error;

/// The last settled batch of each shard that has one, by shard. Page tokens carry it, so it is written short: shards
/// that follow each other by the first one, batches in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Watermarks(pub Vec<(i32, i64)>);

/// What is written is not the numbers of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the batches of shards")]
pub struct NotWatermarks;

impl From<Watermarks> for String {
    fn from(Watermarks(shards): Watermarks) -> Self {
        let mut text = Self::new();
        let mut next = None;
        for (shard, batch) in shards {
            let written = match next {
                Some(next) if next == shard => write!(text, ",{batch:x}"),
                Some(_) => write!(text, ";{shard}:{batch:x}"),
                None => write!(text, "{shard}:{batch:x}"),
            };
            // A text takes whatever is written to it.
            written.unwrap_or_default();
            next = shard.checked_add(1);
        }
        text
    }
}

impl TryFrom<String> for Watermarks {
    type Error = NotWatermarks;

    fn try_from(text: String) -> Result<Self, NotWatermarks> {
        let mut shards = Vec::new();
        for run in text.split(';').filter(|run| !run.is_empty()) {
            let (first, batches) = run.split_once(':').ok_or(NotWatermarks)?;
            let mut shard: i32 = first.parse().map_err(|_| NotWatermarks)?;
            for batch in batches.split(',') {
                shards.push((shard, i64::from_str_radix(batch, 16).map_err(|_| NotWatermarks)?));
                shard = shard.checked_add(1).ok_or(NotWatermarks)?;
            }
        }
        Ok(Self(shards))
    }
}

/// What is settled in the snapshot of the transaction, also where it is a tenant's.
pub async fn read_in_tx(tx: &mut PgConnection) -> Result<Watermarks, Error> {
    let rows = sqlx::query!(
        r#"select shard as "shard!", batch as "batch!" from ledger.settled_batches() order by shard"#,
    )
    .fetch_all(tx)
    .await?;
    Ok(Watermarks(rows.into_iter().map(|row| (row.shard, row.batch)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let check = |shards: &[(i32, i64)], text: &str| {
            let watermarks = Watermarks(shards.to_vec());
            assert_eq!(String::from(watermarks.clone()), text);
            assert_eq!(Watermarks::try_from(text.to_owned()), Ok(watermarks));
        };
        check(&[], "");
        check(&[(0, 1), (1, 255), (3, 16), (65_536, i64::MAX)], "0:1,ff;3:10;65536:7fffffffffffffff");
        check(&[(i32::MAX - 1, 7)], "2147483646:7");
        for wrong in ["1", "a:1", "0:", "0:1,,2", "0:g", "2147483647:1,2"] {
            assert_eq!(Watermarks::try_from(wrong.to_owned()), Err(NotWatermarks), "{wrong}");
        }
    }

    #[test]
    fn a_page_token_carries_those_of_as_many_shards_as_there_may_be() {
        let all = Watermarks((0..1024).map(|shard| (shard, 1 << 40)).collect());
        let token = drawdown_service::page::encode("charges", &all);
        assert_eq!(drawdown_service::page::decode("charges", &token).unwrap(), Some(all));
    }
}

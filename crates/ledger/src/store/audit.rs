//! The audit log: who did what, and what was there before and after. A line is written in the transaction of
//! its act, so there is none of an act that was taken back.

use drawdown_service::identity;
use drawdown_types::Timestamp;
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// An act of the caller in hand.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was done.
    pub action: &'static str,
    /// The id of what it was done to.
    pub subject: String,
    /// What else is to be known of it: an object.
    pub detail: serde_json::Value,
    /// What it changed, as it was; none where nothing was there.
    pub before: Option<serde_json::Value>,
    /// The same, and what is new, as it is now.
    pub after: serde_json::Value,
}

/// Which lines are asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it was done to; empty for everything.
    pub subject: String,
    /// At or after this instant.
    pub from: Timestamp,
    /// Before this one.
    pub to: Timestamp,
    /// The last line of the page before.
    pub after: i64,
}

/// A line as it is kept: its parts are JSON objects.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its place.
    pub entry: i64,
    /// When.
    pub at: Timestamp,
    /// Who called, as far as it was proven.
    pub caller: String,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// As it was; none where nothing was there.
    pub before: Option<String>,
    /// As it is since.
    pub after: Option<String>,
    /// What else is to be known of it.
    pub detail: String,
}

/// At most `rows` lines, oldest first.
pub async fn read(at: &mut PgConnection, asked: &Asked, rows: i64) -> Result<Vec<Read>, Error> {
    let rows = sqlx::query!(
        r#"select entry, at, caller, action, subject, (detail -> 'before')::text as before,
                  (detail -> 'after')::text as after, (detail - 'before' - 'after')::text as "detail!"
           from ledger.audit_log
           where ($1 = '' or subject = $1) and at >= $2 and at < $3 and entry > $4
           order by entry limit $5"#,
        asked.subject,
        Instant(asked.from) as _,
        Instant(asked.to) as _,
        asked.after,
        rows,
    )
    .fetch_all(at)
    .await?;
    let read = rows.into_iter().map(|row| Read {
        entry: row.entry,
        at: row.at.0,
        caller: row.caller,
        action: row.action,
        subject: row.subject,
        before: row.before,
        after: row.after,
        detail: row.detail,
    });
    Ok(read.collect())
}

/// Writes a line: `before` and `after` are members of its detail.
pub async fn note_in_tx(tx: &mut PgConnection, now: Timestamp, line: Line) -> Result<(), Error> {
    let Line { action, subject, detail, before, after } = line;
    let serde_json::Value::Object(mut detail) = detail else {
        return Err(Error::Broken(format!("the detail of {action} has no members")));
    };
    detail.extend(before.map(|before| ("before".to_owned(), before)));
    detail.insert("after".to_owned(), after);
    sqlx::query!(
        "insert into ledger.audit_log (at, caller, action, subject, detail) values ($1, $2, $3, $4, $5::text::jsonb)",
        Instant(now) as _,
        identity::current().to_string(),
        action,
        subject,
        serde_json::Value::Object(detail).to_string(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

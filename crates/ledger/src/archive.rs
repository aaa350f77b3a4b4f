//! Months of charges and journal that leave the database, and come back.
//!
//! The two belong together: a charge that one lot paid whole is a journal row itself (`ledger.full_journal`), in the file of charges.
//! A month goes in steps, each of which can be undone: detached (two tables beside the schema, out of every reader's
//! sight), written to files, checked, dropped, and attached again from its tables or from its files. All of it is
//! done by who migrates, with connections of its own: the service has no right to any of it.
//!
//! | step | what others notice | proof |
//! |---|---|---|
//! | [`detach`] | a moment's wait | refused while anything needs a row (`ledger.month_needs`) |
//! | [`write()`] | nothing | rows counted, SHA-256 of each file kept in the database |
//! | [`check`] | nothing | the files have these SHA-256 and rows |
//! | [`drop_tables`] | nothing | only what was written, and is as it was written just now |
//! | [`attach`] | a moment's wait | rows counted; every constraint is checked again by the database |
//!
//! A lock that is not had within half a second is given up, so that nobody queues behind it, and asked for again.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use drawdown_types::Timestamp;
use futures::TryStreamExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
pub use sqlx::PgPool;
use sqlx::{Connection as _, PgConnection};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use crate::store::Instant;

/// The tables that are cut by month, in the order in which their rows are put back.
const TABLES: [&str; 2] = ["charge", "journal"];
/// How often a lock is asked for.
const LOCK_ATTEMPTS: u32 = 40;
/// How long to wait between two times: whoever holds it goes on meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(250);
/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;
/// What the database says where a lock was not to be had.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// A UTC month, as `2026-03`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(Timestamp);

/// A month that can not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no month such as 2026-03")]
pub struct MonthError(String);

/// A month and where its rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// `2026-03`; `default` for rows whose month has no partition.
    pub month: String,
    /// `attached`, `detached`, `written` (tables and files), or `dropped` (files only).
    pub state: String,
    /// Charges; of an attached month as the database last estimated them, -1 where it never did.
    pub charges: i64,
    /// Journal rows, likewise.
    pub journal_rows: i64,
    /// Size of its tables with their indexes.
    pub bytes: i64,
}

/// A file of a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// Its rows.
    pub rows: i64,
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// What the database knows of an archived month.
struct Record {
    charges: i64,
    journal_rows: i64,
    charge_sha256: Option<Vec<u8>>,
    journal_sha256: Option<Vec<u8>>,
    dropped: bool,
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let plain = text.len() == 7 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let first = plain.then(|| format!("{text}-01T00:00:00Z").parse().ok()).flatten();
        first.map(Self).ok_or_else(|| MonthError(text.to_owned()))
    }
}

impl Month {
    /// As names of tables and files have it.
    fn name(self) -> String {
        self.0.to_string().chars().take(7).map(|c| if c == '-' { '_' } else { c }).collect()
    }

    fn table(self, table: &str) -> String {
        format!("{table}_{}", self.name())
    }

    fn file(self, dir: &Path, table: &str) -> PathBuf {
        dir.join(format!("{}.csv", self.table(table)))
    }
}

/// All months, oldest first.
///
/// # Errors
/// Where the database does not answer.
pub async fn list(pool: &PgPool) -> Result<Vec<Listed>> {
    let listed = sqlx::query_as!(
        Listed,
        r#"select coalesce(replace(ledger.month_name(p.month), '_', '-'), 'default') as "month!", 'attached' as "state!",
                  coalesce(max(p.estimated_rows) filter (where parent = 'charge'), -1) as "charges!",
                  coalesce(max(p.estimated_rows) filter (where parent = 'journal'), -1) as "journal_rows!",
                  sum(p.bytes)::bigint as "bytes!"
           from ledger.partitions() p
           group by p.month
           union all
           select replace(ledger.month_name(m.month), '_', '-'),
                  case when m.dropped_at is not null then 'dropped' when m.archived_at is not null then 'written'
                       else 'detached' end,
                  m.charges, m.journal_rows,
                  coalesce(pg_total_relation_size(to_regclass('ledger_archive.charge_' || ledger.month_name(m.month))), 0)
                  + coalesce(pg_total_relation_size(to_regclass('ledger_archive.journal_' || ledger.month_name(m.month))), 0)
           from ledger.archived_month m
           order by 1"#
    )
    .fetch_all(pool)
    .await
    .context("can not list the months")?;
    Ok(listed)
}

/// Why a month can not be detached now; nothing where it can.
///
/// # Errors
/// Where the database does not answer, or `keep_months` is below what must be kept.
pub async fn needs(pool: &PgPool, month: Month, now: Timestamp, keep_months: u32) -> Result<Vec<String>> {
    let needs = sqlx::query_scalar!(
        r#"select n as "need!" from ledger.month_needs($1, $2, $3) n"#,
        Instant(month.0) as _,
        Instant(now) as _,
        i32::try_from(keep_months).unwrap_or(i32::MAX),
    )
    .fetch_all(pool)
    .await
    .context("can not look for what needs the month")?;
    Ok(needs)
}

/// Takes the oldest month out of charges and journal.
///
/// # Errors
/// Where anything still needs its rows, or a lock is not to be had.
pub async fn detach(pool: &PgPool, month: Month, now: Timestamp, keep_months: u32) -> Result<()> {
    let keep_months = i32::try_from(keep_months).unwrap_or(i32::MAX);
    patiently(async || {
        sqlx::query!(
            "select ledger.detach_month($1, $2, $3)",
            Instant(month.0) as _,
            Instant(now) as _,
            keep_months,
        )
        .execute(pool)
        .await
        .map(drop)
    })
    .await
    .context("the month stays")
}

/// Gives rows in the default partitions the months they belong to; gives the number of partitions made.
///
/// # Errors
/// Where a lock is not to be had, or the database does not answer.
pub async fn cut(pool: &PgPool) -> Result<i32> {
    patiently(async || sqlx::query_scalar!(r#"select ledger.cut_default() as "made!""#).fetch_one(pool).await)
        .await
        .context("the default partitions stay as they are")
}

/// Writes a detached month to files in a folder, reads them again, and notes what they are.
///
/// # Errors
/// Where the month is not detached, or a file can not be written.
pub async fn write(pool: &PgPool, month: Month, dir: &Path, now: Timestamp) -> Result<Vec<Written>> {
    let record = record(pool, month).await?;
    ensure!(!record.dropped, "the rows are in files only");
    let mut session = pool.acquire().await?;
    let mut files = Vec::with_capacity(TABLES.len());
    for (table, rows) in TABLES.into_iter().zip([record.charges, record.journal_rows]) {
        let path = month.file(dir, table);
        let sha256 = export(&mut session, &month.table(table), &path).await?;
        let (again, found) = examine(&path).await?;
        ensure!(again == sha256, "{} does not hold what was written", path.display());
        ensure!(found == rows, "{} has {found} rows, the month has {rows}", path.display());
        files.push(Written { path, rows, sha256: hex(&sha256) });
    }
    let [charges, journal] = &files[..] else { bail!("a month has two files") };
    sqlx::query!(
        "update ledger.archived_month
         set charge_sha256 = decode($2, 'hex'), journal_sha256 = decode($3, 'hex'), archived_at = $4
         where month = $1",
        Instant(month.0) as _,
        charges.sha256,
        journal.sha256,
        Instant(now) as _,
    )
    .execute(&mut *session)
    .await?;
    Ok(files)
}

/// Compares the files of a month with what was noted of them.
///
/// # Errors
/// Where a file is missing or another.
pub async fn check(pool: &PgPool, month: Month, dir: &Path) -> Result<Vec<Written>> {
    let record = record(pool, month).await?;
    let noted = [
        (TABLES[0], record.charges, record.charge_sha256),
        (TABLES[1], record.journal_rows, record.journal_sha256),
    ];
    let mut files = Vec::with_capacity(TABLES.len());
    for (table, rows, sha256) in noted {
        let path = month.file(dir, table);
        let noted = sha256.context("the month was not written to files")?;
        let (found, found_rows) = examine(&path).await?;
        ensure!(found[..] == noted[..], "{} is not the file that was written", path.display());
        ensure!(found_rows == rows, "{} has {found_rows} rows instead of {rows}", path.display());
        files.push(Written { path, rows, sha256: hex(&found) });
    }
    Ok(files)
}

/// Removes the tables of a month whose files are there and right.
///
/// # Errors
/// Where the files are not, or the tables are gone already.
pub async fn drop_tables(pool: &PgPool, month: Month, dir: &Path, now: Timestamp) -> Result<()> {
    check(pool, month, dir).await?;
    patiently(async || {
        sqlx::query!("select ledger.drop_month($1, $2)", Instant(month.0) as _, Instant(now) as _)
            .execute(pool)
            .await
            .map(drop)
    })
    .await
    .context("the tables stay")
}

/// Puts the month that was detached last back in its place: its tables, or where they were dropped, its files.
///
/// # Errors
/// Where the files are not what was written, or a lock is not to be had.
pub async fn attach(pool: &PgPool, month: Month, dir: Option<&Path>) -> Result<()> {
    if record(pool, month).await?.dropped {
        let dir = dir.context("the rows are in files only: say where")?;
        check(pool, month, dir).await?;
        restore(pool, month, dir).await?;
    }
    patiently(async || {
        sqlx::query!("select ledger.attach_month($1)", Instant(month.0) as _).execute(pool).await.map(drop)
    })
    .await
    .context("the month stays detached")
}

/// Makes the tables of a dropped month again, beside the schema, and fills them from its files.
async fn restore(pool: &PgPool, month: Month, dir: &Path) -> Result<()> {
    let mut session = pool.acquire().await?;
    let mut tx = session.begin().await?;
    sqlx::query!("select ledger.restored_month($1)", Instant(month.0) as _).execute(&mut *tx).await?;
    told(&mut tx).await?;
    for table in TABLES {
        let (path, name) = (month.file(dir, table), month.table(table));
        let columns = head(&path).await?;
        let statement =
            format!("copy ledger_archive.{name} ({columns}) from stdin (format csv, header match)");
        let mut copy = tx.copy_in_raw(&statement).await?;
        let mut file = File::open(&path).await?;
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut chunk).await?;
            if read == 0 {
                break;
            }
            copy.send(chunk.get(..read).unwrap_or_default()).await?;
        }
        copy.finish().await.with_context(|| format!("{} does not fit its table", path.display()))?;
    }
    tx.commit().await?;
    Ok(())
}

async fn record(pool: &PgPool, month: Month) -> Result<Record> {
    let record = sqlx::query_as!(
        Record,
        r#"select charges, journal_rows, charge_sha256, journal_sha256, dropped_at is not null as "dropped!"
           from ledger.archived_month where month = $1"#,
        Instant(month.0) as _,
    )
    .fetch_optional(pool)
    .await?;
    record.context("the month is not detached")
}

/// How a value is written must not hang on whose session it is.
async fn told(session: &mut PgConnection) -> Result<()> {
    let settings = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'";
    sqlx::raw_sql(settings).execute(session).await?;
    Ok(())
}

/// Writes a table to a file, which has its name only when it is whole and on the disk; gives its SHA-256.
async fn export(session: &mut PgConnection, table: &str, path: &Path) -> Result<[u8; 32]> {
    told(session).await?;
    let part = path.with_extension("part");
    let mut file = File::create(&part).await.with_context(|| format!("can not write {}", part.display()))?;
    let mut sha256 = Sha256::new();
    let statement = format!(
        "copy (select * from ledger_archive.{table} order by account_id, team_id, seq) to stdout (format csv, header)"
    );
    let mut rows = session.copy_out_raw(&statement).await?;
    while let Some(chunk) = rows.try_next().await? {
        sha256.update(&chunk);
        file.write_all(&chunk).await?;
    }
    drop(rows);
    file.flush().await?;
    file.sync_all().await?;
    tokio::fs::rename(&part, path).await?;
    Ok(sha256.finalize().into())
}

/// The SHA-256 and the rows of a file. No value of a row has a line break: texts are names, dimensions are JSON.
async fn examine(path: &Path) -> Result<([u8; 32], i64)> {
    let mut file = File::open(path).await.with_context(|| format!("can not read {}", path.display()))?;
    let (mut sha256, mut lines, mut chunk) = (Sha256::new(), 0_i64, vec![0; READ_BYTES]);
    loop {
        let read = file.read(&mut chunk).await?;
        let bytes = chunk.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        sha256.update(bytes);
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        lines = lines.saturating_add(i64::try_from(ends).unwrap_or(i64::MAX));
    }
    Ok((sha256.finalize().into(), lines.saturating_sub(1)))
}

/// The columns that a file has, by its first line.
async fn head(path: &Path) -> Result<String> {
    let mut file = File::open(path).await?;
    let mut start = vec![0; 4096];
    let mut filled = 0;
    while let Some(room) = start.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room).await {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let columns = std::str::from_utf8(line)?.to_owned();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b',';
    ensure!(!columns.is_empty() && columns.bytes().all(plain), "{} has no head", path.display());
    Ok(columns)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Does something that gives up a lock rather than wait for it, until it has it.
async fn patiently<T>(act: impl AsyncFn() -> Result<T, sqlx::Error>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match act().await {
            Err(sqlx::Error::Database(error))
                if attempt < LOCK_ATTEMPTS && error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) =>
            {
                attempt += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_as_they_are_written() {
        let month: Month = "2026-03".parse().unwrap();
        assert_eq!(month.name(), "2026_03");
        assert_eq!(month.file(Path::new("a"), "charge"), Path::new("a/charge_2026_03.csv"));
        for wrong in ["2026-3", "2026-13", "2026_03", "2026-03-01", "", "march"] {
            assert_eq!(wrong.parse::<Month>(), Err(MonthError(wrong.to_owned())));
        }
    }
}

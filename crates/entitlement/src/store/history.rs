//! Reads of the history itself: the rows behind an answer, changes that are to come, and the audit log; and what takes a
//! change back.
//!
//! An explanation is read in one snapshot, so that its links fit each other and the answer beside them.

use drawdown_entitlement_core::{Change, ContractKind, History, Revocation};
use drawdown_types::{AccountId, AppId, CredentialId, TeamId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Store, TrialEndRecord, Tx, accounts::kind_of, credentials::revocation};
use crate::Error;

/// Who made a link, when and by which act, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MadeRecord {
    pub(crate) at: Timestamp,
    pub(crate) by: String,
    pub(crate) through: String,
}

/// A credential with its making and its end.
#[derive(Clone, Debug)]
pub(crate) struct CredentialLink {
    pub(crate) app_id: AppId,
    pub(crate) known_from: Timestamp,
    pub(crate) made: MadeRecord,
    pub(crate) end: Option<(Revocation, MadeRecord)>,
}

/// An assignment with its making; voided ones are history only.
#[derive(Clone, Debug)]
pub(crate) struct TeamRow {
    pub(crate) team_id: TeamId,
    pub(crate) from: Timestamp,
    pub(crate) made: MadeRecord,
    pub(crate) voided_at: Option<Timestamp>,
}

/// What kind of change is to come. Part of a page token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChangeKind {
    Assignment,
    Contract,
    TrialEnd,
    Revocation,
    Transfer,
}

/// Which change is to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeRef {
    Assignment(i64),
    Contract(i64),
    TrialEnd(AccountId),
    Revocation(i64),
}

/// A change that takes effect later.
#[derive(Clone, Debug)]
pub(crate) struct ScheduledRecord {
    pub(crate) kind: ChangeKind,
    /// Of its row; 0 where the account has it.
    pub(crate) number: i64,
    /// An app, an account or a credential.
    pub(crate) subject: Uuid,
    pub(crate) team_id: Option<TeamId>,
    pub(crate) contract: Option<ContractKind>,
    pub(crate) from: Timestamp,
    /// When the secret of a credential stops, which may be before the edge.
    pub(crate) acts_from: Timestamp,
    pub(crate) made_at: Timestamp,
    pub(crate) made_by: String,
}

/// Where a page of changes goes on: behind this edge, kind and number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScheduledCursor {
    pub(crate) from: Timestamp,
    pub(crate) kind: String,
    pub(crate) number: i64,
}

/// A line of the audit log as it is read back.
#[derive(Clone, Debug)]
pub(crate) struct AuditRecord {
    pub(crate) audit_id: i64,
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) caller: String,
    pub(crate) method: String,
    pub(crate) subject: String,
    pub(crate) account_id: Option<AccountId>,
    pub(crate) reason: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) after: String,
}

struct ScheduledRow {
    kind: String,
    number: i64,
    subject: Uuid,
    team_id: Option<Uuid>,
    contract: Option<String>,
    valid_from: Instant,
    acts_from: Instant,
    made_at: Instant,
    made_by: String,
}

// === impl ChangeKind ===

impl ChangeKind {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Assignment => "assignment",
            Self::Contract => "contract",
            Self::TrialEnd => "trial",
            Self::Revocation => "revocation",
            Self::Transfer => "transfer",
        }
    }

    fn of(text: &str) -> Result<Self, Error> {
        let all = [Self::Assignment, Self::Contract, Self::TrialEnd, Self::Revocation, Self::Transfer];
        let found = all.into_iter().find(|kind| kind.text() == text);
        found.ok_or_else(|| Error::stored("kind of change", format!("{text:?} is none")))
    }
}

impl TryFrom<ScheduledRow> for ScheduledRecord {
    type Error = Error;

    fn try_from(row: ScheduledRow) -> Result<Self, Error> {
        Ok(Self {
            kind: ChangeKind::of(&row.kind)?,
            number: row.number,
            subject: row.subject,
            team_id: row.team_id.map(TeamId::from_uuid),
            contract: row.contract.as_deref().map(kind_of).transpose()?,
            from: row.valid_from.0,
            acts_from: row.acts_from.0,
            made_at: row.made_at.0,
            made_by: row.made_by,
        })
    }
}

/// The credential of a client id.
pub(crate) async fn credential_link_in_tx(
    tx: &mut PgConnection,
    client_id: &str,
) -> Result<Option<CredentialLink>, Error> {
    let row = sqlx::query!(
        r#"SELECT c.app_id, c.known_from, c.made_at, c.made_by, c.made_through,
                r.revoked_at AS "revoked_at?", r.unknown_from AS "unknown_from?", r.made_at AS "end_at?",
                r.made_by AS "end_by?", r.made_through AS "end_through?"
         FROM entitlement.credential c
         LEFT JOIN entitlement.credential_revocation r ON r.credential_id = c.credential_id AND r.voided_at IS NULL
         WHERE c.client_id = $1"#,
        client_id,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let made = row.end_at.zip(row.end_by).zip(row.end_through);
        let made = made.map(|((at, by), through)| MadeRecord { at: at.0, by, through });
        CredentialLink {
            app_id: AppId::from_uuid(row.app_id),
            known_from: row.known_from.0,
            made: MadeRecord { at: row.made_at.0, by: row.made_by, through: row.made_through },
            end: revocation(row.revoked_at, row.unknown_from).zip(made),
        }
    }))
}

/// All assignments of an app that ever were written, in the order of their writing.
pub(crate) async fn team_rows_in_tx(tx: &mut PgConnection, app_id: AppId) -> Result<Vec<TeamRow>, Error> {
    let rows = sqlx::query!(
        "SELECT team_id, valid_from, made_at, made_by, made_through, voided_at
         FROM entitlement.app_team WHERE app_id = $1 ORDER BY link_id",
        app_id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let record = rows.into_iter().map(|row| TeamRow {
        team_id: TeamId::from_uuid(row.team_id),
        from: row.valid_from.0,
        made: MadeRecord { at: row.made_at.0, by: row.made_by, through: row.made_through },
        voided_at: row.voided_at.map(|at| at.0),
    });
    Ok(record.collect())
}

/// When an app changed its owner, and by whom.
pub(crate) async fn owner_makings_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
) -> Result<History<MadeRecord>, Error> {
    let rows = sqlx::query!(
        "SELECT valid_from, made_at, made_by, made_through FROM entitlement.app_owner WHERE app_id = $1",
        app_id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let changes = rows.into_iter().map(|row| Change {
        from: row.valid_from.0,
        value: MadeRecord { at: row.made_at.0, by: row.made_by, through: row.made_through },
    });
    History::from_changes(changes).map_err(|conflict| Error::stored("owners", conflict))
}

/// When the contracts of an account were made, and by whom.
pub(crate) async fn contract_makings_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
) -> Result<History<MadeRecord>, Error> {
    let rows = sqlx::query!(
        "SELECT valid_from, made_at, made_by, made_through FROM entitlement.account_contract
         WHERE account_id = $1 AND voided_at IS NULL",
        account_id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let changes = rows.into_iter().map(|row| Change {
        from: row.valid_from.0,
        value: MadeRecord { at: row.made_at.0, by: row.made_by, through: row.made_through },
    });
    History::from_changes(changes).map_err(|conflict| Error::stored("contract", conflict))
}

/// Who made something, from the audit log: the last act of one of `methods` on it.
pub(crate) async fn making_in_tx(
    tx: &mut PgConnection,
    subject: &str,
    methods: &[&str],
) -> Result<Option<MadeRecord>, Error> {
    let methods: Vec<String> = methods.iter().map(|method| (*method).to_owned()).collect();
    let row = sqlx::query!(
        "SELECT at, actor, method FROM entitlement.audit_log WHERE subject = $1 AND method = ANY($2)
         ORDER BY audit_id DESC LIMIT 1",
        subject,
        &methods,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| MadeRecord { at: row.at.0, by: row.actor, through: row.method }))
}

/// The early end of a trial that was scheduled when one at `replaced` took its place, from the audit log.
pub(crate) async fn trial_end_before_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    replaced: Timestamp,
) -> Result<Option<TrialEndRecord>, Error> {
    let rows = sqlx::query!(
        r#"SELECT at, actor, before->>'commercial_from' AS before_from,
                after->>'commercial_from' AS after_from
         FROM entitlement.audit_log
         WHERE subject = $1 AND method IN ('EndTrial', 'ImportAccounts') ORDER BY audit_id DESC"#,
        account_id.to_string(),
    )
    .fetch_all(tx)
    .await?;
    let instant = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let mut lines = rows.iter();
    let by = lines.find(|row| instant(&row.after_from) == Some(replaced));
    let Some(from) = by.and_then(|row| instant(&row.before_from)) else { return Ok(None) };
    let made = lines.find(|row| instant(&row.after_from) == Some(from));
    Ok(made.map(|row| TrialEndRecord { from, made_at: row.at.0, made_by: row.actor.clone() }))
}

/// A change that takes effect after `now`, and the app that it is of where it is one of an app.
pub(crate) async fn scheduled_in_tx(
    tx: &mut PgConnection,
    change: ChangeRef,
    now: Timestamp,
) -> Result<Option<ScheduledRecord>, Error> {
    let (kind, number, account_id) = match change {
        ChangeRef::Assignment(number) => ("assignment", number, None),
        ChangeRef::Contract(number) => ("contract", number, None),
        ChangeRef::TrialEnd(account_id) => ("trial", 0, Some(account_id.as_uuid())),
        ChangeRef::Revocation(number) => ("revocation", number, None),
    };
    let row = sqlx::query_as!(
        ScheduledRow,
        r#"SELECT CASE WHEN l.made_through = 'ConfirmTransfer' THEN 'transfer' ELSE 'assignment' END AS "kind!",
                l.link_id AS "number!", l.app_id AS "subject!", l.team_id AS "team_id?", NULL::text AS contract,
                l.valid_from AS "valid_from!", l.valid_from AS "acts_from!", l.made_at AS "made_at!",
                l.made_by AS "made_by!"
         FROM entitlement.app_team l
         WHERE $1 = 'assignment' AND l.link_id = $2 AND l.voided_at IS NULL AND l.valid_from > $4
         UNION ALL
         SELECT 'contract', contract_id, account_id, NULL, kind, valid_from, valid_from, made_at, made_by
         FROM entitlement.account_contract
         WHERE $1 = 'contract' AND contract_id = $2 AND voided_at IS NULL AND valid_from > $4
         UNION ALL
         SELECT 'trial', 0, account_id, NULL, NULL, commercial_from, commercial_from, commercial_made_at,
                commercial_made_by
         FROM entitlement.account
         WHERE $1 = 'trial' AND account_id = $3 AND commercial_from > $4 AND commercial_made_at IS NOT NULL
         UNION ALL
         SELECT 'revocation', revocation_id, credential_id, NULL, NULL, unknown_from, revoked_at, made_at, made_by
         FROM entitlement.credential_revocation
         WHERE $1 = 'revocation' AND revocation_id = $2 AND voided_at IS NULL AND unknown_from > $4"#,
        kind,
        number,
        account_id,
        Instant(now),
    )
    .fetch_optional(tx)
    .await?;
    row.map(ScheduledRecord::try_from).transpose()
}

/// Voids assignments of an app in force, by their edges. The caller holds the lock of the app.
pub(crate) async fn void_assignments_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    edges: &[Timestamp],
    now: Timestamp,
) -> Result<(), Error> {
    for edge in edges {
        sqlx::query!(
            "UPDATE entitlement.app_team SET voided_at = $3
             WHERE app_id = $1 AND valid_from = $2 AND voided_at IS NULL",
            app_id.as_uuid(),
            Instant(*edge),
            Instant(now),
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// The caller holds the lock of the account.
pub(crate) async fn void_contract_in_tx(
    tx: &mut PgConnection,
    contract_id: i64,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.account_contract SET voided_at = $2 WHERE contract_id = $1",
        contract_id,
        Instant(now),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// A transaction that reads one state of the database.
    pub(crate) async fn snapshot(&self) -> Result<Tx, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Up to `rows` changes of an account after `after` that take effect after `now`, in the order of their edges.
    pub(crate) async fn scheduled(
        &self,
        account_id: AccountId,
        now: Timestamp,
        after: &ScheduledCursor,
        rows: i64,
    ) -> Result<Vec<ScheduledRecord>, Error> {
        let rows = sqlx::query_as!(
            ScheduledRow,
            r#"SELECT kind AS "kind!", number AS "number!", subject AS "subject!", team_id, contract,
                    valid_from AS "valid_from!", acts_from AS "acts_from!", made_at AS "made_at!",
                    made_by AS "made_by!"
             FROM (
                SELECT CASE WHEN l.made_through = 'ConfirmTransfer' THEN 'transfer' ELSE 'assignment' END AS kind,
                    l.link_id AS number, l.app_id AS subject, l.team_id, NULL::text AS contract, l.valid_from,
                    l.valid_from AS acts_from, l.made_at, l.made_by
                FROM entitlement.app_team l JOIN entitlement.team t ON t.team_id = l.team_id
                WHERE t.account_id = $1 AND l.voided_at IS NULL AND l.valid_from > $2
                UNION ALL
                SELECT 'contract', contract_id, account_id, NULL, kind, valid_from, valid_from, made_at, made_by
                FROM entitlement.account_contract
                WHERE account_id = $1 AND voided_at IS NULL AND valid_from > $2
                UNION ALL
                SELECT 'trial', 0, account_id, NULL, NULL, commercial_from, commercial_from, commercial_made_at,
                    commercial_made_by
                FROM entitlement.account
                WHERE account_id = $1 AND commercial_from > $2 AND commercial_made_at IS NOT NULL
                UNION ALL
                SELECT 'revocation', r.revocation_id, r.credential_id, NULL, NULL, r.unknown_from, r.revoked_at,
                    r.made_at, r.made_by
                FROM entitlement.credential_revocation r
                JOIN entitlement.credential c ON c.credential_id = r.credential_id
                JOIN entitlement.app a ON a.app_id = c.app_id
                LEFT JOIN LATERAL (
                    SELECT o.account_id FROM entitlement.app_owner o
                    WHERE o.app_id = a.app_id AND o.valid_from <= $2 ORDER BY o.valid_from DESC LIMIT 1) o ON true
                WHERE coalesce(o.account_id, a.account_id) = $1 AND r.voided_at IS NULL AND r.unknown_from > $2
             ) change
             WHERE (valid_from, kind COLLATE "C", number) > ($3, $4 COLLATE "C", $5)
             ORDER BY valid_from, kind COLLATE "C", number LIMIT $6"#,
            account_id.as_uuid(),
            Instant(now),
            Instant(after.from),
            after.kind,
            after.number,
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(ScheduledRecord::try_from).collect()
    }

    /// Up to `rows` lines of the audit log after `after`, of an account or of one thing.
    pub(crate) async fn audit(
        &self,
        account_id: Option<AccountId>,
        subject: &str,
        after: i64,
        rows: i64,
    ) -> Result<Vec<AuditRecord>, Error> {
        let rows = sqlx::query!(
            r#"SELECT audit_id, at, actor, caller, method, subject, account_id, reason, before::text, after::text AS "after!"
             FROM entitlement.audit_log
             WHERE (account_id = $1 OR subject = $2) AND audit_id > $3 ORDER BY audit_id LIMIT $4"#,
            account_id.map(AccountId::as_uuid),
            subject,
            after,
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let record = rows.into_iter().map(|row| AuditRecord {
            audit_id: row.audit_id,
            at: row.at.0,
            actor: row.actor,
            caller: row.caller,
            method: row.method,
            subject: row.subject,
            account_id: row.account_id.map(AccountId::from_uuid),
            reason: row.reason,
            before: row.before,
            after: row.after,
        });
        Ok(record.collect())
    }
}

/// The app of a credential.
pub(crate) async fn app_of_credential_in_tx(
    tx: &mut PgConnection,
    credential_id: CredentialId,
) -> Result<Option<AppId>, Error> {
    let app_id = sqlx::query_scalar!(
        "SELECT app_id FROM entitlement.credential WHERE credential_id = $1",
        credential_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(app_id.map(AppId::from_uuid))
}

//! Whose things are at an instant: of one account or team, or of several parties.
//!
//! Cost: one statement, whatever is asked and how much of it.

use drawdown_service::identity::{Kind, Named, Owner};
use drawdown_types::{AccountId, AppId, CredentialId, HubId, TeamId, Timestamp, TransferId, UserId};
use uuid::Uuid;

use super::{ChangeRef, Instant, Store};
use crate::{Error, grpc::decode::history::change_of};

/// The things asked about, a column each; what is no id of its kind is asked about as nothing.
#[derive(Default)]
struct Asked {
    kinds: Vec<String>,
    ids: Vec<Option<Uuid>>,
    texts: Vec<String>,
    numbers: Vec<i64>,
}

impl Asked {
    fn push(&mut self, (kind, text): &Named) {
        let (mut number, mut id) = (0, None);
        let kind = match kind {
            Kind::Account => {
                id = text.parse().ok().map(AccountId::as_uuid);
                "account"
            }
            Kind::Team => {
                id = text.parse().ok().map(TeamId::as_uuid);
                "team"
            }
            Kind::App => {
                id = text.parse().ok().map(AppId::as_uuid);
                "app"
            }
            Kind::Credential => {
                id = text.parse().ok().map(CredentialId::as_uuid);
                "credential"
            }
            Kind::Client => "client",
            Kind::Transfer => {
                id = text.parse().ok().map(TransferId::as_uuid);
                "transfer"
            }
            Kind::Hub => {
                id = text.parse().ok().map(HubId::as_uuid);
                "hub"
            }
            Kind::Change => match change_of(text) {
                Some(ChangeRef::Assignment(link)) => {
                    number = link;
                    "assignment"
                }
                Some(ChangeRef::Contract(contract)) => {
                    number = contract;
                    "contract"
                }
                Some(ChangeRef::Revocation(revocation)) => {
                    number = revocation;
                    "revocation"
                }
                Some(ChangeRef::TrialEnd(account_id)) => {
                    id = Some(account_id.as_uuid());
                    "account"
                }
                None => "nothing",
            },
            // the ledger's
            Kind::Budget => "nothing",
        };
        self.kinds.push(kind.to_owned());
        self.ids.push(id);
        self.texts.push(text.clone());
        self.numbers.push(number);
    }
}

impl Store {
    /// The owners of each thing at `now`, in the order asked; none where it does not exist.
    #[expect(clippy::too_many_lines, reason = "it is one statement")]
    pub(crate) async fn owners(&self, things: &[Named], now: Timestamp) -> Result<Vec<Vec<Owner>>, Error> {
        let mut asked = Asked::default();
        things.iter().for_each(|thing| asked.push(thing));
        let rows = sqlx::query!(
            r#"WITH asked AS (
                SELECT place, kind, id, name, number FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[])
                    WITH ORDINALITY AS a (kind, id, name, number, place)
            ), apps AS (
                SELECT place, id AS app_id FROM asked WHERE asked.kind = 'app'
                UNION ALL
                SELECT place, c.app_id FROM asked JOIN entitlement.credential c ON c.credential_id = asked.id
                    WHERE asked.kind = 'credential'
                UNION ALL
                SELECT place, c.app_id FROM asked JOIN entitlement.credential c ON c.client_id = asked.name
                    WHERE asked.kind = 'client'
                UNION ALL
                SELECT place, c.app_id FROM asked
                    JOIN entitlement.credential_revocation r ON r.revocation_id = asked.number
                    JOIN entitlement.credential c USING (credential_id)
                    WHERE asked.kind = 'revocation'
            )
            SELECT place AS "place!", a.account_id AS "account_id?", NULL::uuid AS "team_id?", NULL::uuid AS "user_id?"
                FROM asked JOIN entitlement.account a ON a.account_id = asked.id WHERE asked.kind = 'account'
            UNION ALL
            SELECT place, t.account_id, t.team_id, NULL FROM asked JOIN entitlement.team t ON t.team_id = asked.id
                WHERE asked.kind = 'team'
            UNION ALL
            SELECT place, coalesce(
                    (SELECT o.account_id FROM entitlement.app_owner o
                     WHERE o.app_id = a.app_id AND o.valid_from <= $5 ORDER BY o.valid_from DESC LIMIT 1),
                    a.account_id),
                (SELECT l.team_id FROM entitlement.app_team l
                 WHERE l.app_id = a.app_id AND l.voided_at IS NULL AND l.valid_from <= $5
                 ORDER BY l.valid_from DESC LIMIT 1),
                NULL
                FROM apps JOIN entitlement.app a USING (app_id)
            UNION ALL
            SELECT place, h.account_id, NULL, NULL FROM asked JOIN entitlement.hub h ON h.hub_id = asked.id
                WHERE asked.kind = 'hub'
            UNION ALL
            SELECT place, t.account_id, t.team_id, NULL FROM asked
                JOIN entitlement.app_team l ON l.link_id = asked.number JOIN entitlement.team t USING (team_id)
                WHERE asked.kind = 'assignment'
            UNION ALL
            SELECT place, c.account_id, NULL, NULL FROM asked
                JOIN entitlement.account_contract c ON c.contract_id = asked.number WHERE asked.kind = 'contract'
            UNION ALL
            SELECT place, x.from_account_id, NULL, NULL FROM asked
                JOIN entitlement.app_transfer x ON x.transfer_id = asked.id WHERE asked.kind = 'transfer'
            UNION ALL
            SELECT place, t.account_id, t.team_id, NULL FROM asked
                JOIN entitlement.app_transfer x ON x.transfer_id = asked.id
                JOIN entitlement.team t ON t.team_id = x.to_team_id WHERE asked.kind = 'transfer'
            UNION ALL
            SELECT place, t.account_id, t.team_id, NULL FROM asked
                JOIN entitlement.app_transfer x ON x.transfer_id = asked.id
                CROSS JOIN LATERAL (
                    SELECT l.team_id FROM entitlement.app_team l
                    WHERE l.app_id = x.app_id AND l.voided_at IS NULL AND l.valid_from <= x.invited_at
                    ORDER BY l.valid_from DESC LIMIT 1) giving
                JOIN entitlement.team t ON t.team_id = giving.team_id WHERE asked.kind = 'transfer'
            UNION ALL
            SELECT place, NULL, NULL, x.to_user_id FROM asked
                JOIN entitlement.app_transfer x ON x.transfer_id = asked.id WHERE asked.kind = 'transfer'"#,
            &asked.kinds,
            &asked.ids as &[Option<Uuid>],
            &asked.texts,
            &asked.numbers,
            Instant(now),
        )
        .fetch_all(&self.pool)
        .await?;
        let mut owners = vec![Vec::new(); things.len()];
        for row in rows {
            let owner = match (row.account_id, row.team_id, row.user_id) {
                (Some(account_id), None, _) => Owner::Account(AccountId::from_uuid(account_id)),
                (Some(account_id), Some(team_id), _) => Owner::Team {
                    account_id: AccountId::from_uuid(account_id),
                    team_id: TeamId::from_uuid(team_id),
                },
                (None, _, Some(user_id)) => Owner::User(UserId::from_uuid(user_id)),
                (None, _, None) => continue,
            };
            let index = usize::try_from(row.place).unwrap_or_default().checked_sub(1);
            if let Some(of) = index.and_then(|index| owners.get_mut(index)) {
                of.push(owner);
            }
        }
        Ok(owners)
    }
}

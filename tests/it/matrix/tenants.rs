//! Two tenants with one thing of every kind that a request can name, entered by the operator.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use drawdown_client::{
    Channel,
    clients::{entitlement, ledger},
};
use drawdown_proto::{
    entitlement::v1::{
        AssignAppRequest, ContractKind, CreateAccountRequest, CreateAppRequest, CreateCredentialRequest,
        CreateHubRequest, CreateKeyRequest, CreatePrincipalRequest, CreateTeamRequest, CreateUserRequest,
        InviteTransferRequest, ListScheduledChangesRequest, PrincipalRole, RevokeKeyRequest,
    },
    ledger::v1::SetBudgetRequest,
    scalar::timestamp_to_proto,
};
use drawdown_service::identity::{Kind, Role};
use drawdown_types::{Clock as _, SystemClock, Timestamp};
use prost_types::Timestamp as Wire;

/// Where the operator enters things.
pub(super) struct Desk {
    pub(super) entitlement: Channel,
    pub(super) ledger: Channel,
}

/// What one tenant has, and a person who acts for it.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) user_id: String,
    pub(super) ids: BTreeMap<&'static str, String>,
}

/// Whose things a key reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Platform,
    Account,
    Team,
}

/// The name of a kind in what a tenant has.
const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Account => "account",
        Kind::Team => "team",
        Kind::App => "app",
        Kind::Credential => "credential",
        Kind::Client => "client",
        Kind::Transfer => "transfer",
        Kind::Hub => "hub",
        Kind::Change => "change",
        Kind::Budget => "budget",
    }
}

fn in_secs(secs: i64) -> Option<Wire> {
    let micros = SystemClock.now().as_micros() + secs * 1_000_000;
    Timestamp::from_micros(micros).ok().map(timestamp_to_proto)
}

// === impl Tenant ===

impl Tenant {
    pub(super) fn id(&self, kind: Kind) -> &str {
        self.ids.get(name(kind)).map_or("", String::as_str)
    }

    /// One that has things of no kind: ids that are well formed and nobody's.
    pub(super) fn nobody(&self) -> Self {
        let other = |text: &String| match text.split_once('_') {
            Some((prefix, rest)) => format!("{prefix}_{}", rest.chars().rev().collect::<String>()),
            None => "nobody".to_owned(),
        };
        let ids = self.ids.iter().map(|(kind, id)| (*kind, other(id))).collect();
        Self { user_id: self.user_id.clone(), ids }
    }
}

// === impl Desk ===

impl Desk {
    /// Enters a tenant whose app is invited away and has a scheduled change.
    pub(super) async fn tenant(&self, who: &str) -> Result<Tenant> {
        let mut hierarchy = entitlement::hierarchy(&self.entitlement);
        let account = CreateAccountRequest {
            name: who.to_owned(),
            contract_kind: ContractKind::Flex.into(),
            commercial: true,
            created_at: in_secs(-86_400),
            ..CreateAccountRequest::default()
        };
        let account = hierarchy.create_account(account).await?.into_inner().account.context("no account")?;
        let account_id = account.account_id;
        let mut teams = Vec::new();
        for name in ["first", "second"] {
            let team = CreateTeamRequest {
                account_id: account_id.clone(),
                name: name.to_owned(),
                created_at: in_secs(-86_400),
                request_id: String::new(),
            };
            teams.push(hierarchy.create_team(team).await?.into_inner().team.context("no team")?.team_id);
        }
        let mut users = Vec::new();
        for name in ["acts", "takes"] {
            let email = format!("{name}@{who}.example");
            let user = CreateUserRequest { email, name: name.to_owned(), ..CreateUserRequest::default() };
            users.push(hierarchy.create_user(user).await?.into_inner().user.context("no user")?.user_id);
        }
        let [team_id, next_team] = teams.try_into().map_err(|_| anyhow::anyhow!("no two teams"))?;
        let [user_id, taker] = users.try_into().map_err(|_| anyhow::anyhow!("no two people"))?;
        let app =
            CreateAppRequest { account_id: account_id.clone(), name: "app".to_owned(), ..Default::default() };
        let app_id = hierarchy.create_app(app).await?.into_inner().app.context("no app")?.app_id;
        let credential = CreateCredentialRequest { app_id: app_id.clone(), ..Default::default() };
        let credential = hierarchy.create_credential(credential).await?.into_inner();
        for (team_id, from) in [(&team_id, in_secs(-3_600)), (&next_team, in_secs(86_400))] {
            let (app_id, team_id) = (app_id.clone(), team_id.clone());
            let assignment = AssignAppRequest { app_id, team_id, from, request_id: String::new() };
            hierarchy.assign_app(assignment).await?;
        }
        let mut tenant = Tenant { user_id, ids: BTreeMap::new() };
        for (kind, id) in [
            (Kind::Account, account_id),
            (Kind::Team, team_id),
            (Kind::App, app_id),
            (Kind::Credential, credential.credential_id),
            (Kind::Client, credential.client_id),
        ] {
            tenant.ids.insert(name(kind), id);
        }
        self.hang_on(&mut tenant, taker).await?;
        Ok(tenant)
    }

    /// What hangs on an account and its app: a hub, a transfer, a scheduled change, a budget.
    async fn hang_on(&self, tenant: &mut Tenant, taker: String) -> Result<()> {
        let id = |kind| tenant.id(kind).to_owned();
        let (account_id, team_id, app_id) = (id(Kind::Account), id(Kind::Team), id(Kind::App));
        let hub =
            CreateHubRequest { account_id: account_id.clone(), name: "hub".to_owned(), ..Default::default() };
        let hub =
            entitlement::hubs(&self.entitlement).create_hub(hub).await?.into_inner().hub.context("no hub")?;
        let invitation = InviteTransferRequest { app_id, to_user_id: taker, ..Default::default() };
        let transfer =
            entitlement::transfers(&self.entitlement).invite_transfer(invitation).await?.into_inner();
        let changes = ListScheduledChangesRequest { account_id: account_id.clone(), ..Default::default() };
        let mut histories = entitlement::histories(&self.entitlement);
        let changes = histories.list_scheduled_changes(changes).await?.into_inner().changes;
        let budget = SetBudgetRequest {
            account_id,
            team_id: team_id.clone(),
            cap_micros: Some(1_000_000),
            request_id: format!("budget-{team_id}"),
            ..SetBudgetRequest::default()
        };
        let budget = ledger::budget(&self.ledger).set_budget(budget).await?.into_inner().budget;
        for (kind, id) in [
            (Kind::Hub, hub.hub_id),
            (Kind::Transfer, transfer.transfer.context("no transfer")?.transfer_id),
            (Kind::Change, changes.into_iter().next().context("no scheduled change")?.change_id),
            (Kind::Budget, budget.context("no budget")?.budget_id),
        ] {
            tenant.ids.insert(name(kind), id);
        }
        Ok(())
    }

    /// A key of a new principal with one role, which acts for the tenant's person where it is of a tenant.
    pub(super) async fn key(&self, role: Role, extent: Extent, tenant: &Tenant) -> Result<String> {
        Ok(self.new_key(role, extent, tenant, None).await?.1)
    }

    /// One that expires in so many seconds.
    pub(super) async fn key_for(&self, secs: i64, tenant: &Tenant) -> Result<String> {
        Ok(self.new_key(Role::Operator, Extent::Platform, tenant, in_secs(secs)).await?.1)
    }

    /// One that was revoked as soon as it was made.
    pub(super) async fn revoked_key(&self, tenant: &Tenant) -> Result<String> {
        let (key_id, text) = self.new_key(Role::Operator, Extent::Platform, tenant, None).await?;
        let request = RevokeKeyRequest { key_id, ..RevokeKeyRequest::default() };
        entitlement::principals(&self.entitlement).revoke_key(request).await?;
        Ok(text)
    }

    async fn new_key(
        &self,
        role: Role,
        extent: Extent,
        tenant: &Tenant,
        expires_at: Option<Wire>,
    ) -> Result<(String, String)> {
        let mut principals = entitlement::principals(&self.entitlement);
        let of_tenant = |id: &str| if extent == Extent::Platform { String::new() } else { id.to_owned() };
        let team_id = if extent == Extent::Team { tenant.id(Kind::Team).to_owned() } else { String::new() };
        let request = CreatePrincipalRequest {
            name: format!("{} of {extent:?}", role.name()),
            roles: vec![wire_role(role).into()],
            account_id: of_tenant(tenant.id(Kind::Account)),
            team_id,
            user_id: of_tenant(&tenant.user_id),
            request_id: String::new(),
        };
        let principal = principals.create_principal(request).await?.into_inner().principal;
        let principal_id = principal.context("no principal")?.principal_id;
        let request = CreateKeyRequest { principal_id, expires_at, request_id: String::new() };
        let made = principals.create_key(request).await?.into_inner();
        Ok((made.key.context("no key")?.key_id, made.text))
    }
}

const fn wire_role(role: Role) -> PrincipalRole {
    match role {
        Role::Gateway => PrincipalRole::Gateway,
        Role::BillingReader => PrincipalRole::BillingReader,
        Role::TeamAdmin => PrincipalRole::TeamAdmin,
        Role::ContractManager => PrincipalRole::ContractManager,
        Role::Operator => PrincipalRole::Operator,
    }
}

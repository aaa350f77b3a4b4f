//! Accounts, teams, users, apps and credentials on the wire.

use drawdown_proto::entitlement::v1::{
    AssignAppRequest, AssignAppResponse, CreateAccountRequest, CreateAccountResponse, CreateAppRequest,
    CreateAppResponse, CreateCredentialRequest, CreateCredentialResponse, CreateTeamRequest,
    CreateTeamResponse, CreateUserRequest, CreateUserResponse, GetAccountRequest, GetAccountResponse,
    GetTeamRequest, GetTeamResponse, ListAppsRequest, ListAppsResponse, ListTeamsRequest, ListTeamsResponse,
    SetRoleRequest, SetRoleResponse, VerifyCredentialRequest, VerifyCredentialResponse,
    hierarchy_service_server::HierarchyService,
};
use drawdown_types::{AccountId, AppId, ClientId, TeamId};
use tonic::{Request, Response};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `HierarchyService`.
#[derive(Clone)]
pub struct Hierarchy {
    acts: Acts,
}

impl Hierarchy {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

/// The name of a list, under which its tokens are sealed: a token of one account's list does not fit another's.
fn list_name(what: &str, account_id: Option<AccountId>) -> String {
    account_id.map_or_else(|| what.to_owned(), |account_id| format!("{what} of {account_id}"))
}

#[tonic::async_trait]
impl HierarchyService for Hierarchy {
    async fn create_account(&self, request: Request<CreateAccountRequest>) -> Answer<CreateAccountResponse> {
        act(&self.acts, request, decode::create_account).await
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Answer<GetAccountResponse> {
        let account_id = decode::id("account_id", &request.get_ref().account_id)?;
        let account = self.acts.store.account(account_id).await?;
        let account = account.ok_or_else(|| Error::from(Refused::AccountNotFound(account_id)))?;
        let account = Some(encode::account(&account, self.acts.now()));
        Ok(Response::new(GetAccountResponse { account }))
    }

    async fn create_team(&self, request: Request<CreateTeamRequest>) -> Answer<CreateTeamResponse> {
        act(&self.acts, request, decode::create_team).await
    }

    async fn get_team(&self, request: Request<GetTeamRequest>) -> Answer<GetTeamResponse> {
        let team_id = decode::id("team_id", &request.get_ref().team_id)?;
        let team = self.acts.store.team(team_id).await?;
        let team = team.ok_or_else(|| Error::from(Refused::TeamNotFound(team_id)))?;
        let account = self.acts.store.account(team.account_id).await?;
        let account = account.map(|account| encode::account(&account, self.acts.now()));
        Ok(Response::new(GetTeamResponse { team: Some(encode::team(team)), account }))
    }

    async fn list_teams(&self, request: Request<ListTeamsRequest>) -> Answer<ListTeamsResponse> {
        let request = request.get_ref();
        let account_id = decode::account_filter(&request.account_id)?;
        let page = Page::new(&self.acts, list_name("teams", account_id), request.page_size);
        let after = page.after(&request.page_token, TeamId::from_uuid(Uuid::nil()))?;
        let teams = self.acts.store.teams(account_id, after, page.rows()).await?;
        let (teams, next_page_token) = page.cut(teams, |team| team.team_id);
        let teams = teams.into_iter().map(encode::team).collect();
        Ok(Response::new(ListTeamsResponse { teams, next_page_token }))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Answer<CreateUserResponse> {
        act(&self.acts, request, decode::create_user).await
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Answer<SetRoleResponse> {
        act(&self.acts, request, decode::set_role).await
    }

    async fn create_app(&self, request: Request<CreateAppRequest>) -> Answer<CreateAppResponse> {
        act(&self.acts, request, decode::create_app).await
    }

    async fn list_apps(&self, request: Request<ListAppsRequest>) -> Answer<ListAppsResponse> {
        let request = request.get_ref();
        let account_id = decode::account_filter(&request.account_id)?;
        let page = Page::new(&self.acts, list_name("apps", account_id), request.page_size);
        let after = page.after(&request.page_token, AppId::from_uuid(Uuid::nil()))?;
        let apps = self.acts.store.apps(account_id, after, page.rows(), self.acts.now()).await?;
        let (apps, next_page_token) = page.cut(apps, |app| app.app_id);
        let apps = apps.into_iter().map(|app| encode::app(app, self.acts.limits.hub_mode)).collect();
        Ok(Response::new(ListAppsResponse { apps, next_page_token }))
    }

    async fn assign_app(&self, request: Request<AssignAppRequest>) -> Answer<AssignAppResponse> {
        act(&self.acts, request, decode::assign_app).await
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Answer<CreateCredentialResponse> {
        act(&self.acts, request, decode::create_credential).await
    }

    async fn verify_credential(
        &self,
        request: Request<VerifyCredentialRequest>,
    ) -> Answer<VerifyCredentialResponse> {
        let VerifyCredentialRequest { client_id, client_secret } = request.into_inner();
        let client_secret = Zeroizing::new(client_secret);
        // what is no client id is looked up as little as hashed differently: the answer is the same
        let stored = match ClientId::new(&client_id) {
            Ok(client_id) => self.acts.store.secret_of(client_id.as_str()).await?,
            Err(_) => None,
        };
        let now = self.acts.now();
        let in_force = stored.filter(|stored| {
            stored.created_at <= now && stored.revoked_at.is_none_or(|revoked_at| now < revoked_at)
        });
        let hmac = in_force.as_ref().map(|stored| stored.hmac.as_slice());
        let valid = self.acts.pepper.verify(&client_id, &client_secret, hmac);
        self.acts.metrics.verified(valid);
        Ok(Response::new(VerifyCredentialResponse { valid }))
    }
}

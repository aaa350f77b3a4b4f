//! Accounts, teams, users, apps and credentials on the wire.

use drawdown_proto::entitlement::v1::{
    AssignAppRequest, AssignAppResponse, CreateAccountRequest, CreateAccountResponse, CreateAppRequest,
    CreateAppResponse, CreateCredentialRequest, CreateCredentialResponse, CreateTeamRequest,
    CreateTeamResponse, CreateUserRequest, CreateUserResponse, GetAccountRequest, GetAccountResponse,
    GetTeamRequest, GetTeamResponse, ListAppsRequest, ListAppsResponse, ListTeamsRequest, ListTeamsResponse,
    SetRoleRequest, SetRoleResponse, VerifyCredentialRequest, VerifyCredentialResponse,
    hierarchy_service_server::HierarchyService,
};
use drawdown_service::{Refusal, page};
use drawdown_types::{AccountId, AppId, ClientId, TeamId};
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    decode::{self, Keyed},
    encode,
};
use crate::{
    Error, Parts,
    acts::{Act, Acts},
    error::Refused,
};

/// Answers for `HierarchyService`.
#[derive(Clone)]
pub struct Hierarchy {
    acts: Acts,
}

type Answer<T> = Result<Response<T>, Status>;

impl Hierarchy {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }

    async fn act<Q, A: Act>(
        &self,
        request: Request<Q>,
        decode: fn(&Q) -> Result<Keyed<A>, Refusal>,
    ) -> Answer<A::Reply> {
        let (act, key) = decode(request.get_ref())?;
        Ok(Response::new(self.acts.run(&act, &key).await?))
    }

    /// How many rows a page has, and how many to read: one more, which tells whether there is a next page.
    fn page_rows(&self, page_size: u32) -> (usize, i64) {
        let rows_max = self.acts.limits.page_rows_max;
        let rows = page::size(page_size, rows_max, rows_max);
        (usize::try_from(rows).unwrap_or(usize::MAX), i64::from(rows).saturating_add(1))
    }
}

/// A page that was read one row too far: without that row, and with the token of the next page.
fn cut<R>(mut rows: Vec<R>, page_rows: usize, list: &str, id: impl FnOnce(&R) -> String) -> (Vec<R>, String) {
    if rows.len() <= page_rows {
        return (rows, String::new());
    }
    rows.truncate(page_rows);
    let token = rows.last().map(|last| page::encode(list, &id(last))).unwrap_or_default();
    (rows, token)
}

/// The name of a list, under which its tokens are sealed: a token of one account's list does not fit another's.
fn list_name(what: &str, account_id: Option<AccountId>) -> String {
    account_id.map_or_else(|| what.to_owned(), |account_id| format!("{what} of {account_id}"))
}

#[tonic::async_trait]
impl HierarchyService for Hierarchy {
    async fn create_account(&self, request: Request<CreateAccountRequest>) -> Answer<CreateAccountResponse> {
        self.act(request, decode::create_account).await
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Answer<GetAccountResponse> {
        let account_id = decode::id("account_id", &request.get_ref().account_id)?;
        let account = self.acts.store.account(account_id).await?;
        let account = account.ok_or_else(|| Error::from(Refused::AccountNotFound(account_id)))?;
        let account = Some(encode::account(&account, self.acts.now()));
        Ok(Response::new(GetAccountResponse { account }))
    }

    async fn create_team(&self, request: Request<CreateTeamRequest>) -> Answer<CreateTeamResponse> {
        self.act(request, decode::create_team).await
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
        let list = list_name("teams", account_id);
        let after: Option<TeamId> = page::decode(&list, &request.page_token)?;
        let after = after.unwrap_or_else(|| TeamId::from_uuid(Uuid::nil()));
        let (page_rows, rows) = self.page_rows(request.page_size);
        let teams = self.acts.store.teams(account_id, after, rows).await?;
        let (teams, next_page_token) = cut(teams, page_rows, &list, |team| team.team_id.to_string());
        let teams = teams.into_iter().map(encode::team).collect();
        Ok(Response::new(ListTeamsResponse { teams, next_page_token }))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Answer<CreateUserResponse> {
        self.act(request, decode::create_user).await
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Answer<SetRoleResponse> {
        self.act(request, decode::set_role).await
    }

    async fn create_app(&self, request: Request<CreateAppRequest>) -> Answer<CreateAppResponse> {
        self.act(request, decode::create_app).await
    }

    async fn list_apps(&self, request: Request<ListAppsRequest>) -> Answer<ListAppsResponse> {
        let request = request.get_ref();
        let account_id = decode::account_filter(&request.account_id)?;
        let list = list_name("apps", account_id);
        let after: Option<AppId> = page::decode(&list, &request.page_token)?;
        let after = after.unwrap_or_else(|| AppId::from_uuid(Uuid::nil()));
        let (page_rows, rows) = self.page_rows(request.page_size);
        let apps = self.acts.store.apps(account_id, after, rows, self.acts.now()).await?;
        let (apps, next_page_token) = cut(apps, page_rows, &list, |app| app.app_id.to_string());
        let apps = apps.into_iter().map(encode::app).collect();
        Ok(Response::new(ListAppsResponse { apps, next_page_token }))
    }

    async fn assign_app(&self, request: Request<AssignAppRequest>) -> Answer<AssignAppResponse> {
        self.act(request, decode::assign_app).await
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Answer<CreateCredentialResponse> {
        self.act(request, decode::create_credential).await
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
        let in_force = stored.filter(|stored| stored.created_at <= now);
        let hmac = in_force.as_ref().map(|stored| stored.hmac.as_slice());
        let valid = self.acts.pepper.verify(&client_id, &client_secret, hmac);
        self.acts.metrics.verified(valid);
        Ok(Response::new(VerifyCredentialResponse { valid }))
    }
}

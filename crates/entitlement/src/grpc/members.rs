//! People, their roles and product assignments, on the wire.

use drawdown_proto::entitlement::v1::{
    AssignProductRequest, AssignProductResponse, EndProductAssignmentRequest, EndProductAssignmentResponse,
    EndRoleRequest, EndRoleResponse, GetUserRequest, GetUserResponse, ListProductAssignmentsRequest,
    ListProductAssignmentsResponse, ListRolesRequest, ListRolesResponse, ListUsersRequest, ListUsersResponse,
    member_service_server::MemberService,
};
use drawdown_types::UserId;
use tonic::{Request, Response};
use uuid::Uuid;

use super::{
    decode, encode,
    lists::{Answer, Page, act},
};
use crate::{Error, Parts, acts::Acts, error::Refused};

/// Answers for `MemberService`.
#[derive(Clone)]
pub struct Members {
    acts: Acts,
}

impl Members {
    /// From the parts of the service.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { acts: parts.acts() }
    }
}

#[tonic::async_trait]
impl MemberService for Members {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Answer<GetUserResponse> {
        let user_id = decode::id("user_id", &request.get_ref().user_id)?;
        let user = self.acts.store.user(user_id).await?;
        let user = user.ok_or_else(|| Error::from(Refused::UserNotFound(user_id)))?;
        Ok(Response::new(GetUserResponse { user: Some(encode::user(user)) }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        let request = request.get_ref();
        let page = Page::new(&self.acts, "users".to_owned(), request.page_size);
        let after = page.after(&request.page_token, UserId::from_uuid(Uuid::nil()))?;
        let rows = self.acts.store.users(after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.user_id);
        let users = rows.into_iter().map(encode::user).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn end_role(&self, request: Request<EndRoleRequest>) -> Answer<EndRoleResponse> {
        act(&self.acts, request, decode::member::end_role).await
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Answer<ListRolesResponse> {
        let request = request.get_ref();
        let whose = decode::member::whose(&request.user_id, &request.team_id, &request.account_id)?;
        let list = format!("roles of {whose:?}, ended too: {}", request.with_ended);
        let page = Page::new(&self.acts, list, request.page_size);
        let after = page.after(&request.page_token, 0)?;
        let rows = self.acts.store.roles(whose, request.with_ended, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.role_id);
        let roles = rows.iter().map(encode::role_held).collect();
        Ok(Response::new(ListRolesResponse { roles, next_page_token }))
    }

    async fn assign_product(&self, request: Request<AssignProductRequest>) -> Answer<AssignProductResponse> {
        act(&self.acts, request, decode::member::assign_product).await
    }

    async fn end_product_assignment(
        &self,
        request: Request<EndProductAssignmentRequest>,
    ) -> Answer<EndProductAssignmentResponse> {
        act(&self.acts, request, decode::member::end_product).await
    }

    async fn list_product_assignments(
        &self,
        request: Request<ListProductAssignmentsRequest>,
    ) -> Answer<ListProductAssignmentsResponse> {
        let request = request.get_ref();
        let whose = decode::member::whose(&request.user_id, &request.team_id, "")?;
        let list = format!("product assignments of {whose:?}, ended too: {}", request.with_ended);
        let page = Page::new(&self.acts, list, request.page_size);
        let after = page.after(&request.page_token, 0)?;
        let rows = self.acts.store.products(whose, request.with_ended, after, page.rows()).await?;
        let (rows, next_page_token) = page.cut(rows, |last| last.assignment_id);
        let assignments = rows.iter().map(encode::product).collect();
        Ok(Response::new(ListProductAssignmentsResponse { assignments, next_page_token }))
    }
}

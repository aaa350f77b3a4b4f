//! People, what they may do in teams, and who may use the tokens of a team.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::entitlement::{hierarchy, members};
use drawdown_proto::entitlement::v1::{
    self as pb, AssignProductRequest, CreateUserRequest, EndProductAssignmentRequest, EndRoleRequest,
    GetUserRequest, ListProductAssignmentsRequest, ListRolesRequest, ListUsersRequest, SetRoleRequest,
};

use super::{Change, Connection, Pages, Session};
use crate::output::{Column, json_of, name, text};

/// People
#[derive(Args, Debug)]
pub(crate) struct UserCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: UserAction,
}

#[derive(Subcommand, Debug)]
enum UserAction {
    /// Registers a person
    #[command(after_help = "Example:\n  drawdown user create --email ada@example.com --name 'Ada Lovelace'")]
    Create {
        /// The mail address
        #[arg(long)]
        email: String,
        /// The name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Shows a person
    #[command(after_help = "Example:\n  drawdown user get user_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Get {
        /// The person
        user_id: String,
    },
    /// Lists people
    #[command(after_help = "Example:\n  drawdown user list")]
    List {
        #[command(flatten)]
        pages: Pages,
    },
}

/// What people may do
#[derive(Args, Debug)]
pub(crate) struct RoleCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: RoleAction,
}

/// Where a role is held.
#[derive(Args, Debug)]
struct Scope {
    /// For a role in a team
    #[arg(long, value_name = "TEAM_ID", default_value = "")]
    team: String,
    /// For the contract manager of an account
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
    account: String,
}

#[derive(Subcommand, Debug)]
enum RoleAction {
    /// Gives a person a role, in a team or for an account
    #[command(
        after_help = "Example:\n  drawdown role set user_01j2gv5gymfsfrn6rc3mq3yjjv primary-admin --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Set {
        /// The person
        user_id: String,
        /// The role
        role: Role,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        change: Change,
    },
    /// Ends the role of a person at once, and with a role in a team the product assignment
    #[command(
        after_help = "Example:\n  drawdown role end user_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    End {
        /// The person
        user_id: String,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        change: Change,
    },
    /// Lists roles of a person, a team or an account
    #[command(after_help = "Example:\n  drawdown role list --team team_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Of this person
        #[arg(long, value_name = "USER_ID", default_value = "")]
        user: String,
        #[command(flatten)]
        scope: Scope,
        /// Those that ended too
        #[arg(long)]
        with_ended: bool,
        #[command(flatten)]
        pages: Pages,
    },
}

/// Who may use the tokens of a team for their apps without being a buyer
#[derive(Args, Debug)]
pub(crate) struct ProductCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: ProductAction,
}

#[derive(Subcommand, Debug)]
enum ProductAction {
    /// Lets a person of a team use its tokens for the apps that they own
    #[command(
        after_help = "Example:\n  drawdown product assign team_01j2gv5gymfsfrn6rc3mq3yjjv user_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Assign(Assignment),
    /// Ends a product assignment at once
    #[command(
        after_help = "Example:\n  drawdown product end team_01j2gv5gymfsfrn6rc3mq3yjjv user_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    End(Assignment),
    /// Lists product assignments of a team or a person
    #[command(after_help = "Example:\n  drawdown product list --team team_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Of this team
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// Of this person
        #[arg(long, value_name = "USER_ID", default_value = "")]
        user: String,
        /// Those that ended too
        #[arg(long)]
        with_ended: bool,
        #[command(flatten)]
        pages: Pages,
    },
}

#[derive(Args, Debug)]
struct Assignment {
    /// The team
    team_id: String,
    /// The person
    user_id: String,
    /// The admin of the team who acts [default: the platform's operator]
    #[arg(long, value_name = "USER_ID", default_value = "")]
    by: String,
    #[command(flatten)]
    change: Change,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// The one primary admin of a team
    PrimaryAdmin,
    /// Another admin of a team
    SecondaryAdmin,
    /// A member of a team
    Member,
    /// The contract manager of an account
    ContractManager,
}

const USER: [Column; 3] = [text("user", "user_id"), text("email", "email"), text("name", "name")];
const HELD: [Column; 6] = [
    text("user", "user_id"),
    name("role", "role", "ROLE_"),
    text("team", "team_id"),
    text("account", "account_id"),
    text("from", "from"),
    text("to", "to"),
];
const ASSIGNMENT: [Column; 5] = [
    text("team", "team_id"),
    text("user", "user_id"),
    text("from", "from"),
    text("made by", "made_by_user_id"),
    text("to", "to"),
];

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::PrimaryAdmin => Self::PrimaryAdmin,
            Role::SecondaryAdmin => Self::SecondaryAdmin,
            Role::Member => Self::Member,
            Role::ContractManager => Self::ContractManager,
        }
    }
}

impl UserCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = members(&session.entitlement);
        match self.action {
            UserAction::Create { email, name, change } => {
                let request = CreateUserRequest { email, name, request_id: change.id() };
                let answer = hierarchy(&session.entitlement).create_user(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreateUserResponse", &answer)?;
                session.output.record(&answer, "user", &USER)
            }
            UserAction::Get { user_id } => {
                let answer = client.get_user(GetUserRequest { user_id }).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.GetUserResponse", &answer)?;
                session.output.record(&answer, "user", &USER)
            }
            UserAction::List { pages } => {
                let name = "drawdown.entitlement.v1.ListUsersResponse";
                let answer = pages
                    .collect(name, "users", |page_size, page_token| {
                        let mut client = client.clone();
                        async move { client.list_users(ListUsersRequest { page_size, page_token }).await }
                    })
                    .await?;
                session.output.table(&answer, "users", &USER)
            }
        }
    }
}

impl RoleCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            RoleAction::Set { user_id, role, scope: Scope { team, account }, change } => {
                let request = SetRoleRequest {
                    user_id,
                    role: pb::Role::from(role).into(),
                    team_id: team,
                    account_id: account,
                    request_id: change.id(),
                };
                let answer = hierarchy(&session.entitlement).set_role(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.SetRoleResponse", &answer)?;
                session.output.record(&answer, "", &[text("from", "from")])
            }
            RoleAction::End { user_id, scope: Scope { team, account }, change } => {
                let request =
                    EndRoleRequest { user_id, team_id: team, account_id: account, request_id: change.id() };
                let answer = members(&session.entitlement).end_role(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.EndRoleResponse", &answer)?;
                session.output.record(&answer, "role", &HELD)
            }
            RoleAction::List { user, scope, with_ended, pages } => {
                list_roles(&session, (user, scope, with_ended), pages).await
            }
        }
    }
}

async fn list_roles(
    session: &Session,
    (user_id, scope, with_ended): (String, Scope, bool),
    pages: Pages,
) -> Result<()> {
    let client = members(&session.entitlement);
    let answer = pages
        .collect("drawdown.entitlement.v1.ListRolesResponse", "roles", |page_size, page_token| {
            let request = ListRolesRequest {
                user_id: user_id.clone(),
                team_id: scope.team.clone(),
                account_id: scope.account.clone(),
                with_ended,
                page_size,
                page_token,
            };
            let mut client = client.clone();
            async move { client.list_roles(request).await }
        })
        .await?;
    session.output.table(&answer, "roles", &HELD)
}

impl ProductCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = members(&session.entitlement);
        match self.action {
            ProductAction::Assign(Assignment { team_id, user_id, by, change }) => {
                let request =
                    AssignProductRequest { team_id, user_id, by_user_id: by, request_id: change.id() };
                let answer = client.assign_product(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.AssignProductResponse", &answer)?;
                session.output.record(&answer, "assignment", &ASSIGNMENT)
            }
            ProductAction::End(Assignment { team_id, user_id, by, change }) => {
                let request =
                    EndProductAssignmentRequest { team_id, user_id, by_user_id: by, request_id: change.id() };
                let answer = client.end_product_assignment(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.EndProductAssignmentResponse", &answer)?;
                session.output.record(&answer, "assignment", &ASSIGNMENT)
            }
            ProductAction::List { team, user, with_ended, pages } => {
                let name = "drawdown.entitlement.v1.ListProductAssignmentsResponse";
                let answer = pages
                    .collect(name, "assignments", |page_size, page_token| {
                        let (team_id, user_id) = (team.clone(), user.clone());
                        let request = ListProductAssignmentsRequest {
                            team_id,
                            user_id,
                            with_ended,
                            page_size,
                            page_token,
                        };
                        let mut client = client.clone();
                        async move { client.list_product_assignments(request).await }
                    })
                    .await?;
                session.output.table(&answer, "assignments", &ASSIGNMENT)
            }
        }
    }
}

//! The one table method → who may call it, about what.
//!
//! A method without a row and a row without a method fail a test; a request that got a field which names
//! something, and which no rule looks at, fails another one.
//!
//! "Own" means, for a caller of one account, that everything a request names is of that account; for a
//! caller of one team, that something it names is of that team and nothing of another one. What is nobody's, or
//! does not exist, is nobody's own. Ids that live inside what is named (a lot of a team, a charge of a
//! team) are looked up inside of it and nowhere else.

use super::{
    Field, Kind, Peer, Peers, Reach, Role, Roles, Rule, Who,
    rule::Kind::{Account, App, Budget, Change, Client, Credential, Hub, Team, Transfer},
};

const OPERATOR: Roles = Roles::of(&[Role::Operator]);
/// Who reads what is of an account or a team.
const READERS: Roles =
    Roles::of(&[Role::BillingReader, Role::TeamAdmin, Role::ContractManager, Role::Operator]);
/// Who reads what is of everybody.
const BILLING: Roles = Roles::of(&[Role::BillingReader, Role::Operator]);
/// Who changes what is of a team.
const ADMINS: Roles = Roles::of(&[Role::TeamAdmin, Role::ContractManager, Role::Operator]);
/// Who changes what is of an account.
const MANAGERS: Roles = Roles::of(&[Role::ContractManager, Role::Operator]);
/// Who stands in the way of calls to an API.
const GATEWAY: Roles = Roles::of(&[Role::Gateway]);
const GATEWAY_OR_OPERATOR: Roles = Roles::of(&[Role::Gateway, Role::Operator]);

const METERING: Peers = Peers::of(&[Peer::Metering]);
const ENTITLEMENT: Peers = Peers::of(&[Peer::Entitlement]);
const SERVICES: Peers = Peers::of(&Peer::ALL);
const NO_SERVICE: Peers = Peers::NONE;

const fn field(path: &'static str, kind: Kind) -> Field {
    Field { path, kind }
}

const ACCOUNT: &[Field] = &[field("account_id", Account)];
const TEAM: &[Field] = &[field("team_id", Team)];
const ACCOUNT_TEAM: &[Field] = &[field("account_id", Account), field("team_id", Team)];
const ACCOUNT_TEAM_APP: &[Field] =
    &[field("account_id", Account), field("team_id", Team), field("app_id", App)];
const APP: &[Field] = &[field("app_id", App)];
const CREDENTIAL: &[Field] = &[field("credential_id", Credential)];
const TRANSFER: &[Field] = &[field("transfer_id", Transfer)];
const BY: &str = "by_user_id";

/// For the platform's own callers.
const fn platform(method: &'static str, roles: Roles, peers: Peers) -> Rule {
    Rule { method, who: Who::Some(roles, peers), reach: Reach::Platform, actor: None }
}

/// For callers of what the request names.
const fn own(method: &'static str, roles: Roles, peers: Peers, fields: &'static [Field]) -> Rule {
    Rule { method, who: Who::Some(roles, peers), reach: Reach::Named(fields), actor: None }
}

/// The same, where a person is named who acts.
const fn acted(method: &'static str, roles: Roles, fields: &'static [Field]) -> Rule {
    Rule { actor: Some(BY), ..own(method, roles, NO_SERVICE, fields) }
}

/// For everybody who is known: it tells all the same.
const fn known(method: &'static str) -> Rule {
    Rule { method, who: Who::Known, reach: Reach::Shared, actor: None }
}

/// For everybody: what a load balancer asks.
const fn anyone(method: &'static str) -> Rule {
    Rule { method, who: Who::Anyone, reach: Reach::Shared, actor: None }
}

/// Every rule.
pub const RULES: &[&[Rule]] = &[PLATFORM, METERING_RULES, LEDGER_RULES, ENTITLEMENT_RULES];

const PLATFORM: &[Rule] = &[
    anyone("grpc.health.v1.Health/Check"),
    anyone("grpc.health.v1.Health/Watch"),
    known("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    known("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

const METERING_RULES: &[Rule] = &[
    platform("drawdown.metering.v1.IngestService/OpenProducer", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.metering.v1.IngestService/NameLost", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.metering.v1.IngestService/Ingest", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.metering.v1.RecordService/RecordUsage", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.metering.v1.RecordService/RecordCloudEvents", GATEWAY_OR_OPERATOR, NO_SERVICE),
    own(
        "drawdown.metering.v1.UsageService/GetLiveUsage",
        READERS,
        NO_SERVICE,
        &[field("client_ids", Client), field("app_ids", App)],
    ),
    own(
        "drawdown.metering.v1.UsageService/WatchLiveUsage",
        READERS,
        NO_SERVICE,
        &[field("client_ids", Client), field("app_ids", App)],
    ),
    platform("drawdown.metering.v1.UsageService/GetMeteringStatus", BILLING, NO_SERVICE),
];

const LEDGER_RULES: &[Rule] = &[
    platform("drawdown.ledger.v1.AuditService/ListAudit", OPERATOR, NO_SERVICE),
    own("drawdown.ledger.v1.BudgetService/SetBudget", ADMINS, NO_SERVICE, ACCOUNT_TEAM_APP),
    own("drawdown.ledger.v1.BudgetService/GetBudget", READERS, NO_SERVICE, &[field("budget_id", Budget)]),
    own("drawdown.ledger.v1.BudgetService/ListBudgets", READERS, NO_SERVICE, ACCOUNT_TEAM),
    platform("drawdown.ledger.v1.CatalogService/CreateMeter", OPERATOR, NO_SERVICE),
    known("drawdown.ledger.v1.CatalogService/ListMeters"),
    platform("drawdown.ledger.v1.CatalogService/PublishRateCard", OPERATOR, NO_SERVICE),
    known("drawdown.ledger.v1.CatalogService/ListRateCards"),
    platform("drawdown.ledger.v1.CorrectionService/CorrectCharge", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.EventService/RecordEvents", Roles::NONE, METERING),
    own("drawdown.ledger.v1.ExplainService/ExplainCharge", READERS, NO_SERVICE, ACCOUNT_TEAM),
    platform("drawdown.ledger.v1.HoldService/ReserveTokens", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.HoldService/ExtendHold", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.HoldService/CaptureHold", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.HoldService/ReleaseHold", GATEWAY_OR_OPERATOR, NO_SERVICE),
    own("drawdown.ledger.v1.HoldService/GetHold", READERS.and(GATEWAY), NO_SERVICE, TEAM),
    own("drawdown.ledger.v1.HoldService/ListHolds", READERS.and(GATEWAY), NO_SERVICE, TEAM),
    platform("drawdown.ledger.v1.ImportService/ImportTeams", OPERATOR, NO_SERVICE),
    own(
        "drawdown.ledger.v1.LotService/MoveLot",
        MANAGERS,
        NO_SERVICE,
        &[field("account_id", Account), field("from_team_id", Team), field("to_team_id", Team)],
    ),
    platform("drawdown.ledger.v1.LotService/AdjustLot", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.LotService/RefundLot", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.LotService/ChargeBackLot", OPERATOR, NO_SERVICE),
    own(
        "drawdown.ledger.v1.NoticeService/WatchNotices",
        READERS,
        NO_SERVICE,
        &[field("filter.account_id", Account), field("filter.team_id", Team)],
    ),
    own(
        "drawdown.ledger.v1.NoticeService/ListNotices",
        READERS,
        NO_SERVICE,
        &[field("filter.account_id", Account), field("filter.team_id", Team)],
    ),
    own("drawdown.ledger.v1.PostingService/ListPostings", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.ReportService/SummarizeUsage", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.ReportService/StreamCharges", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.ReportService/StreamJournal", READERS, NO_SERVICE, ACCOUNT_TEAM),
    platform("drawdown.ledger.v1.ReportService/IssueStatements", OPERATOR, NO_SERVICE),
    own("drawdown.ledger.v1.ReportService/GetStatement", READERS, NO_SERVICE, ACCOUNT),
    own("drawdown.ledger.v1.ReportService/ListStatements", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.ReportService/GetForecast", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.ReportService/ExportUsage", READERS, NO_SERVICE, ACCOUNT_TEAM),
    platform("drawdown.ledger.v1.ReviewService/ChargeUnattributed", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.ReviewService/DismissUnattributed", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.ReviewService/AdoptUsage", OPERATOR, ENTITLEMENT),
    platform("drawdown.ledger.v1.ReviewService/ListLostRanges", BILLING, NO_SERVICE),
    platform("drawdown.ledger.v1.SettlementService/PostBatch", Roles::NONE, METERING),
    platform("drawdown.ledger.v1.SettlementService/GetCellPart", Roles::NONE, METERING),
    platform("drawdown.ledger.v1.SettlementService/GetShards", OPERATOR, METERING),
    platform("drawdown.ledger.v1.SettlementService/BeginReset", OPERATOR, METERING),
    platform("drawdown.ledger.v1.SettlementService/ResetAllShards", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.SettlementService/CreateProducer", OPERATOR, METERING),
    platform("drawdown.ledger.v1.SettlementService/OpenProducer", Roles::NONE, METERING),
    platform("drawdown.ledger.v1.SettlementService/NameLost", Roles::NONE, METERING),
    platform("drawdown.ledger.v1.SettlementService/HasSettledUsage", OPERATOR, ENTITLEMENT),
    platform("drawdown.ledger.v1.StandingService/ListStandings", OPERATOR, ENTITLEMENT),
    platform("drawdown.ledger.v1.StandingService/WatchStandings", OPERATOR, ENTITLEMENT),
    platform("drawdown.ledger.v1.TokenService/PurchaseTokens", OPERATOR, NO_SERVICE),
    platform("drawdown.ledger.v1.TokenService/GrantTokens", OPERATOR, NO_SERVICE),
    own("drawdown.ledger.v1.TokenService/ListLots", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.TokenService/GetBalance", READERS, ENTITLEMENT, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.TokenService/ListCharges", READERS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.ledger.v1.TokenService/ListJournal", READERS, NO_SERVICE, ACCOUNT_TEAM),
    platform("drawdown.ledger.v1.TokenService/ListUnattributed", BILLING, NO_SERVICE),
    platform("drawdown.ledger.v1.TokenService/VerifyLedger", OPERATOR, NO_SERVICE),
    own("drawdown.ledger.v1.WhatIfService/PriceMonth", READERS, NO_SERVICE, ACCOUNT_TEAM),
];

const ENTITLEMENT_RULES: &[Rule] = &[
    platform("drawdown.entitlement.v1.AccessService/CheckAccess", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccessService/BatchCheckAccess", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccessService/StreamCheckAccess", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccessService/WatchAccess", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccountService/Suspend", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccountService/LiftSuspension", OPERATOR, NO_SERVICE),
    own("drawdown.entitlement.v1.AccountService/ListSuspensions", READERS, NO_SERVICE, ACCOUNT),
    own("drawdown.entitlement.v1.AccountService/EndTrial", MANAGERS, NO_SERVICE, ACCOUNT),
    platform("drawdown.entitlement.v1.AccountService/ChangeContract", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.AccountService/PreparePurchase", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.ImportService/ImportAccounts", OPERATOR, NO_SERVICE),
    own("drawdown.entitlement.v1.CredentialService/ListCredentials", READERS, NO_SERVICE, APP),
    own("drawdown.entitlement.v1.CredentialService/RotateCredential", ADMINS, NO_SERVICE, CREDENTIAL),
    own("drawdown.entitlement.v1.CredentialService/RevokeCredential", ADMINS, NO_SERVICE, CREDENTIAL),
    platform("drawdown.entitlement.v1.HierarchyService/CreateAccount", OPERATOR, NO_SERVICE),
    own("drawdown.entitlement.v1.HierarchyService/GetAccount", READERS, SERVICES, ACCOUNT),
    own("drawdown.entitlement.v1.HierarchyService/CreateTeam", MANAGERS, NO_SERVICE, ACCOUNT),
    own("drawdown.entitlement.v1.HierarchyService/GetTeam", READERS, SERVICES, TEAM),
    own("drawdown.entitlement.v1.HierarchyService/ListTeams", READERS, SERVICES, ACCOUNT),
    platform("drawdown.entitlement.v1.HierarchyService/CreateUser", OPERATOR, NO_SERVICE),
    own("drawdown.entitlement.v1.HierarchyService/SetRole", ADMINS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.entitlement.v1.HierarchyService/CreateApp", MANAGERS, NO_SERVICE, ACCOUNT),
    own("drawdown.entitlement.v1.HierarchyService/ListApps", READERS, SERVICES, ACCOUNT),
    own(
        "drawdown.entitlement.v1.HierarchyService/AssignApp",
        ADMINS,
        NO_SERVICE,
        &[field("app_id", App), field("team_id", Team)],
    ),
    own("drawdown.entitlement.v1.HierarchyService/CreateCredential", ADMINS, NO_SERVICE, APP),
    platform("drawdown.entitlement.v1.HierarchyService/VerifyCredential", GATEWAY_OR_OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.HistoryService/ExplainResolution", BILLING, NO_SERVICE),
    own("drawdown.entitlement.v1.HistoryService/ListScheduledChanges", READERS, NO_SERVICE, ACCOUNT),
    own(
        "drawdown.entitlement.v1.HistoryService/CancelScheduledChange",
        MANAGERS,
        NO_SERVICE,
        &[field("change_id", Change)],
    ),
    platform("drawdown.entitlement.v1.HistoryService/CorrectAssignment", OPERATOR, NO_SERVICE),
    own("drawdown.entitlement.v1.HistoryService/ListAudit", MANAGERS, NO_SERVICE, ACCOUNT),
    own("drawdown.entitlement.v1.HubService/CreateHub", MANAGERS, NO_SERVICE, ACCOUNT),
    own("drawdown.entitlement.v1.HubService/ListHubs", READERS, NO_SERVICE, ACCOUNT),
    own(
        "drawdown.entitlement.v1.HubService/MoveApp",
        MANAGERS,
        NO_SERVICE,
        &[field("app_id", App), field("hub_id", Hub)],
    ),
    platform("drawdown.entitlement.v1.MemberService/GetUser", BILLING, NO_SERVICE),
    platform("drawdown.entitlement.v1.MemberService/ListUsers", BILLING, NO_SERVICE),
    own("drawdown.entitlement.v1.MemberService/EndRole", ADMINS, NO_SERVICE, ACCOUNT_TEAM),
    own("drawdown.entitlement.v1.MemberService/ListRoles", READERS, NO_SERVICE, ACCOUNT_TEAM),
    acted("drawdown.entitlement.v1.MemberService/AssignProduct", ADMINS, TEAM),
    acted("drawdown.entitlement.v1.MemberService/EndProductAssignment", ADMINS, TEAM),
    own("drawdown.entitlement.v1.MemberService/ListProductAssignments", READERS, NO_SERVICE, TEAM),
    platform("drawdown.entitlement.v1.PrincipalService/CreatePrincipal", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/ListPrincipals", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/EndPrincipal", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/CreateKey", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/ListKeys", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/RotateKey", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/RevokeKey", OPERATOR, NO_SERVICE),
    platform("drawdown.entitlement.v1.PrincipalService/AuthenticateKey", Roles::NONE, SERVICES),
    platform("drawdown.entitlement.v1.PrincipalService/ResolveOwners", Roles::NONE, SERVICES),
    platform("drawdown.entitlement.v1.ResolutionService/Resolve", BILLING.and(GATEWAY), SERVICES),
    platform("drawdown.entitlement.v1.ResolutionService/BatchResolve", BILLING.and(GATEWAY), SERVICES),
    acted("drawdown.entitlement.v1.TransferService/InviteTransfer", ADMINS, APP),
    acted("drawdown.entitlement.v1.TransferService/AcceptTransfer", ADMINS, TRANSFER),
    acted(
        "drawdown.entitlement.v1.TransferService/ChooseTransferTeam",
        ADMINS,
        &[field("transfer_id", Transfer), field("team_id", Team)],
    ),
    acted("drawdown.entitlement.v1.TransferService/ConfirmTransfer", ADMINS, TRANSFER),
    acted("drawdown.entitlement.v1.TransferService/WithdrawTransfer", ADMINS, TRANSFER),
    acted("drawdown.entitlement.v1.TransferService/DeclineTransfer", ADMINS, TRANSFER),
    own("drawdown.entitlement.v1.TransferService/GetTransfer", READERS, NO_SERVICE, TRANSFER),
    own(
        "drawdown.entitlement.v1.TransferService/ListTransfers",
        READERS,
        NO_SERVICE,
        &[field("account_id", Account), field("app_id", App)],
    ),
    acted("drawdown.entitlement.v1.TransferService/RemoveEditor", ADMINS, APP),
];

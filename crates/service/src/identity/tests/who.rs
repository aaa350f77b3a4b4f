//! Who may call what, written down a second time and by hand. The table is made of constants that stand for sets of roles: a
//! row that names the wrong one looks like any other row, and what is walked with the table would walk the mistake. So
//! whoever adds a method or moves one says here what was meant, and the two have to agree.

use std::collections::BTreeMap;

use super::{Peer, Reach, Role, Rule, Who};
use Role::{BillingReader, ContractManager, Gateway, Operator, TeamAdmin};

/// About what callers ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The same for all.
    Shared,
    /// What is of everybody: no caller of one account or team.
    Platform,
    /// What the request names, which has to be the caller's own.
    Named,
}

/// Methods that are for the same callers.
struct For {
    roles: &'static [Role],
    services: &'static [Peer],
    about: About,
    /// `service.v1.Service/Method` behind `drawdown.`.
    methods: &'static [&'static str],
}

/// Everybody, and everybody who is known.
const ANYONE: [&str; 2] = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];
const KNOWN: [&str; 4] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "drawdown.ledger.v1.CatalogService/ListMeters",
    "drawdown.ledger.v1.CatalogService/ListRateCards",
];

const WHO: &[For] = &[
    For {
        roles: &[],
        services: &[Peer::Metering],
        about: About::Platform,
        methods: &[
            "ledger.v1.EventService/RecordEvents",
            "ledger.v1.SettlementService/PostBatch",
            "ledger.v1.SettlementService/GetCellPart",
            "ledger.v1.SettlementService/OpenProducer",
            "ledger.v1.SettlementService/NameLost",
        ],
    },
    For {
        roles: &[],
        services: &[Peer::Metering, Peer::Ledger, Peer::Entitlement],
        about: About::Platform,
        methods: &[
            "entitlement.v1.PrincipalService/AuthenticateKey",
            "entitlement.v1.PrincipalService/ResolveOwners",
        ],
    },
    For {
        roles: &[BillingReader, Operator],
        services: &[],
        about: About::Platform,
        methods: &[
            "metering.v1.UsageService/GetMeteringStatus",
            "ledger.v1.ReviewService/ListLostRanges",
            "ledger.v1.TokenService/ListUnattributed",
            "entitlement.v1.HistoryService/ExplainResolution",
            "entitlement.v1.MemberService/GetUser",
            "entitlement.v1.MemberService/ListUsers",
        ],
    },
    For {
        roles: &[Gateway, BillingReader, Operator],
        services: &[Peer::Metering, Peer::Ledger, Peer::Entitlement],
        about: About::Platform,
        methods: &[
            "entitlement.v1.ResolutionService/Resolve",
            "entitlement.v1.ResolutionService/BatchResolve",
        ],
    },
    For {
        roles: &[Gateway, Operator],
        services: &[],
        about: About::Platform,
        methods: &[
            "metering.v1.IngestService/OpenProducer",
            "metering.v1.IngestService/NameLost",
            "metering.v1.IngestService/Ingest",
            "metering.v1.RecordService/RecordUsage",
            "metering.v1.RecordService/RecordCloudEvents",
            "ledger.v1.HoldService/ReserveTokens",
            "ledger.v1.HoldService/ExtendHold",
            "ledger.v1.HoldService/CaptureHold",
            "ledger.v1.HoldService/ReleaseHold",
            "entitlement.v1.AccessService/CheckAccess",
            "entitlement.v1.AccessService/BatchCheckAccess",
            "entitlement.v1.AccessService/StreamCheckAccess",
            "entitlement.v1.AccessService/WatchAccess",
            "entitlement.v1.HierarchyService/VerifyCredential",
        ],
    },
    For {
        roles: &[Operator],
        services: &[],
        about: About::Platform,
        methods: &[
            "ledger.v1.AuditService/ListAudit",
            "ledger.v1.CatalogService/CreateMeter",
            "ledger.v1.CatalogService/PublishRateCard",
            "ledger.v1.CorrectionService/CorrectCharge",
            "ledger.v1.ImportService/ImportTeams",
            "ledger.v1.LotService/AdjustLot",
            "ledger.v1.LotService/RefundLot",
            "ledger.v1.LotService/ChargeBackLot",
            "ledger.v1.ReportService/IssueStatements",
            "ledger.v1.ReviewService/ChargeUnattributed",
            "ledger.v1.ReviewService/DismissUnattributed",
            "ledger.v1.SettlementService/ResetAllShards",
            "ledger.v1.TokenService/PurchaseTokens",
            "ledger.v1.TokenService/GrantTokens",
            "ledger.v1.TokenService/VerifyLedger",
            "entitlement.v1.AccountService/Suspend",
            "entitlement.v1.AccountService/LiftSuspension",
            "entitlement.v1.AccountService/ChangeContract",
            "entitlement.v1.AccountService/PreparePurchase",
            "entitlement.v1.ImportService/ImportAccounts",
            "entitlement.v1.HierarchyService/CreateAccount",
            "entitlement.v1.HierarchyService/CreateUser",
            "entitlement.v1.HistoryService/CorrectAssignment",
            "entitlement.v1.PrincipalService/CreatePrincipal",
            "entitlement.v1.PrincipalService/ListPrincipals",
            "entitlement.v1.PrincipalService/EndPrincipal",
            "entitlement.v1.PrincipalService/CreateKey",
            "entitlement.v1.PrincipalService/ListKeys",
            "entitlement.v1.PrincipalService/RotateKey",
            "entitlement.v1.PrincipalService/RevokeKey",
        ],
    },
    For {
        roles: &[Operator],
        services: &[Peer::Entitlement],
        about: About::Platform,
        methods: &[
            "ledger.v1.ReviewService/AdoptUsage",
            "ledger.v1.SettlementService/HasSettledUsage",
            "ledger.v1.StandingService/ListStandings",
            "ledger.v1.StandingService/WatchStandings",
        ],
    },
    For {
        roles: &[Operator],
        services: &[Peer::Metering],
        about: About::Platform,
        methods: &[
            "ledger.v1.SettlementService/GetShards",
            "ledger.v1.SettlementService/BeginReset",
            "ledger.v1.SettlementService/CreateProducer",
        ],
    },
    For {
        roles: &[BillingReader, TeamAdmin, ContractManager, Operator],
        services: &[],
        about: About::Named,
        methods: &[
            "metering.v1.UsageService/GetLiveUsage",
            "metering.v1.UsageService/WatchLiveUsage",
            "ledger.v1.BudgetService/GetBudget",
            "ledger.v1.BudgetService/ListBudgets",
            "ledger.v1.ExplainService/ExplainCharge",
            "ledger.v1.NoticeService/WatchNotices",
            "ledger.v1.NoticeService/ListNotices",
            "ledger.v1.PostingService/ListPostings",
            "ledger.v1.ReportService/SummarizeUsage",
            "ledger.v1.ReportService/StreamCharges",
            "ledger.v1.ReportService/StreamJournal",
            "ledger.v1.ReportService/GetStatement",
            "ledger.v1.ReportService/ListStatements",
            "ledger.v1.ReportService/GetForecast",
            "ledger.v1.ReportService/ExportUsage",
            "ledger.v1.TokenService/ListLots",
            "ledger.v1.TokenService/ListCharges",
            "ledger.v1.TokenService/ListJournal",
            "ledger.v1.WhatIfService/PriceMonth",
            "entitlement.v1.AccountService/ListSuspensions",
            "entitlement.v1.CredentialService/ListCredentials",
            "entitlement.v1.HistoryService/ListScheduledChanges",
            "entitlement.v1.HubService/ListHubs",
            "entitlement.v1.MemberService/ListRoles",
            "entitlement.v1.MemberService/ListProductAssignments",
            "entitlement.v1.TransferService/GetTransfer",
            "entitlement.v1.TransferService/ListTransfers",
        ],
    },
    For {
        roles: &[BillingReader, TeamAdmin, ContractManager, Operator],
        services: &[Peer::Entitlement],
        about: About::Named,
        methods: &["ledger.v1.TokenService/GetBalance"],
    },
    For {
        roles: &[BillingReader, TeamAdmin, ContractManager, Operator],
        services: &[Peer::Metering, Peer::Ledger, Peer::Entitlement],
        about: About::Named,
        methods: &[
            "entitlement.v1.HierarchyService/GetAccount",
            "entitlement.v1.HierarchyService/GetTeam",
            "entitlement.v1.HierarchyService/ListTeams",
            "entitlement.v1.HierarchyService/ListApps",
        ],
    },
    For {
        roles: &[ContractManager, Operator],
        services: &[],
        about: About::Named,
        methods: &[
            "ledger.v1.LotService/MoveLot",
            "entitlement.v1.AccountService/EndTrial",
            "entitlement.v1.HierarchyService/CreateTeam",
            "entitlement.v1.HierarchyService/CreateApp",
            "entitlement.v1.HistoryService/CancelScheduledChange",
            "entitlement.v1.HistoryService/ListAudit",
            "entitlement.v1.HubService/CreateHub",
            "entitlement.v1.HubService/MoveApp",
        ],
    },
    For {
        roles: &[Gateway, BillingReader, TeamAdmin, ContractManager, Operator],
        services: &[],
        about: About::Named,
        methods: &["ledger.v1.HoldService/GetHold", "ledger.v1.HoldService/ListHolds"],
    },
    For {
        roles: &[TeamAdmin, ContractManager, Operator],
        services: &[],
        about: About::Named,
        methods: &[
            "ledger.v1.BudgetService/SetBudget",
            "entitlement.v1.CredentialService/RotateCredential",
            "entitlement.v1.CredentialService/RevokeCredential",
            "entitlement.v1.HierarchyService/SetRole",
            "entitlement.v1.HierarchyService/AssignApp",
            "entitlement.v1.HierarchyService/CreateCredential",
            "entitlement.v1.MemberService/EndRole",
            "entitlement.v1.MemberService/AssignProduct",
            "entitlement.v1.MemberService/EndProductAssignment",
            "entitlement.v1.TransferService/InviteTransfer",
            "entitlement.v1.TransferService/AcceptTransfer",
            "entitlement.v1.TransferService/ChooseTransferTeam",
            "entitlement.v1.TransferService/ConfirmTransfer",
            "entitlement.v1.TransferService/WithdrawTransfer",
            "entitlement.v1.TransferService/DeclineTransfer",
            "entitlement.v1.TransferService/RemoveEditor",
        ],
    },
];

type Said = (Vec<Role>, Vec<Peer>, About);

fn of_rule(rule: &Rule) -> Said {
    let about = match rule.reach {
        Reach::Shared => About::Shared,
        Reach::Platform => About::Platform,
        Reach::Named(_) => About::Named,
    };
    match rule.who {
        Who::Some(roles, peers) => (roles.iter().collect(), peers.iter().collect(), about),
        Who::Anyone | Who::Known => (Vec::new(), Vec::new(), about),
    }
}

#[test]
fn the_table_says_what_was_meant() {
    let meant = WHO.iter().flat_map(|group| {
        group.methods.iter().map(|method| {
            let mut roles = group.roles.to_vec();
            roles.sort_unstable();
            (format!("drawdown.{method}"), (roles, group.services.to_vec(), group.about))
        })
    });
    let everybody = ANYONE.iter().chain(&KNOWN);
    let everybody = everybody.map(|method| ((*method).to_owned(), (Vec::new(), Vec::new(), About::Shared)));
    let meant: Vec<(String, Said)> = meant.chain(everybody).collect();
    let count = meant.len();
    let meant: BTreeMap<String, Said> = meant.into_iter().collect();
    assert_eq!(meant.len(), count, "a method is here twice");
    let said: BTreeMap<String, Said> =
        super::rules().map(|rule| (rule.method.to_owned(), of_rule(rule))).collect();
    let differ: Vec<_> = meant
        .iter()
        .filter(|(method, meant)| said.get(*method) != Some(meant))
        .map(|(method, meant)| format!("{method}: meant {meant:?}, the table says {:?}", said.get(method)))
        .chain(
            said.keys()
                .filter(|method| !meant.contains_key(*method))
                .map(|method| format!("{method} is not here")),
        )
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    for (methods, who) in [(&ANYONE[..], Who::Anyone), (&KNOWN[..], Who::Known)] {
        for method in methods {
            assert_eq!(
                super::rules().find(|rule| rule.method == *method).map(|rule| rule.who),
                Some(who),
                "{method}"
            );
        }
    }
}

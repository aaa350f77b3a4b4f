use drawdown_types::ClientId;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-03-10T12:00:30Z")
}

fn person(email: &str, role: Role) -> PersonImport {
    PersonImport {
        email: email.to_owned(),
        name: "Somebody".to_owned(),
        role,
        from: at("2025-06-01T08:00:00Z"),
        uses_tokens: false,
    }
}

fn team(name: &str, created_at: &str) -> TeamImport {
    TeamImport { name: name.to_owned(), created_at: at(created_at), members: Vec::new() }
}

fn credential(client_id: &str, created_at: &str) -> CredentialImport {
    CredentialImport {
        client_id: ClientId::new(client_id).unwrap(),
        created_at: at(created_at),
        revoked_at: None,
    }
}

fn link(team: &str, from: &str) -> Change<String> {
    Change { from: at(from), value: team.to_owned() }
}

/// An account with all that can be imported, and nothing wrong with it.
fn account() -> AccountImport {
    AccountImport {
        name: "Northwind".to_owned(),
        created_at: at("2025-05-31T23:00:10Z"),
        opened_as: ContractKind::Flex,
        contracts: vec![
            Change { from: at("2025-09-01T00:00:00Z"), value: ContractKind::Enterprise },
            Change { from: at("2026-09-01T00:00:00Z"), value: ContractKind::Flex },
        ],
        commercial_from: Some(at("2025-07-01T10:00:01Z")),
        teams: vec![team("Maps", "2025-06-01T08:00:00Z"), team("Search", "2025-06-02T08:00:00Z")],
        managers: vec![person("eva@example.org", Role::ContractManager)],
        hubs: vec!["Europe".to_owned()],
        apps: vec![AppImport {
            name: "Atlas".to_owned(),
            owner_email: "eva@example.org".to_owned(),
            hub: "Europe".to_owned(),
            assignments: vec![
                link("Maps", "2025-06-01T09:00:00Z"),
                link("Search", "2026-01-01T00:00:01Z"),
                link("Maps", "2026-04-01T00:00:00Z"),
            ],
            credentials: vec![
                credential("atlas-2", "2025-08-01T00:00:00Z"),
                CredentialImport {
                    revoked_at: Some(at("2025-08-02T00:00:01Z")),
                    ..credential("atlas-1", "2025-06-01T09:00:59Z")
                },
            ],
        }],
    }
}

fn faults(change: impl FnOnce(&mut AccountImport)) -> Vec<(String, ImportProblem)> {
    let mut import = account();
    change(&mut import);
    let faults = plan_import(now(), &[import], &Rules::default()).unwrap_err();
    faults.into_iter().map(|fault| (fault.field, fault.problem)).collect()
}

fn fault(field: &str, problem: impl Into<ImportProblem>) -> (String, ImportProblem) {
    (format!("accounts[0].{field}"), problem.into())
}

#[test]
fn an_account_moves_with_its_edges() {
    let rules = Rules::default();
    let rows = plan_import(now(), &[account()], &rules).unwrap();
    let [rows] = &rows[..] else { panic!("one account") };
    assert_eq!(rows.account.contract_from, at("2025-05-31T23:00:00Z"));
    assert_eq!(rows.account.commercial_from, None);
    assert_eq!(rows.commercial_from, Some(at("2025-07-01T10:01:00Z")));
    // the earliest credential begins the trial, though it comes second
    assert_eq!(rows.trial, Some(Trial::begin(at("2025-06-01T09:00:59Z"), &rules)));
    assert_eq!(rows.unsettled_from, Some(at("2025-06-01T09:00:00Z")));
    let [app] = &rows.apps[..] else { panic!("one app") };
    assert_eq!(app.hub, Some(0));
    let links = [
        (0, at("2025-06-01T09:00:00Z"), true),
        (1, at("2026-01-01T00:01:00Z"), true),
        (0, at("2026-04-01T00:00:00Z"), false),
    ];
    assert_eq!(app.assignments, links);
    let revocation =
        Revocation { revoked_at: at("2025-08-02T00:00:01Z"), unknown_from: at("2025-08-02T00:01:00Z") };
    let credentials = [(at("2025-08-01T00:00:00Z"), None), (at("2025-06-01T09:00:00Z"), Some(revocation))];
    assert_eq!(app.credentials, credentials);
}

#[test]
fn d50_an_account_that_was_commercial_first_has_no_trial() {
    let rules = Rules::default();
    for (commercial_from, from_start, later, trial) in [
        (None, None, None, true),
        (Some("2025-05-31T23:00:10Z"), Some("2025-05-31T23:00:00Z"), None, false),
        (Some("2025-05-31T23:00:11Z"), None, Some("2025-05-31T23:01:00Z"), false),
        (Some("2025-06-01T09:00:00Z"), None, Some("2025-06-01T09:00:00Z"), false),
        (Some("2025-06-01T09:00:01Z"), None, Some("2025-06-01T09:01:00Z"), true),
    ] {
        let import = AccountImport { commercial_from: commercial_from.map(at), ..account() };
        let rows = plan_import(now(), &[import], &rules).unwrap();
        assert_eq!(rows[0].account.commercial_from, from_start.map(at), "{commercial_from:?}");
        assert_eq!(rows[0].commercial_from, later.map(at), "{commercial_from:?}");
        assert_eq!(rows[0].trial.is_some(), trial, "{commercial_from:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_its_place() {
    let wrong = faults(|import| {
        import.teams[1].created_at = at("2025-05-30T00:00:00Z");
        import.apps[0].hub = "Asia".to_owned();
        import.apps[0].assignments[1].value = "Sales".to_owned();
        import.apps[0].credentials[0].created_at = at("2026-03-10T12:00:31Z");
    });
    let opened_at = at("2025-05-31T23:00:10Z");
    let unknown = |what, name: &str| ImportProblem::Unknown { what, name: name.to_owned() };
    let late = at("2026-03-10T12:00:31Z");
    assert_eq!(
        wrong,
        [
            fault(
                "teams[1].created_at",
                OpenRefusal::BeforeAccount { at: at("2025-05-30T00:00:00Z"), opened_at }
            ),
            fault("apps[0].hub", unknown("hub", "Asia")),
            fault("apps[0].assignments[1].team", unknown("team", "Sales")),
            // what is left of the assignments has the same team twice
            fault("apps[0].assignments[2].team", ImportProblem::Same),
            fault("apps[0].credentials[0].created_at", CredentialRefusal::InFuture { at: late }),
        ]
    );
}

#[test]
fn d57_contracts_change_where_months_begin_and_in_order() {
    let kinds = |changes: &[(&str, ContractKind)]| {
        let changes: Vec<_> =
            changes.iter().map(|(from, value)| Change { from: at(from), value: *value }).collect();
        faults(|import| import.contracts = changes)
    };
    use ContractKind::{Enterprise, Flex};
    let october = at("2025-10-01T00:00:00Z");
    assert_eq!(
        kinds(&[("2025-09-02T00:00:00Z", Enterprise)]),
        [fault("contracts[0].from", ImportProblem::NotMonth(october))]
    );
    assert_eq!(kinds(&[("2025-10-01T00:00:00Z", Flex)]), [fault("contracts[0].kind", ImportProblem::Same)]);
    assert_eq!(
        kinds(&[("2025-10-01T00:00:00Z", Enterprise), ("2025-10-01T00:00:00Z", Flex)]),
        [fault("contracts[1].from", ImportProblem::NotAfter { edge: october, before: october })]
    );
    let far = at("2027-05-01T00:00:00Z");
    let latest = Rules::default().latest_edge(now());
    assert_eq!(
        kinds(&[("2027-05-01T00:00:00Z", Enterprise)]),
        [fault("contracts[0].from", ImportProblem::TooFarAhead { edge: far, latest })]
    );
    let mut import = account();
    import.contracts = vec![Change { from: at("2026-04-01T00:00:00Z"), value: Enterprise }];
    let just_before = at("2026-03-31T23:59:56Z");
    let faults = plan_import(just_before, &[import], &Rules::default()).unwrap_err();
    assert_eq!(faults[0].problem, ImportProblem::TooNear(at("2026-04-01T00:01:00Z")));
}

#[test]
fn names_people_and_client_ids_come_once() {
    let twice = |field: &str| ImportProblem::Twice(format!("accounts[0].{field}"));
    assert_eq!(
        faults(|import| import.teams[1].name = "Maps".to_owned())[0],
        fault("teams[1].name", twice("teams[0].name"))
    );
    assert_eq!(faults(|import| import.hubs.push("Europe".to_owned())), [fault("hubs[1]", twice("hubs[0]"))]);
    let members = [person("A@example.org", Role::Member), person("a@Example.org", Role::Member)];
    assert_eq!(
        faults(|import| import.teams[0].members = members.to_vec()),
        [fault("teams[0].members[1].email", twice("teams[0].members[0].email"))]
    );
    assert_eq!(
        faults(|import| import.apps[0].credentials[1].client_id = ClientId::new("atlas-2").unwrap()),
        [fault("apps[0].credentials[1].client_id", twice("apps[0].credentials[0].client_id"))]
    );
    let other = AccountImport { hubs: Vec::new(), apps: account().apps, ..account() };
    let both = plan_import(now(), &[account(), other], &Rules::default()).unwrap_err();
    let fields: Vec<_> = both.iter().map(|fault| fault.field.as_str()).collect();
    let expected = ["hub", "credentials[0].client_id", "credentials[1].client_id"];
    assert_eq!(fields, expected.map(|field| format!("accounts[1].apps[0].{field}")));
}

#[test]
fn people_have_roles_of_their_place() {
    let members = [person("a@example.org", Role::PrimaryAdmin), person("b@example.org", Role::PrimaryAdmin)];
    assert_eq!(
        faults(|import| import.teams[0].members = members.to_vec()),
        [fault("teams[0].members", ImportProblem::TwoPrimaryAdmins)]
    );
    let manager = person("a@example.org", Role::ContractManager);
    assert_eq!(
        faults(|import| import.teams[0].members = vec![manager]),
        [fault("teams[0].members[0].role", ImportProblem::RoleElsewhere)]
    );
    let assigned = PersonImport { uses_tokens: true, ..person("a@example.org", Role::ContractManager) };
    assert_eq!(
        faults(|import| import.managers = vec![assigned]),
        [fault("managers[0].uses_tokens", ImportProblem::NeedsNone)]
    );
    let late = PersonImport { from: at("2026-03-10T12:00:31Z"), ..person("a@example.org", Role::Member) };
    assert_eq!(
        faults(|import| import.managers = vec![late]),
        [
            fault("managers[0].role", ImportProblem::RoleElsewhere),
            fault("managers[0].from", ImportProblem::InFuture(at("2026-03-10T12:00:31Z"))),
        ]
    );
}

#[test]
fn histories_of_apps_are_in_order_and_not_older_than_what_they_name() {
    let edge = at("2025-06-01T09:00:00Z");
    assert_eq!(
        faults(|import| import.apps[0].assignments[1].from = at("2025-06-01T08:59:01Z"))[0],
        fault(
            "apps[0].assignments[1].from",
            ImportProblem::BeforeTeam { edge, created_at: at("2025-06-02T08:00:00Z") }
        )
    );
    assert_eq!(
        faults(|import| import.apps[0].assignments[0].from = at("2026-01-01T00:00:30Z")),
        [fault(
            "apps[0].assignments[1].from",
            ImportProblem::NotAfter { edge: at("2026-01-01T00:01:00Z"), before: at("2026-01-01T00:01:00Z") }
        )]
    );
    let latest = Rules::default().latest_edge(now());
    let far = at("2027-05-01T00:00:00Z");
    assert_eq!(
        faults(|import| import.apps[0].assignments[2].from = far),
        [fault("apps[0].assignments[2].from", ImportProblem::TooFarAhead { edge: far, latest })]
    );
    let revoked = at("2025-07-31T23:59:59Z");
    assert_eq!(
        faults(|import| import.apps[0].credentials[0].revoked_at = Some(revoked)),
        [fault(
            "apps[0].credentials[0].revoked_at",
            ImportProblem::RevokedBefore { at: revoked, created_at: at("2025-08-01T00:00:00Z") }
        )]
    );
    let rules = Rules { credentials_per_app_max: 1, ..Rules::default() };
    assert!(plan_import(now(), &[account()], &rules).is_ok(), "a revoked one takes no place");
    let mut import = account();
    import.apps[0].credentials[1].revoked_at = Some(at("2026-03-10T12:00:31Z"));
    let faults = plan_import(now(), &[import], &rules).unwrap_err();
    let full = CredentialRefusal::TooMany { max: 1 };
    assert_eq!(
        (faults[0].field.as_str(), &faults[0].problem),
        ("accounts[0].apps[0].credentials[1]", &full.into())
    );
}

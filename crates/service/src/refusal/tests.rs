use super::*;

/// What a caller sees of a status.
fn render(status: &Status) -> String {
    let details = status.get_error_details();
    let mut lines = vec![format!("{:?}: {}", status.code(), status.message())];
    if let Some(info) = details.error_info() {
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        lines.push(format!("reason {} of {} {metadata:?}", info.reason, info.domain));
    }
    if let Some(bad) = details.bad_request() {
        lines.extend(
            bad.field_violations
                .iter()
                .map(|v| format!("field {}: {} {}", v.field, v.description, v.reason).trim().to_owned()),
        );
    }
    if let Some(retry) = details.retry_info() {
        lines.push(format!("retry after {:?}", retry.retry_delay));
    }
    lines.join("\n")
}

#[test]
fn violations_are_sent_all_at_once_with_their_paths() {
    let mut violations = Violations::new();
    let id = violations.field("team_id", || "x".parse::<drawdown_types::TeamId>());
    let line: Option<i64> = violations.within("lines[3]", |line| {
        line.within("window", |window| window.push("start", "is not on an edge"));
        line.require("quantity", None)
    });
    let refusal = violations.finish("REQUEST_INVALID", id.zip(line)).unwrap_err();
    insta::assert_snapshot!(render(&refusal.into()), @r#"
    InvalidArgument: 3 fields are invalid
    reason REQUEST_INVALID of drawdown []
    field team_id: "x" is not an id of the form team_ and 26 base-32 digits
    field lines[3].window.start: is not on an edge
    field lines[3].quantity: must be set
    "#);
}

#[test]
fn a_violation_may_name_the_reason() {
    let mut violations = Violations::new();
    violations.push_as("PURCHASE_BELOW_MINIMUM", "tokens", "99 is below the minimum of 100");
    let refusal = violations.check("REQUEST_INVALID").unwrap_err();
    insta::assert_snapshot!(render(&refusal.into()), @r"
    InvalidArgument: tokens: 99 is below the minimum of 100
    reason PURCHASE_BELOW_MINIMUM of drawdown []
    field tokens: 99 is below the minimum of 100 PURCHASE_BELOW_MINIMUM
    ");
}

#[test]
fn nothing_wrong_gives_the_value() {
    assert_eq!(Violations::new().finish("REQUEST_INVALID", Some(7)), Ok(7));
}

#[test]
fn a_retry_hint_and_values_travel() {
    let refusal = Refusal::new(Code::ResourceExhausted, "OVERLOADED", "too many calls")
        .retry_after(Duration::from_millis(250))
        .metadata("limit", 512);
    insta::assert_snapshot!(render(&refusal.into()), @r#"
    ResourceExhausted: too many calls
    reason OVERLOADED of drawdown [("limit", "512")]
    retry after Some(250ms)
    "#);
}

#[tokio::test]
async fn internal_causes_stay_inside() {
    let status = request_id::scope("req-1".into(), async {
        internal(anyhow::anyhow!("connection refused").context("could not read lots"))
    })
    .await;
    insta::assert_snapshot!(render(&status), @r#"
    Internal: the service failed
    reason INTERNAL of drawdown [("request_id", "req-1")]
    "#);
}

#[test]
fn violations_have_a_limit() {
    let mut violations = Violations::new();
    for index in 0..VIOLATIONS_MAX + 50 {
        violations.push(&format!("lines[{index}]"), "is wrong");
    }
    assert_eq!(violations.check("REQUEST_INVALID").unwrap_err().violations.len(), VIOLATIONS_MAX);
}

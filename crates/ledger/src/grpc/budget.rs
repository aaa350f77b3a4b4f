//! `BudgetService`.

use std::sync::Arc;

use drawdown_ledger_core::{BudgetState, BudgetTerms, month_of};
use drawdown_proto::{
    ledger::v1::{
        self, GetBudgetRequest, GetBudgetResponse, ListBudgetsRequest, ListBudgetsResponse, SetBudgetRequest,
        SetBudgetResponse, budget_service_server::BudgetService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Refusal, Violations, page};
use drawdown_types::{AccountId, BudgetId, MicroTokens, TeamId, Timestamp};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    decode::{parsed, request_id},
    encode_notice::month_text,
    status,
};
use crate::{
    budgets::BudgetOrder,
    error::Error,
    reason,
    service::{Ledger, Once},
    store::{
        budgets::{BudgetRead, Which},
        idempotency::RequestKey,
    },
    tokens::check_account,
};

const PAGE_ROWS_DEFAULT: u32 = 1000;
/// Most soft levels of a budget.
const SOFT_LEVELS_MAX: usize = 10;

/// `BudgetService` over a ledger.
#[derive(Clone)]
pub struct Budgets(Arc<Ledger>);

impl Budgets {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn set(&self, request: SetBudgetRequest) -> Result<SetBudgetResponse, Error> {
        let order = order(&request)?;
        let key = RequestKey::new("SetBudget", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let (tx, read, now) = self.0.set_budget(&order).await?;
                let set_at = Some(timestamp_to_proto(now));
                let response = SetBudgetResponse { budget: Some(budget(&read, now)), set_at };
                self.0.commit_once(tx, key, response, now).await
            }
        }
    }

    async fn get(&self, request: &GetBudgetRequest) -> Result<GetBudgetResponse, Error> {
        let mut v = Violations::new();
        let id: Option<BudgetId> = parsed(&mut v, "budget_id", &request.budget_id);
        let month = month(&mut v, &request.month);
        let (id, month) = v.finish(reason::REQUEST_INVALID, id.zip(month))?;
        let read = self.0.budget(id, month).await?;
        Ok(GetBudgetResponse { budget: Some(budget(&read, self.0.clock.now())) })
    }

    async fn list(&self, request: &ListBudgetsRequest) -> Result<ListBudgetsResponse, Error> {
        let (account, team, month) = question(request)?;
        if let Some(team) = team {
            check_account(self.0.account_of(team).await?, account)?;
        }
        // A token of one list leads nowhere in another.
        let list = format!("budgets/{account}/{}/{}", request.team_id, request.month);
        let after: Option<BudgetId> = page::decode(&list, &request.page_token)?;
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max);
        let which = Which { budget: None, account: Some(account), team, after };
        let read = self.0.budgets_in(which, month, rows.into()).await?;
        let full = u32::try_from(read.len()).unwrap_or(u32::MAX) >= rows;
        let last = read.last().filter(|_| full).map(|last| last.budget_id);
        let now = self.0.clock.now();
        Ok(ListBudgetsResponse {
            budgets: read.iter().map(|read| budget(read, now)).collect(),
            next_page_token: last.map(|last| page::encode(&list, &last)).unwrap_or_default(),
        })
    }
}

fn order(request: &SetBudgetRequest) -> Result<BudgetOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = match request.team_id.as_str() {
        "" => Some(None),
        text => parsed(&mut v, "team_id", text).map(Some),
    };
    if request.team_id.is_empty() && !request.app_id.is_empty() {
        v.push("team_id", "must be named with an app");
    }
    let app_id = match request.app_id.as_str() {
        "" => Some(None),
        text => parsed(&mut v, "app_id", text).map(Some),
    };
    let terms = terms(&mut v, request);
    let order =
        account_id.zip(team_id).zip(app_id).zip(terms).map(|(((account_id, team_id), app_id), terms)| {
            BudgetOrder { account_id, team_id, app_id, terms }
        });
    v.finish(reason::REQUEST_INVALID, order)
}

fn terms(v: &mut Violations, request: &SetBudgetRequest) -> Option<Option<BudgetTerms>> {
    let soft = &request.soft_percent;
    if soft.len() > SOFT_LEVELS_MAX {
        v.push("soft_percent", format!("are {}, at most {SOFT_LEVELS_MAX}", soft.len()));
    }
    let Some(cap) = request.cap_micros else {
        if !soft.is_empty() {
            v.push("soft_percent", "must be empty without a cap, of which they are a part");
        }
        if request.hard {
            v.push("hard", "must not be set without a cap");
        }
        return Some(None);
    };
    if cap < 1 {
        v.push("cap_micros", format!("is {cap}, must be at least 1; leave it out to lift the cap"));
    }
    let in_range = |percent: &u32| (1..100).contains(percent);
    for (index, percent) in soft.iter().enumerate().take(SOFT_LEVELS_MAX) {
        let field = format!("soft_percent[{index}]");
        if !in_range(percent) {
            v.push(&field, format!("is {percent}, must be 1 to 99 percent of the cap"));
        }
        if soft.get(..index).and_then(<[u32]>::last).is_some_and(|before| before >= percent) {
            v.push(&field, format!("is {percent}, must be above the level before"));
        }
    }
    let soft: Vec<u16> = soft.iter().filter_map(|percent| u16::try_from(*percent).ok()).collect();
    BudgetTerms::new(MicroTokens::from_micros(cap), &soft, request.hard).ok().map(Some)
}

fn question(request: &ListBudgetsRequest) -> Result<(AccountId, Option<TeamId>, Option<Timestamp>), Refusal> {
    let mut v = Violations::new();
    let account = parsed(&mut v, "account_id", &request.account_id);
    let team = match request.team_id.as_str() {
        "" => Some(None),
        text => parsed(&mut v, "team_id", text).map(Some),
    };
    let month = month(&mut v, &request.month);
    let question = account.zip(team).zip(month).map(|((account, team), month)| (account, team, month));
    v.finish(reason::REQUEST_INVALID, question)
}

/// A month such as `2026-03`; none for the empty text.
fn month(v: &mut Violations, text: &str) -> Option<Option<Timestamp>> {
    if text.is_empty() {
        return Some(None);
    }
    let formed = text.len() == 7
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let first = formed.then(|| format!("{text}-01T00:00:00Z").parse::<Timestamp>().ok()).flatten();
    v.field("month", || first.ok_or("is not a month such as 2026-03")).map(Some)
}

fn budget(read: &BudgetRead, now: Timestamp) -> v1::Budget {
    let terms = read.terms.as_ref();
    let state = terms.map_or(BudgetState::Under, |terms| terms.state(read.used));
    let (state, reached_percent) = match state {
        BudgetState::Under => (v1::BudgetState::Under, 0),
        BudgetState::SoftReached(percent) => (v1::BudgetState::SoftLevelReached, percent.into()),
        BudgetState::CapReached => (v1::BudgetState::CapReached, 100),
    };
    let used = read.used.as_micros();
    v1::Budget {
        budget_id: read.budget_id.to_string(),
        account_id: read.account_id.to_string(),
        team_id: read.team_id.map(|team| team.to_string()).unwrap_or_default(),
        app_id: read.app_id.map(|app| app.to_string()).unwrap_or_default(),
        month: month_text(read.month),
        cap_micros: terms.map(|terms| terms.cap().as_micros()),
        soft_percent: terms
            .map(BudgetTerms::soft)
            .unwrap_or_default()
            .iter()
            .copied()
            .map(u32::from)
            .collect(),
        hard: terms.is_some_and(BudgetTerms::hard),
        used_micros: used,
        remaining_micros: terms.map(|terms| terms.cap().as_micros().saturating_sub(used)),
        state: state.into(),
        reached_percent,
        over: month_of(read.month).1 <= now,
        from_month: month_text(read.from_month),
    }
}

#[tonic::async_trait]
impl BudgetService for Budgets {
    async fn set_budget(
        &self,
        request: Request<SetBudgetRequest>,
    ) -> Result<Response<SetBudgetResponse>, Status> {
        self.set(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn get_budget(
        &self,
        request: Request<GetBudgetRequest>,
    ) -> Result<Response<GetBudgetResponse>, Status> {
        self.get(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_budgets(
        &self,
        request: Request<ListBudgetsRequest>,
    ) -> Result<Response<ListBudgetsResponse>, Status> {
        self.list(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }
}

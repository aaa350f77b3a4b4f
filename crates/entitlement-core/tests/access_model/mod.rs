//! A second, naive answer to "may it be used now?", written from the rules alone: plain numbers, no sets, no sharing.

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
/// How old data may be.
pub(crate) const BOUND: i64 = 10 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unpriced,
    Free,
    Charged,
    FreeTierOnly,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GateMeter {
    pub(crate) hard: bool,
    pub(crate) kind: Kind,
    /// Base units of a month.
    pub(crate) quota: i64,
    /// Micro-tokens a base unit.
    pub(crate) price: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GateBudget {
    pub(crate) month: i32,
    pub(crate) cap: Option<i64>,
    pub(crate) used: i64,
    pub(crate) hard: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GateStep {
    pub(crate) from: i64,
    pub(crate) available: i64,
    pub(crate) owed: i64,
    pub(crate) deadline: Option<i64>,
}

/// Everything that is known at an instant, and the question.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) known: bool,
    pub(crate) has_team: bool,
    pub(crate) account_suspended: bool,
    pub(crate) team_suspended: bool,
    pub(crate) archived: bool,
    pub(crate) buyer: bool,
    pub(crate) catalogue: bool,
    pub(crate) meter: Option<GateMeter>,
    pub(crate) trial_ends: i64,
    pub(crate) directory_as_of: i64,
    pub(crate) ledger_as_of: Option<i64>,
    pub(crate) steps: Vec<GateStep>,
    pub(crate) no_grace: Vec<(i64, Option<i64>)>,
    pub(crate) debt_limit: Option<i64>,
    /// Of the app, the team, the account.
    pub(crate) budgets: [Option<GateBudget>; 3],
    pub(crate) quota_month: i32,
    pub(crate) quota_used: i64,
    pub(crate) quantity: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) level: &'static str,
    /// Everything in the way, in order of weight.
    pub(crate) ways: Vec<&'static str>,
    pub(crate) balance: Option<i64>,
    pub(crate) deadline: Option<i64>,
    pub(crate) stale: bool,
}

/// Months since the year 0, counted day by day.
pub(crate) fn month(at: i64) -> i32 {
    let mut days = at.div_euclid(86_400 * SECOND);
    let (mut year, mut month) = (1970, 0);
    loop {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let february = if leap { 29 } else { 28 };
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        if days < lengths[month] {
            return year * 12 + i32::try_from(month).unwrap();
        }
        days -= lengths[month];
        month += 1;
        if month == 12 {
            (year, month) = (year + 1, 0);
        }
    }
}

impl Gate {
    fn step(&self, now: i64) -> GateStep {
        let begun = self.steps.iter().rev().find(|step| step.from <= now);
        *begun.unwrap_or(&self.steps[0])
    }

    /// D21, D48: below zero, and why without grace.
    fn without_grace(&self, now: i64) -> Vec<&'static str> {
        let step = self.step(now);
        let Some(deadline) = step.deadline else { return Vec::new() };
        let of_account = self.no_grace.iter().any(|(from, to)| *from <= now && to.is_none_or(|to| now < to));
        let mut ways = Vec::new();
        if deadline <= now {
            ways.push("GraceOver");
        } else if of_account {
            ways.push("AccountWithoutGrace");
        }
        if self.debt_limit.is_some_and(|limit| step.owed > limit) {
            ways.push("DebtLimitPassed");
        }
        ways
    }

    fn level(&self, now: i64) -> &'static str {
        if !self.has_team {
            "none"
        } else if self.account_suspended || self.team_suspended {
            "suspended"
        } else if now < self.trial_ends {
            "trial"
        } else if self.ledger_as_of.is_none() {
            "none"
        } else if self.step(now).deadline.is_none() {
            "full"
        } else if self.without_grace(now).is_empty() {
            "grace"
        } else {
            "limited"
        }
    }

    fn within_quota(&self, now: i64, quota: i64) -> bool {
        let used = if self.quota_month < month(now) { 0 } else { self.quota_used };
        used + i64::try_from(self.quantity).unwrap() <= quota
    }

    /// Whether the use costs something; what nothing is known of may.
    fn costs(&self, now: i64) -> bool {
        if self.has_team && now < self.trial_ends {
            return false;
        }
        match self.meter.filter(|_| self.catalogue) {
            None => !self.catalogue,
            Some(meter) => {
                meter.kind == Kind::Charged && !(meter.quota > 0 && self.within_quota(now, meter.quota))
            }
        }
    }

    pub(crate) fn answer(&self, now: i64) -> Verdict {
        let directory_old = now - self.directory_as_of > BOUND;
        if !self.known {
            return Verdict {
                allowed: false,
                level: "none",
                ways: vec!["ClientUnknown"],
                balance: None,
                deadline: None,
                stale: directory_old,
            };
        }
        let trial = self.has_team && now < self.trial_ends;
        let heard = self.ledger_as_of.is_some();
        let stale = directory_old || self.ledger_as_of.is_none_or(|as_of| now - as_of > BOUND);
        let step = self.step(now);
        let meter = self.meter.filter(|_| self.catalogue);
        let mut ways = Vec::new();
        let mut way = |holds: bool, name: &'static str| {
            if holds {
                ways.push(name);
            }
        };
        way(self.account_suspended, "AccountSuspended");
        way(self.team_suspended, "TeamSuspended");
        way(self.archived, "AppArchived");
        way(self.catalogue && meter.is_none(), "MeterNotKnown");
        let costs = self.costs(now);
        let money = self.has_team && heard;
        way(costs && !self.has_team, "TeamMissing");
        way(costs && self.has_team && !self.buyer, "ProductMissing");
        if costs && money {
            for without in self.without_grace(now) {
                way(true, without);
            }
        }
        let price = meter.map_or(0, |meter| meter.price * i64::try_from(self.quantity).unwrap());
        let covered = step.available - step.owed >= price;
        way(costs && money && meter.is_some_and(|meter| meter.hard) && !covered, "BalanceTooLow");
        let free_tier = meter.filter(|meter| meter.kind == Kind::FreeTierOnly);
        way(!trial && free_tier.is_some_and(|meter| !self.within_quota(now, meter.quota)), "FreeQuotaUsedUp");
        let names = ["AppBudgetReached", "TeamBudgetReached", "AccountBudgetReached"];
        for (budget, name) in self.budgets.iter().zip(names) {
            let Some(budget) = budget else { continue };
            let used = if budget.month < month(now) { 0 } else { budget.used };
            let reached = budget.hard && budget.cap.is_some_and(|cap| used >= cap);
            way(costs && self.has_team && reached, name);
        }
        let undecided = !trial
            && (!self.catalogue
                || meter.is_some_and(|meter| matches!(meter.kind, Kind::Charged | Kind::FreeTierOnly)));
        way(stale && undecided && meter.is_none_or(|meter| meter.hard), "RefusedWhileStale");
        let shown = money && !trial;
        let next = self.no_grace.iter().map(|(from, _)| *from).find(|from| *from > now);
        let present = self.no_grace.iter().find(|(from, to)| *from <= now && to.is_none_or(|to| now < to));
        let ends = step.deadline.map(|own| {
            [Some(own), next, present.map(|(from, _)| *from)].into_iter().flatten().min().unwrap()
        });
        Verdict {
            allowed: ways.is_empty(),
            level: self.level(now),
            ways,
            balance: shown.then_some(step.available - step.owed),
            // beyond the debt limit there is no time left that could be told
            deadline: ends.filter(|ends| {
                shown && (self.debt_limit.is_none_or(|limit| step.owed <= limit) || *ends <= now)
            }),
            stale,
        }
    }
}

// === a team's money through time ===

/// What happens to a team.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    /// So many micro-tokens, for so long.
    Buys(i64, i64),
    /// So much is posted, of whatever window.
    Uses(i64),
}

/// What happened, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Team {
    pub(crate) deeds: Vec<(i64, Deed)>,
}

/// Lots with their expiry, in order, and the debt.
#[derive(Clone, Debug, Default)]
struct Purse {
    lots: Vec<(i64, i64)>,
    owed: i64,
}

impl Purse {
    fn open(&mut self, now: i64) -> i64 {
        self.lots.retain(|(expiry, _)| *expiry > now);
        self.lots.sort_unstable();
        self.lots.iter().map(|(_, left)| *left).sum()
    }

    fn draw(&mut self, now: i64, mut amount: i64) -> i64 {
        self.open(now);
        for (_, left) in &mut self.lots {
            let part = amount.min(*left);
            *left -= part;
            amount -= part;
        }
        amount
    }

    fn does(&mut self, now: i64, deed: Deed) {
        match deed {
            Deed::Buys(amount, lasts) => self.lots.push((now + lasts, amount)),
            Deed::Uses(amount) => self.owed += amount,
        }
        self.owed = self.draw(now, self.owed);
    }
}

impl Team {
    fn purse(&self, until: usize) -> Purse {
        let mut purse = Purse::default();
        for (now, deed) in &self.deeds[..until] {
            purse.does(*now, *deed);
        }
        purse
    }

    /// The balance at an instant, by everything that was posted up to it.
    pub(crate) fn balance(&self, now: i64) -> (i64, i64) {
        let until = self.deeds.iter().take_while(|(at, _)| *at <= now).count();
        let mut purse = self.purse(until);
        (purse.open(now), purse.owed)
    }

    /// D48: since the first posting that ended below zero after the last one that did not.
    pub(crate) fn negative_since(&self, now: i64) -> Option<i64> {
        let mut since = None;
        for (index, (at, _)) in self.deeds.iter().enumerate().filter(|(_, (at, _))| *at <= now) {
            let mut purse = self.purse(index + 1);
            let below = purse.open(*at) < purse.owed;
            since = below.then_some(since.unwrap_or(*at));
        }
        since
    }

    /// D21, with a grace that ends at the first edge at or after its days.
    pub(crate) fn level(&self, now: i64, grace: i64) -> &'static str {
        match self.negative_since(now) {
            None => "full",
            Some(since) if now < edge(since + grace) => "grace",
            Some(_) => "limited",
        }
    }

    /// Later instants at which a lot expires.
    pub(crate) fn expiries(&self, now: i64) -> Vec<i64> {
        let until = self.deeds.iter().take_while(|(at, _)| *at <= now).count();
        let mut purse = self.purse(until);
        purse.open(now);
        purse.lots.iter().map(|(expiry, _)| *expiry).collect()
    }
}

/// The first edge at or after an instant.
pub(crate) fn edge(at: i64) -> i64 {
    at + (-at).rem_euclid(MINUTE)
}

//! FOCUS 1.2, the FinOps Open Cost and Usage Specification: cost and usage of a prepaid platform.
//!
//! Tokens are the pricing currency, a virtual one. The ledger knows no other currency (D60), so what a token
//! costs is told by whoever asks for the file. What follows from that:
//! - `PricingQuantity` is tokens, `PricingUnit` is `Tokens`, and the unit prices are the price of a token, so
//!   quantity × unit price is the cost to the last digit. What was metered is in `ConsumedQuantity`.
//! - `EffectiveCost`, `ListCost` and `ContractedCost` value every token at that price, also what is still owed
//!   and tokens that were given away.
//! - `BilledCost` is 0: usage is paid by purchases made ahead, which are billed by their orders, not by usage.
//! - Names of accounts and teams are not the ledger's: they are told too.
//! - `BillingPeriod` is the UTC month of the usage. A correction (D11) that is posted in a later month is of that
//!   month, with the days of the usage that it corrects, and has `ChargeClass` `Correction`; one that is posted
//!   in the month of the usage has none, as the specification says. Its quantities and costs may be below zero.
//! - Dimensions are tags that the provider sets, so their names begin with `dimension/`.
//! - A value that there is not is an empty cell, which is how CSV writes null.

use std::{collections::BTreeMap, io, str::FromStr, time::Duration};

use drawdown_types::{AmountError, MicroTokens, Timestamp};

use super::UsageLine;

/// A line and what it is seen with.
struct Row<'a> {
    account: &'a str,
    settings: &'a FocusSettings,
    usage: &'a UsageLine,
    /// The month in which it counts, as `[from, to)`.
    period: (String, String),
    tags: String,
}

/// A column: its id, and what stands in it.
type Column = (&'static str, fn(&Row<'_>) -> String);

/// The columns, those of the specification first.
const COLUMNS: [Column; 48] = [
    ("BilledCost", |_| "0.0".to_owned()),
    ("BillingAccountId", |row| row.account.to_owned()),
    ("BillingAccountName", |row| row.settings.account_name.clone()),
    ("BillingAccountType", |_| "Account".to_owned()),
    ("BillingCurrency", |row| row.settings.billing_currency.clone()),
    ("BillingPeriodEnd", |row| row.period.1.clone()),
    ("BillingPeriodStart", |row| row.period.0.clone()),
    ("ChargeCategory", |_| "Usage".to_owned()),
    ("ChargeClass", |row| row.class()),
    ("ChargeDescription", |row| format!("Usage of {}", row.usage.meter)),
    ("ChargeFrequency", |_| "Usage-Based".to_owned()),
    ("ChargePeriodEnd", |row| row.usage.day.checked_add(DAY).unwrap_or(Timestamp::MAX).to_string()),
    ("ChargePeriodStart", |row| row.usage.day.to_string()),
    ("ConsumedQuantity", |row| format!("{}.0", row.usage.quantity)),
    ("ConsumedUnit", |row| row.usage.unit.clone()),
    ("ContractedCost", |row| row.cost()),
    ("ContractedUnitPrice", |row| row.token_price()),
    ("EffectiveCost", |row| row.cost()),
    ("InvoiceId", null),
    ("InvoiceIssuerName", |row| row.provider()),
    ("ListCost", |row| row.cost()),
    ("ListUnitPrice", |row| row.token_price()),
    ("PricingCategory", |_| "Standard".to_owned()),
    ("PricingCurrency", |_| "Tokens".to_owned()),
    ("PricingCurrencyContractedUnitPrice", |_| "1.0".to_owned()),
    ("PricingCurrencyEffectiveCost", |row| row.tokens()),
    ("PricingCurrencyListUnitPrice", |_| "1.0".to_owned()),
    ("PricingQuantity", |row| row.tokens()),
    ("PricingUnit", |_| "Tokens".to_owned()),
    ("ProviderName", |row| row.provider()),
    ("PublisherName", |row| row.provider()),
    ("ResourceId", |row| row.usage.app_id.clone()),
    ("ResourceName", null),
    ("ResourceType", |_| "App".to_owned()),
    ("ServiceCategory", |_| "Other".to_owned()),
    ("ServiceName", |row| row.settings.service_name.clone()),
    ("ServiceSubcategory", |_| "Other (Other)".to_owned()),
    ("SkuId", |row| row.meter()),
    ("SkuMeter", |row| row.meter()),
    ("SkuPriceDetails", null),
    ("SkuPriceId", |row| row.meter()),
    ("SubAccountId", |row| row.usage.team_id.clone()),
    ("SubAccountName", |row| row.team_name()),
    ("SubAccountType", |_| "Team".to_owned()),
    ("Tags", |row| row.tags.clone()),
    ("x_ClientId", |row| row.usage.client_id.clone()),
    ("x_Outcome", |row| row.usage.outcome().to_owned()),
    ("x_UnchargedTokens", |row| decimal(row.usage.open_micros)),
];

/// An empty cell.
fn null(_: &Row<'_>) -> String {
    String::new()
}

impl Row<'_> {
    fn class(&self) -> String {
        if self.period == month(self.usage.day) { String::new() } else { "Correction".to_owned() }
    }

    fn cost(&self) -> String {
        self.settings.token_price.of(self.usage.amount_micros)
    }

    fn token_price(&self) -> String {
        decimal(self.settings.token_price.0)
    }

    fn tokens(&self) -> String {
        decimal(self.usage.amount_micros)
    }

    fn provider(&self) -> String {
        self.settings.provider_name.clone()
    }

    fn team_name(&self) -> String {
        self.settings.team_names.get(&self.usage.team_id).unwrap_or(&self.usage.team_id).clone()
    }

    fn meter(&self) -> String {
        self.usage.meter.clone()
    }
}

/// What a token costs: millionths of a unit of the billing currency, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrice(i64);

impl FromStr for TokenPrice {
    type Err = AmountError;

    /// A decimal number with at most six places, not below zero.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let price: MicroTokens = text.parse()?;
        if price.is_negative() {
            return Err(AmountError::Negative(price.as_micros()));
        }
        Ok(Self(price.as_micros()))
    }
}

impl TokenPrice {
    /// What `micros` micro-tokens cost, to the last of twelve places.
    fn of(self, micros: i64) -> String {
        // Two numbers of 64 bits: their product fits.
        let cost = i128::from(self.0).saturating_mul(micros.into());
        let sign = if cost < 0 { "-" } else { "" };
        let (whole, rest) = (cost.unsigned_abs() / COST_UNIT, cost.unsigned_abs() % COST_UNIT);
        let places = format!("{rest:012}");
        let places = places.trim_end_matches('0');
        format!("{sign}{whole}.{}", if places.is_empty() { "0" } else { places })
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Millionths of a token times millionths of a currency's unit.
const COST_UNIT: u128 = 1_000_000_000_000;

/// What the ledger can not know and a file must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FocusSettings {
    /// The currency in which tokens are sold: three letters of ISO 4217.
    pub billing_currency: String,
    /// What a token costs in it.
    pub token_price: TokenPrice,
    /// Who runs the platform, sells its tokens and sends the invoices.
    pub provider_name: String,
    /// What the platform is called.
    pub service_name: String,
    /// What people call the account.
    pub account_name: String,
    /// What people call its teams, by `team_…`; a team without a name is named by its id.
    pub team_names: BTreeMap<String, String>,
}

/// Millionths as a decimal number. It always has a point: readers that guess a column's type by its text
/// would take a column of whole numbers for integers.
fn decimal(micros: i64) -> String {
    let text = MicroTokens::from_micros(micros).to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The UTC month of an instant, as `[from, to)`.
fn month(at: Timestamp) -> (String, String) {
    let text = at.to_string();
    let part =
        |range| text.get(range).and_then(|digits: &str| digits.parse::<i32>().ok()).unwrap_or_default();
    let (year, month) = (part(0..4), part(5..7));
    let (next_year, next_month) =
        if month == 12 { (year.saturating_add(1), 1) } else { (year, month.saturating_add(1)) };
    let start = |year: i32, month: i32| format!("{year:04}-{month:02}-01T00:00:00Z");
    (start(year, month), start(next_year, next_month))
}

/// Dimensions as tags; none is null.
fn tags(dimensions: &str) -> io::Result<String> {
    let dimensions: BTreeMap<String, String> = serde_json::from_str(dimensions)?;
    if dimensions.is_empty() {
        return Ok(String::new());
    }
    let tags: BTreeMap<String, String> =
        dimensions.into_iter().map(|(name, value)| (format!("dimension/{name}"), value)).collect();
    Ok(serde_json::to_string(&tags)?)
}

/// The ids of the columns.
pub(super) fn head() -> [&'static str; 48] {
    COLUMNS.map(|(id, _)| id)
}

pub(super) fn usage(account: &str, settings: &FocusSettings, usage: &UsageLine) -> io::Result<[String; 48]> {
    let period = month(usage.corrected_in.unwrap_or(usage.day));
    let row = Row { account, settings, usage, period, tags: tags(&usage.dimensions)? };
    Ok(COLUMNS.map(|(_, cell)| cell(&row)))
}

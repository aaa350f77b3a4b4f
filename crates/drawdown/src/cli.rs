//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    certs::CertsCommand,
    openapi::OpenApiCommand,
    operator::{
        access::AccessCommand,
        app::{AppCommand, CredentialCommand, ResolveCommand},
        budget::BudgetCommand,
        catalog::{MeterCommand, RateCardCommand},
        hierarchy::{AccountCommand, TeamCommand},
        history::{HistoryCommand, HubCommand},
        ledger::LedgerCommand,
        lots::{HoldCommand, LotCommand},
        members::{ProductCommand, RoleCommand, UserCommand},
        notice::NoticeCommand,
        principals::{KeysCommand, PrincipalsCommand},
        statement::{ForecastCommand, StatementCommand},
        tokens::{BalanceCommand, ChargesCommand, JournalCommand, LotsCommand, TokensCommand},
        transfer::TransferCommand,
        unattributed::UnattributedCommand,
        usage::{ProducerCommand, UsageCommand},
    },
    replay::ReplayCommand,
    serve::{ConfigCommand, MigrateCommand, ServeArguments, Service, UpCommand},
    status::StatusCommand,
};

const AFTER_HELP: &str = "\
Exit codes: 0; 64 where the command line or the configuration can not be used; 1 for every other failure.

Example:
  drawdown up --data-dir ./data --addresses-file addresses.json
  drawdown status --addresses-file addresses.json";

/// Prepaid usage metering for API platforms
#[derive(Parser, Debug)]
#[command(name = "drawdown", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// Lets a crash leave a core dump, and a debugger attach: it holds keys and passwords
    #[arg(long, env = "DRAWDOWN_ALLOW_CORE_DUMPS", hide_env_values = true)]
    pub(crate) allow_core_dumps: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs all services in one process, on a private Postgres and Redis
    Up(UpCommand),
    /// Runs the metering service
    #[command(after_help = "Example:\n  drawdown metering --config drawdown.toml")]
    Metering(ServeArguments),
    Ledger(LedgerCommand),
    /// Runs the entitlement service
    #[command(after_help = "Example:\n  drawdown entitlement --config drawdown.toml")]
    Entitlement(ServeArguments),
    Migrate(MigrateCommand),
    Config(ConfigCommand),
    #[command(name = "openapi")]
    OpenApi(OpenApiCommand),
    Certs(CertsCommand),
    Status(StatusCommand),
    Account(AccountCommand),
    Team(TeamCommand),
    User(UserCommand),
    Role(RoleCommand),
    Product(ProductCommand),
    App(AppCommand),
    Credential(CredentialCommand),
    Transfer(TransferCommand),
    Hub(HubCommand),
    Resolve(ResolveCommand),
    Access(AccessCommand),
    History(HistoryCommand),
    Principals(PrincipalsCommand),
    Keys(KeysCommand),
    Meter(MeterCommand),
    RateCard(RateCardCommand),
    Tokens(TokensCommand),
    Lots(LotsCommand),
    Lot(LotCommand),
    Hold(HoldCommand),
    Balance(BalanceCommand),
    Charges(ChargesCommand),
    Journal(JournalCommand),
    Unattributed(UnattributedCommand),
    Notice(NoticeCommand),
    Budget(BudgetCommand),
    Statement(StatementCommand),
    Forecast(ForecastCommand),
    Producer(ProducerCommand),
    Usage(UsageCommand),
    Replay(ReplayCommand),
}

impl Cli {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::Up(command) => command.run().await,
            Command::Metering(arguments) => arguments.run(Service::Metering).await,
            Command::Ledger(LedgerCommand { serve, action: None }) => serve.run(Service::Ledger).await,
            Command::Ledger(LedgerCommand { action: Some(action), .. }) => action.run().await,
            Command::Entitlement(arguments) => arguments.run(Service::Entitlement).await,
            Command::Migrate(command) => command.run().await,
            Command::Config(command) => command.run(),
            Command::OpenApi(command) => command.run(),
            Command::Certs(command) => command.run(),
            Command::Status(command) => command.run().await,
            Command::Account(command) => command.run().await,
            Command::Team(command) => command.run().await,
            Command::User(command) => command.run().await,
            Command::Role(command) => command.run().await,
            Command::Product(command) => command.run().await,
            Command::App(command) => command.run().await,
            Command::Credential(command) => command.run().await,
            Command::Transfer(command) => command.run().await,
            Command::Hub(command) => command.run().await,
            Command::Resolve(command) => command.run().await,
            Command::Access(command) => command.run().await,
            Command::History(command) => command.run().await,
            Command::Principals(command) => command.run().await,
            Command::Keys(command) => command.run().await,
            Command::Meter(command) => command.run().await,
            Command::RateCard(command) => command.run().await,
            Command::Tokens(command) => command.run().await,
            Command::Lots(command) => command.run().await,
            Command::Lot(command) => command.run().await,
            Command::Hold(command) => command.run().await,
            Command::Balance(command) => command.run().await,
            Command::Charges(command) => command.run().await,
            Command::Journal(command) => command.run().await,
            Command::Unattributed(command) => command.run().await,
            Command::Notice(command) => command.run().await,
            Command::Budget(command) => command.run().await,
            Command::Statement(command) => command.run().await,
            Command::Forecast(command) => command.run().await,
            Command::Producer(command) => command.run().await,
            Command::Usage(command) => command.run().await,
            Command::Replay(command) => command.run().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command that can be run, with its help as it is printed.
    fn pages(command: &mut clap::Command, path: &str, pages: &mut Vec<(String, String)>) {
        let children: Vec<String> =
            command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
        pages.push((path.to_owned(), command.render_long_help().to_string()));
        for name in children.iter().filter(|name| *name != "help") {
            if let Some(child) = command.find_subcommand_mut(name) {
                self::pages(child, &format!("{path} {name}"), pages);
            }
        }
    }

    fn all_pages() -> Vec<(String, String)> {
        let mut command = Cli::command().term_width(110);
        command.build();
        let mut all = Vec::new();
        pages(&mut command, "drawdown", &mut all);
        all
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        let families = |page: &str| page.contains("Commands:") && !page.contains("Example:");
        for (path, page) in all_pages().into_iter().filter(|(_, page)| !families(page)) {
            let examples: Vec<&str> =
                page.lines().map(str::trim).filter(|line| line.starts_with("drawdown ")).collect();
            assert!(!examples.is_empty(), "{path} has no example:\n{page}");
            for example in examples {
                let words = words(example);
                let parsed = Cli::try_parse_from(&words).map(|_| ()).map_err(|error| error.to_string());
                assert_eq!(parsed, Ok(()), "{example}");
            }
        }
    }

    /// A line as a shell would cut it: quotes, and nothing after a redirection.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap_or(line);
        let parts = line.split('\'').enumerate();
        parts
            .flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn help_is_as_it_was() {
        let all: Vec<String> = all_pages().iter().map(|(path, page)| format!("# {path}\n\n{page}")).collect();
        insta::assert_snapshot!("help", all.join("\n"));
    }
}

#!/usr/bin/env bash
# Makes the users that the services sign in as: members of the roles that `drawdown migrate` gives rights to, and owners
# of nothing. Postgres' image runs it once, over an empty data folder; by hand it takes the same variables.
set -euo pipefail

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set ledger_password="$LEDGER_PASSWORD" --set entitlement_password="$ENTITLEMENT_PASSWORD" <<'SQL'
create role drawdown_ledger_service nologin;
create role drawdown_entitlement_service nologin;
create user drawdown_ledger password :'ledger_password' in role drawdown_ledger_service;
create user drawdown_entitlement password :'entitlement_password' in role drawdown_entitlement_service;
SQL

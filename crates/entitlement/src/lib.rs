//! owns accounts, teams, users, apps and credentials with their history; says who pays

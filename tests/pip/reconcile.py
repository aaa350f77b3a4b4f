# Reconciles what was charged, as a billing system would; played by `cargo xtask door-check`.
"""Reconciles what Drawdown charged, as a billing system would: over JSON, with nothing but Python's standard library.

    reconcile.py LEDGER ACCOUNT FROM TO --store FILE [--offline]

pulls everything that was posted to an account since the last time (the rows and the cursor are kept in FILE and FILE.cursor), adds
it up per team and UTC day in whole micro-tokens, and compares it with what the ledger itself says:

  - every charge and every journal row of each team is there once, whatever was posted while it was pulled;
  - its books, added up from the rows, are those of its balance;
  - the rows that were posted in [FROM, TO) are the movements of its statement of that period, and lead from its opening to its closing balance;
  - its sums by day are those of the report of usage.

An installation that is secured is named by https, with the trust bundle that its certificate is of (--ca) and an API key of a billing
reader of the account: in a file (--api-key-file), or the variable DRAWDOWN_API_KEY, never an argument, which everybody
on the machine can read. Where it asks its callers for certificates, --certificate and --key name the files of one.

    reconcile.py https://ledger.example:7402 ACCOUNT FROM TO --store FILE --ca trust-bundle.pem --certificate client.pem \\
        --key client.key --api-key-file reader.key

Prints a line for each team and day, then the differences; the exit code is 1 where there are any. With --offline nothing is pulled: FILE is
compared as it is.
"""

import argparse
import collections
import datetime
import ipaddress
import json
import os
import pathlib
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

PAGE_ROWS = 500
TRIES = 5
# Fields of a balance at one end of a statement, and the books that they are.
STATEMENT_BOOKS = {
    "heldMicros": "held",
    "unchargedMicros": "uncharged",
    "usedMicros": "consumed",
    "issuedMicros": "issued",
    "expiredMicros": "expired",
    "voidMicros": "void",
    "movedMicros": "moved",
}


class Ledger:
    """The reads of the ledger."""

    def __init__(self, url, account, key="", context=None):
        self.url, self.account, self.context = url.rstrip("/"), account, context
        self.headers = {"grpc-timeout": "30S"}
        if key:
            self.headers["authorization"] = f"Bearer {key}"

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        request = urllib.request.Request(f"{self.url}{path}?{query}", headers=self.headers)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            status = json.load(refused)
            raise SystemExit(f"{path}: {refused.code} {status['message']} {json.dumps(status['details'])}") from None

    def of_account(self, path, **parameters):
        return self.get(f"/v1/accounts/{self.account}/{path}", **parameters)

    def balance(self, team):
        return self.get(f"/v1/teams/{team}/balance", accountId=self.account)["balance"]


def micros(text):
    """An instant as a whole number of microseconds: floats would lose some."""
    at = datetime.datetime.fromisoformat(text) - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return at // datetime.timedelta(microseconds=1)


def pull(ledger, store):
    """Appends what is new to the store. The cursor is written after the rows that lie before it."""
    kept = pathlib.Path(f"{store}.cursor")
    cursor = kept.read_text(encoding="ascii") if kept.exists() else ""
    more, count = True, 0
    while more:
        page = ledger.of_account("postings", cursor=cursor, pageSize=PAGE_ROWS)
        with open(store, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(posting) + "\n" for posting in page["postings"])
        cursor, more, count = page["cursor"], page["more"], count + len(page["postings"])
        kept.write_text(cursor, encoding="ascii")
    return count


class Team:
    """What was posted to a team, added up."""

    def __init__(self):
        self.charges, self.rows = [], []

    def add(self, posting):
        if "charge" in posting:
            self.charges.append(posting["charge"])
            self.rows.extend(posting["charge"]["rows"])
        else:
            self.rows.append(posting["row"])

    def books(self, before=None):
        """Each book: what it took less what it gave. Those that give first are told as what they gave."""
        books = collections.Counter()
        for row in self.rows:
            if before is None or micros(row["postedAt"]) < before:
                books[row["debitBook"]] -= int(row["amountMicros"])
                books[row["creditBook"]] += int(row["amountMicros"])
        books["issued"], books["uncharged"] = -books["issued"], -books["uncharged"]
        return books

    def days(self):
        days = collections.defaultdict(collections.Counter)
        for charge in self.charges:
            day = days[charge["windowStart"][:10]]
            day["charges"] += 1
            for name in ("events", "quantity", "amountMicros", "chargedMicros", "unchargedMicros"):
                day[name] += int(charge[name])
        return days


def read(store):
    teams = collections.defaultdict(Team)
    with open(store, encoding="utf-8") as file:
        for line in file:
            posting = json.loads(line)
            teams[posting["teamId"]].add(posting)
    return dict(sorted(teams.items()))


def gaps(name, numbers):
    """A history from 1 on has each number once."""
    numbers = sorted(numbers)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{name}: {len(numbers)} from {numbers[0]} to {numbers[-1]}, some missing or doubled"


def charge_is_its_rows(charge):
    """What paid, and what is owed, is all that it costs."""
    amount, uncharged = int(charge["amountMicros"]), int(charge["unchargedMicros"])
    owed = sum(int(row["amountMicros"]) for row in charge["rows"] if row["kind"] in ("uncharged", "cancellation"))
    moved = sum(int(row["amountMicros"]) for row in charge["rows"])
    if (moved, owed) != (abs(amount), abs(uncharged)) or amount - uncharged != int(charge["chargedMicros"]):
        yield f"charge {charge['chargeId']}: costs {amount} with {uncharged} uncharged; its rows move {moved}, of which {owed} uncharged"


def against_balance(team, balance):
    books = team.books()
    told = {
        "lot": sum(int(balance[name]) for name in ("availableMicros", "scheduledMicros", "closingMicros")),
        "held": int(balance["heldMicros"]),
        "uncharged": int(balance["unchargedMicros"]),
        "consumed": int(balance["usedMicros"]),
        "issued": int(balance["purchasedMicros"]),
        "expired": int(balance["expiredMicros"]),
        "void": int(balance["voidMicros"]),
        "moved": int(balance["movedOutMicros"]) - int(balance["movedInMicros"]),
    }
    for book, amount in told.items():
        if books[book] != amount:
            yield f"book {book}: {books[book]} by the rows, {amount} by the balance"
    if len(team.rows) != int(balance["version"]):
        yield f"{len(team.rows)} journal rows are here, the balance counts {balance['version']}"


def against_statement(team, statement):
    begin, end = micros(statement["from"]), micros(statement["to"])
    movements = collections.defaultdict(collections.Counter)
    for row in team.rows:
        if begin <= micros(row["postedAt"]) < end:
            earlier = micros(row["effectiveAt"]) < begin
            sums = movements[row["kind"], row["debitBook"], row["creditBook"], earlier]
            sums["rows"] += 1
            sums["amountMicros"] += int(row["amountMicros"])
    told = {}
    for movement in statement["movements"]:
        key = tuple(movement[name] for name in ("kind", "debitBook", "creditBook", "earlier"))
        told[key] = {name: int(movement[name]) for name in ("rows", "amountMicros")}
    for key in sorted(movements.keys() | told.keys()):
        ours, theirs = dict(movements.get(key, {})), told.get(key, {})
        if ours != theirs:
            yield f"movement {key}: {ours} by the rows, {theirs} by the statement"
    for name, instant in (("opening", begin), ("closing", end)):
        books = team.books(before=instant)
        told = {book: int(statement[name][field]) for field, book in STATEMENT_BOOKS.items()}
        told["lot"] = sum(int(statement[name][field]) for field in ("availableMicros", "scheduledMicros", "closingMicros"))
        for book, amount in told.items():
            if books[book] != amount:
                yield f"{name} {book}: {books[book]} by the rows, {amount} by the statement"


def against_report(team, groups):
    days, told = team.days(), {group["day"][:10]: group["sums"] for group in groups}
    for day in sorted(days.keys() | told.keys()):
        ours = {name: days[day][name] for name in ("charges", "events", "quantity", "amountMicros")}
        theirs = {name: int(told.get(day, {}).get(name, 0)) for name in ours}
        if ours != theirs:
            yield f"day {day}: {ours} by the rows, {theirs} by the report"
    owed = sum(int(sums["openMicros"]) for sums in told.values())
    if owed != team.books()["uncharged"]:
        yield f"open debt: {team.books()['uncharged']} by the rows, {owed} by the report"


def statement_of(ledger, name, period):
    heads = ledger.of_account("statements", teamId=name)["statements"]
    for head in heads:
        if (micros(head["from"]), micros(head["to"])) == period:
            return ledger.of_account(f"statements/{head['statementId']}")["statement"]["statement"]
    raise SystemExit(f"{name}: no statement of that period is issued")


def differences(ledger, name, team, period):
    yield from gaps("charges", [int(charge["seq"]) for charge in team.charges])
    yield from gaps("journal rows", [int(row["seq"]) for row in team.rows])
    for charge in team.charges:
        yield from charge_is_its_rows(charge)
    yield from against_balance(team, ledger.balance(name))
    yield from against_statement(team, statement_of(ledger, name, period))
    groups = ledger.of_account("usage", teamId=name, groupBy="USAGE_KEY_DAY")["groups"]
    yield from against_report(team, groups)


def compare(ledger, store, period):
    found = []
    for name, team in read(store).items():
        for day, sums in sorted(team.days().items()):
            print(name, day, *(f"{key}={value}" for key, value in sums.items()))
        found.extend(f"{name}: {difference}" for difference in differences(ledger, name, team, period))
    return found


def is_loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connection(arguments):
    """The key, and how TLS is spoken, where it is."""
    key = os.environ.get("DRAWDOWN_API_KEY", "")
    if arguments.api_key_file:
        key = pathlib.Path(arguments.api_key_file).read_text(encoding="ascii")
    key = key.strip()
    url = urllib.parse.urlsplit(arguments.ledger)
    if url.scheme != "https":
        if key and not is_loopback(url.hostname or ""):
            raise SystemExit("a key goes by https only, beyond this machine")
        return key, None
    context = ssl.create_default_context(cafile=arguments.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if arguments.certificate:
        context.load_cert_chain(arguments.certificate, arguments.key)
    return key, context


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("ledger", help="its address, such as http://127.0.0.1:7402")
    parser.add_argument("account", help="acct_…")
    parser.add_argument("begin", metavar="from", help="first instant of the period of the statements, RFC 3339")
    parser.add_argument("end", metavar="to", help="first instant after it")
    parser.add_argument("--store", required=True, help="where the rows are kept")
    parser.add_argument("--ca", help="certificates in PEM of whom to trust; those of the machine by default")
    parser.add_argument("--certificate", help="its own certificate in PEM, where the ledger asks for one")
    parser.add_argument("--key", help="the key of that certificate")
    parser.add_argument("--api-key-file", help="a file with the API key; DRAWDOWN_API_KEY holds it otherwise")
    parser.add_argument("--offline", action="store_true", help="pulls nothing")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.ledger, arguments.account, *connection(arguments))
    period = (micros(arguments.begin), micros(arguments.end))
    for _ in range(1 if arguments.offline else TRIES):
        if not arguments.offline:
            print(f"pulled {pull(ledger, arguments.store)} postings")
        found = compare(ledger, arguments.store, period)
        # What is posted between the pull and the balance makes them differ once, and is pulled the next time.
        if not found:
            print("reconciled to the micro-token")
            return
    print(*found, sep="\n")
    sys.exit(1)


if __name__ == "__main__":
    main()

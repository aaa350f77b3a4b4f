# Reads the files of `cargo xtask export-check` by programs that are not ours.
"""Reads the three files of usage in a folder by programs that are not ours, and compares them cell by cell.

CSV by Python's own reader, Parquet by Apache Arrow's C++ one. Ends with an error where they differ.
"""

import csv
import datetime
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet

GROUP_ROWS_MAX = 3000
MICROS = Decimal(1_000_000)
TYPES = {
    **dict.fromkeys(["day", "corrected_in"], pyarrow.date32()),
    **dict.fromkeys(
        ["charges", "events", "quantity", "amount_micros", "charged_micros", "uncharged_micros"], pyarrow.int64()
    ),
}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def typed(name, text):
    if TYPES.get(name) == pyarrow.date32():
        return datetime.date.fromisoformat(text) if text else None
    return int(text) if TYPES.get(name) == pyarrow.int64() else text


def check_parquet(path, rows):
    file = pyarrow.parquet.ParquetFile(path)
    groups = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
    assert len(groups) > 1 and max(groups) <= GROUP_ROWS_MAX, groups
    table = file.read()
    names = list(rows[0])
    assert table.column_names == names, table.column_names
    for field in table.schema:
        # a column of JSON is a text with a name
        storage = getattr(field.type, "storage_type", field.type)
        assert storage == TYPES.get(field.name, pyarrow.string()), field
    for read, row in zip(table.to_pylist(), rows, strict=True):
        assert read == {name: typed(name, row[name]) for name in names}, (read, row)


def check_focus(path, rows):
    lines = rows_of(path)
    for line, row in zip(lines, rows, strict=True):
        tokens = Decimal(int(row["amount_micros"])) / MICROS
        assert Decimal(line["PricingQuantity"]) == tokens == Decimal(line["PricingCurrencyEffectiveCost"]), line
        for cost, price in [("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")]:
            assert Decimal(line[cost]) == tokens * Decimal(line[price]), line
        assert Decimal(line["ConsumedQuantity"]) == int(row["quantity"]), line
        assert Decimal(line["x_UnchargedTokens"]) == Decimal(int(row["uncharged_micros"])) / MICROS, line
        later = row["corrected_in"][:7] > row["day"][:7]
        assert (line["ChargeClass"] == "Correction") == later, line


def main():
    folder = Path(sys.argv[1])
    rows = rows_of(folder / "usage.csv")
    assert (folder / "usage.csv").read_bytes().endswith(b"\r\n")
    check_parquet(folder / "usage.parquet", rows)
    check_focus(folder / "focus.csv", rows)
    micros = sum(int(row["amount_micros"]) for row in rows)
    print(f"export: {len(rows)} lines of {micros} micro-tokens are the same in all three files")


main()

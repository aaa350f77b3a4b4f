//! Parts of a journal, and the places where they begin: found by halving, compared with what looking at every row gives.

use crate::{corruption::rich, partitions::texts, world::World};

/// What a statement finds wrong in a ledger that has charges of every sort: paid by one lot, by several, unpaid, free, taken back.
async fn wrong(world: &World, sql: &str) -> Vec<String> {
    let sorts = texts(
        world,
        "select format('%s %s %s', lot_id is null, amount_micros = 0, quantity < 0) from ledger.charge group by 1 order by 1",
    )
    .await;
    assert_eq!(sorts, ["f f f", "t f f", "t f t", "t t f"], "a sort of charges is missing");
    texts(world, sql).await
}

#[tokio::test]
async fn a_part_is_what_lies_between_its_ends() {
    let (world, ..) = rich().await;
    let found = "select format('%s to %s', a, z)
        from ledger.balance b, generate_series(-1, b.version + 1) a, generate_series(-1, b.version + 1) z
        where (select array_agg(to_jsonb(j) order by seq) from ledger.journal_between(b.account_id, b.team_id, a, z) j)
              is distinct from
              (select array_agg(to_jsonb(j) order by seq) from ledger.full_journal j
               where j.team_id = b.team_id and seq > a and seq <= z)";
    assert_eq!(wrong(&world, found).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_last_charge_up_to_a_row_is_found() {
    let (world, ..) = rich().await;
    let found = "select r::text
        from ledger.balance b, generate_series(1, b.version + 1) r
        where ledger.charge_seq_to_row(b.account_id, b.team_id, r) <> (
            select coalesce(max(seq), 0) from ledger.charge c where c.team_id = b.team_id and c.journal_seq <= r)";
    assert_eq!(wrong(&world, found).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_last_row_before_an_instant_is_found() {
    let (world, ..) = rich().await;
    let found = "select t.at::text
        from ledger.balance b
        cross join lateral (
            select distinct posted_at + d as at
            from ledger.full_journal j, unnest(array[interval '0', interval '1 microsecond', interval '40 days']) d
            where j.team_id = b.team_id) t
        where ledger.journal_seq_before(b.account_id, b.team_id, t.at) <> (
            select coalesce(max(seq), 0) from ledger.full_journal j where j.team_id = b.team_id and j.posted_at < t.at)";
    assert_eq!(wrong(&world, found).await, Vec::<String>::new());
}

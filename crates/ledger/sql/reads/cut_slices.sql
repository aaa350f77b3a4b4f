-- A slice for each team of an account that has more than was cut before. The head is locked by an earlier statement, so this one
-- sees what was cut while that waited. A balance is committed with its charges and rows, so what it counts is there.
with grown as (
    select b.team_id, coalesce(s.charge_to, 0) as charge_after, b.charges as charge_to,
           coalesce(s.row_to, 0) as row_after, b.version as row_to
    from ledger.balance b
    left join lateral (
        select charge_to, row_to
        from ledger.posting_slice
        where account_id = b.account_id and team_id = b.team_id
        order by position desc
        limit 1
    ) s on true
    where b.account_id = $1 and (b.charges > coalesce(s.charge_to, 0) or b.version > coalesce(s.row_to, 0))
), cut as (
    insert into ledger.posting_slice (account_id, position, team_id, charge_after, charge_to, row_after, row_to)
    select $1, h.position + row_number() over (order by g.team_id), g.team_id, g.charge_after, g.charge_to, g.row_after, g.row_to
    from grown g, ledger.posting_head h
    where h.account_id = $1
    returning 1
)
update ledger.posting_head set position = position + (select count(*) from cut)
where account_id = $1 and exists (select from cut)

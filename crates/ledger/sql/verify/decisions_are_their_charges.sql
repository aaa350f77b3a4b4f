-- Usage that was charged by a decision has a charge of its own, outside of batches, which says what the entry says
-- (D25), as long as the charges of that month are here.
select format('entry %s', d.entry)
from ledger.review_decision d
left join ledger.unattributed u using (entry)
left join ledger.charge c
    on c.account_id = d.account_id and c.team_id = d.team_id and c.seq = d.charge_seq and c.posted_at = d.decided_at
where u.entry is null
   or d.kind <> 'dismissed' and d.decided_at >= ledger.archived_until()
      and (c.charge_id, c.app_id, c.client_id, c.meter, c.failed, c.window_start, c.dimensions, c.batch, c.events, c.quantity)
          is distinct from (d.charge_id, d.app_id, u.client_id, u.meter, u.failed, u.window_start, u.dimensions, 0::bigint,
                            u.events, u.quantity)
order by d.entry

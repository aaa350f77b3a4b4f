-- What a team's journal rows come to, by lot and kind, that were recorded after $3 or take effect at or after $4: what
-- is taken off the books of now to have those of then. Rows posted before $5 can be neither.
select j.lot_id, j.kind as "kind!", sum(j.amount_micros)::text as "micros!",
       count(*) filter (where j.posted_at > $3) as "recorded_later!"
from ledger.journal_between($1, $2, ledger.journal_seq_before($1, $2, $5), 9223372036854775807) j
where j.posted_at >= $5
  and (j.posted_at > $3 or j.effective_at >= $4)
group by j.lot_id, j.kind

-- Unattributed usage by entry, each with what was decided about it.
select u.entry as "entry!", u.client_id as "client_id!", u.meter as "meter!", u.failed as "failed!",
       u.window_start as "window_start!: Instant", u.received_window_start as "received_window_start!: Instant",
       u.dimensions::text as "dimensions!", u.reason as "reason!", u.events as "events!", u.quantity as "quantity!",
       u.posted_at as "posted_at!: Instant", u.account_id, u.team_id, u.app_id,
       d.kind as "decision?", d.decided_at as "decided_at?: Instant", d.decided_by as "decided_by?",
       d.reason as "why?", d.request_id as "request_id?", d.account_id as "charged_account?",
       d.team_id as "charged_team?", d.app_id as "charged_app?", d.charge_id as "charge_id?",
       d.charge_seq as "charge_seq?"
from ledger.unattributed u
left join ledger.review_decision d on d.entry = u.entry
where u.entry > $1
  and ($3::text[] is null or u.reason = any($3))
  and ($4::text[] is null or u.client_id = any($4))
  and ($5::text[] is null or u.meter = any($5))
  and ($6::timestamptz is null or u.window_start >= $6)
  and ($7::timestamptz is null or u.window_start < $7)
  and ($8::timestamptz is null or u.received_window_start >= $8)
  and ($9::timestamptz is null or u.received_window_start < $9)
  and ($10::boolean is null or $10 = (d.entry is not null))
order by u.entry
limit $2

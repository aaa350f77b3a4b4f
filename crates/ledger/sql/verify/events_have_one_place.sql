-- No id of a source is recorded twice, whatever the months.
select format('event %s of %s', min(id), min(source)) from ledger.event group by name having count(*) > 1 order by 1

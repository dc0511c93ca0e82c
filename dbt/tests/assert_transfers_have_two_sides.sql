-- Assert that every transfer has one side out and one side in, of opposite amounts.
select transfer_id, count(*) as sides, sum(amount) as total
from {{ ref('fct_transfers') }}
group by transfer_id
having count(*) != 2 or sum(amount) != 0

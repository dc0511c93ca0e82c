-- Assert that the balances of all accounts sum to what they opened with: money only moves between accounts.
select sum(balance) as balances, sum(opening_balance) as opening_balances
from {{ ref('dim_accounts') }}
having sum(balance) != sum(opening_balance)

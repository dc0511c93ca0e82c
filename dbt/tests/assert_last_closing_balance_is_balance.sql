-- Assert that an account's last closing balance is its balance, and that an account that never moved has kept its
-- opening balance.
with last_days as (
    select account_id, max_by(closing_balance, day) as closing_balance
    from {{ ref('agg_daily_balance') }}
    group by account_id
)

select accounts.account_id, accounts.balance, last_days.closing_balance
from {{ ref('dim_accounts') }} as accounts
left join last_days on last_days.account_id = accounts.account_id
where accounts.kind != 'external'
    and accounts.balance != coalesce(last_days.closing_balance, accounts.opening_balance)
